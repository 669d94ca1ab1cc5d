"""`nbdserver`: the tree of commands, and how every one of them ends."""

import os
import sys
import threading

import click

from nbdserver import __version__
from nbdserver.cli.late_commands import LateCommands, LateGroup
from nbdserver.cli.shared.config_place import find
from nbdserver.cli.shared.exit_status import INTERRUPTED, report
from nbdserver.cli.shared.standard import open_standard, write_out
from nbdserver.service.core_dumps import forbid_core_dumps


def _configure(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """Have commands take what they are not told from the configuration file."""
    if ctx.resilient_parsing:
        return  # a shell asks how a line goes on, and shows no errors
    path = path or find(os.environ)
    if path is not None and isinstance(ctx.command, click.Group):
        from pathlib import Path

        from nbdserver.cli.shared.config_file import read

        ctx.obj = read(Path(path), ctx.command)
        ctx.default_map = ctx.obj.defaults


@click.group(
    cls=LateGroup,
    commands=LateCommands(),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
@click.version_option(__version__, "-V", "--version", message="nbdserver %(version)s")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False),
    envvar="NBDSERVER_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=_configure,
    help="The configuration file.  [default: nbdserver.toml here, in ~/.config/nbdserver, in /etc/nbdserver]",
)
@click.option("--store", metavar="STORE", help="Where the store is; may also be given to a command.")
def cli(store: str | None) -> None:
    """An NBD server that turns a bucket into disks.

    \b
    nbdserver serve s3://bucket/disks --create vol1=10GiB
    nbdserver attach vol1 --fork

    The password of the store comes from NBDSERVER_PASSWORD, NBDSERVER_PASSWORD_FILE,
    NBDSERVER_PASSWORD_COMMAND, the systemd credential "password", or a prompt. Every option can be set by a
    variable: --state-folder by NBDSERVER_STATE_FOLDER. S3 is reached by the AWS variables and files.

    \b
    Exit status: 0 fine, 1 failed, 2 usage, 3 done but problems found,
    10 no such store, device or bucket, 11 another writer holds or took the store,
    12 wrong password, 13 access denied, 14 unsupported format or store,
    15 the name exists already, 16 in use, or not possible as things are,
    20 data damaged, 21 store unavailable, 22 store full, 130 interrupted.
    More may come: take an unknown one as failed.
    """


def main() -> int:
    """Run the command line of this process; returns the exit status."""
    heed_termination()
    forbid_core_dumps()
    open_standard()
    cli.before_command = _say_events
    status_ = write_out(_run())
    if threading.active_count() > 1:
        # A request to a store that does not answer must not keep a finished command waiting.
        os._exit(status_)
    return status_


def heed_termination() -> None:
    """From now on SIGTERM ends process 1 too. In a container that has no default action: until a server listens to
    signals, a stop would be lost, and end with SIGKILL after all the time that it is given.
    """
    if os.getpid() == 1:
        import signal

        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def _say_events() -> None:
    from nbdserver.cli.shared.event_sentences import say_events

    say_events()


def _run() -> int:
    as_json = "--json" in sys.argv or bool(os.environ.get("NBDSERVER_JSON"))
    try:
        result = cli.main(prog_name="nbdserver", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        click.echo("nbdserver: interrupted", err=True)
        return INTERRUPTED
    except Exception as error:
        return report(error, as_json=as_json)
    return result if isinstance(result, int) else 0
