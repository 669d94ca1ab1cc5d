"""The commands by name, each with its place in the code and its sentence: none is imported before it is wanted.

Of the program's start half was the import of all commands, of which one runs. The page of all of them shows the
sentences from here; a test compares them with what the commands say of themselves.
"""

import os
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Final

import click

ROOT_COMMANDS: Final = {
    "adopt": ("store_care.cmd_adopt", "Make the copy of a store a store of its own, with an id of its own."),
    "attach": (
        "serving.cmd_attach",
        "Attach an export as a disk of this machine, and keep it attached while servers come and go.",
    ),
    "attached": ("serving.cmd_attach", "List the NBD disks of this machine, by whatever they were attached."),
    "bench": ("store_care.cmd_bench", "Try what a bucket, a folder or a disk can do."),
    "check": (
        "store_care.cmd_check",
        "Say whether everything in the store is there, fits together and can be read.",
    ),
    "client": ("serving.cmd_client", "See who is connected to a server of this machine, and disconnect clients."),
    "compact": (
        "store_care.cmd_maintain",
        "Make a store as small and its blocks as whole as can be, or those of one DEVICE.",
    ),
    "completion": ("shell.cmd_completion", "Print a script that completes commands and options in a shell."),
    "config": ("shell.cmd_config", "See what the configuration file says, and whether it is right."),
    "dashboard": (
        "serving.cmd_dashboard",
        "Print the address of a server's dashboard, with the token that its page asks for.",
    ),
    "debug": ("store_care.cmd_debug", "Look into a store by hand; nothing is changed, whoever serves it."),
    "detach": ("serving.cmd_attach", "Detach a disk, whoever attached it."),
    "device": ("devices.cmd_device", "Make, see, change and remove devices."),
    "flush": ("serving.cmd_status", "Return when everything that was written before is safe in the store."),
    "fs": (
        "devices.cmd_fs",
        "See and change the tree of names: directories, symbolic links, and device files below /.nbd.",
    ),
    "gc": ("store_care.cmd_maintain", "Delete now what nothing needs any more, and say what is kept and why."),
    "init": ("store_care.cmd_init", "Make a new, empty store."),
    "key": ("store_care.cmd_key", "See and rotate the data key of a store."),
    "password": ("store_care.cmd_password", "See, add, change and remove the passwords of a store."),
    "replicate": (
        "snapshots.cmd_replicate",
        "Make DEVICE in the store TO as it is here, and keep it so with --every.",
    ),
    "restart": ("serving.cmd_restart", "Restart the server of a store that runs on this host."),
    "scrub": (
        "store_care.cmd_scrub",
        "Show when the data of a store was last read and opened, and what was not sound then.",
    ),
    "serve": ("serving.cmd_serve", "Serve the devices of a store to NBD clients."),
    "snapshot": ("snapshots.cmd_snapshot", "Keep, see, go back to and remove what devices held at some moment."),
    "stats": ("serving.cmd_stats", "Show all counters and gauges of a store, or those of one DEVICE."),
    "status": ("serving.cmd_status", "Show what is served, to whom, and how the store is doing."),
    "top": (
        "serving.cmd_top",
        "Show what the server of a store does now: each disk, what clients wait for, and requests to the store.",
    ),
    "trace": (
        "serving.cmd_trace",
        "Show what clients of a running server waited long for, and where the time of each operation went.",
    ),
}
"""Module below `nbdserver.cli`, in which the command has its own name, and the first sentence of its help."""


class LateCommands(UserDict[str, click.Command]):
    """All of `ROOT_COMMANDS`; to look one up imports it."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.data:
            module, _ = ROOT_COMMANDS[name]
            self.data[name] = getattr(import_module(f"nbdserver.cli.{module}"), name)
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        return name in ROOT_COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(ROOT_COMMANDS)

    def __len__(self) -> int:
        return len(ROOT_COMMANDS)


class _LateContext(click.Context):
    def make_formatter(self) -> click.HelpFormatter:
        """As click does it, without `shutil`, which it asks for the width, and which brings compression with it."""
        return self.formatter_class(width=self.terminal_width or _page_width(), max_width=self.max_content_width)


def _page_width() -> int:
    """Of a page of help, in characters: 2 less than the terminal's, or than COLUMNS says, from 50 to 78."""
    width = 0
    with suppress(ValueError):  # that is no number, or has thousands of digits
        width = int(os.environ.get("COLUMNS", "0"))
    if width <= 0:
        with suppress(OSError):
            width = os.get_terminal_size(1).columns
    return max(min(width if width > 0 else 80, 80) - 2, 50)


class LateGroup(click.Group):
    """The group of `ROOT_COMMANDS`, whose page is made without them."""

    context_class = _LateContext
    before_command: Callable[[], None] = staticmethod(lambda: None)
    """Called once it is known that a command is to run, before that is imported."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant, imported."""
        if not ctx.resilient_parsing:
            self.before_command()
        return super().resolve_command(ctx, args)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Their names and sentences, as click itself would show them."""
        sentence_width = formatter.width - 6 - max(map(len, ROOT_COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, click.Command(name, help=sentence).get_short_help_str(sentence_width))
                    for name, (_, sentence) in ROOT_COMMANDS.items()
                ]
            )
