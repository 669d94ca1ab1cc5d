"""Where a password may come from: never an argument, and never two places at once.

A password in a variable is taken out of the environment. A command that prints one gets the environment without the
passwords, and with all else: it may have to ask a service of its own for it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared.exit_status import FAILED, STATUS_OF_KIND, CommandFailed
from nbdserver.cli.shared.standard import INPUT, complain

if TYPE_CHECKING:
    import subprocess

    from storage.secret import Secret


@dataclass(frozen=True, slots=True)
class Password:
    """A password, and whether somebody typed it: a typed one of a new store should be typed twice. Whoever asked for it
    wipes it.
    """

    secret: Secret
    typed: bool = False


def current(environ: MutableMapping[str, str]) -> Password:
    """The password of the store. CommandFailed: there is none, or more than one."""
    return _find(environ, "PASSWORD", "password", "Password of the store")


def new(environ: MutableMapping[str, str]) -> Password:
    """The password that the store is to have; a typed one is asked for twice."""
    found = _find(environ, "NEW_PASSWORD", "new-password", "New password of the store")
    if found.typed:
        confirm(found)
    return found


def of_second_store(environ: MutableMapping[str, str]) -> Password | None:
    """The password of the store that a device is replicated to. None: it has the one that the first has."""
    if not _sources(environ, "NBDSERVER_TO_PASSWORD", "to-password"):
        return None
    return _find(environ, "TO_PASSWORD", "to-password", "Password of the second store")


def of_file(path: Path) -> Secret:
    """The password in a file that a command names."""
    return _checked(_read(path), str(path))


def confirm(password: Password) -> None:
    """Ask for a typed password again. CommandFailed if it differs."""
    with _ask("The same once more") as again:
        if again != password.secret:
            raise CommandFailed("the two passwords differ: nothing was done")


def _find(environ: MutableMapping[str, str], name: str, credential: str, prompt: str) -> Password:
    from storage.secret import taken

    variable = f"NBDSERVER_{name}"
    sources = _sources(environ, variable, credential)
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if len(sources) > 1:
        raise CommandFailed(f"the password is given twice, by {' and '.join(sources)}: leave one", status=2)
    if not sources:
        if not sys.stdin.isatty():
            raise CommandFailed(
                f"no password: set {variable}, {variable}_FILE or {variable}_COMMAND, or run this on a terminal",
                status=2,
            )
        return Password(_checked(_ask(prompt), "what was typed"), typed=True)
    (source,) = sources
    if source == variable:
        secret = taken(environ, source)
    elif source == "CREDENTIALS_DIRECTORY":
        secret = _read(Path(str(folder)) / credential)
    elif source.endswith("_FILE"):
        secret = _read(Path(environ[source]))
    else:
        secret = _run(environ[source], source, environ)
    return Password(_checked(secret, source))


def _sources(environ: Mapping[str, str], variable: str, credential: str) -> list[str]:
    """The variables that say what the password is, or where."""
    sources = [key for key in (variable, f"{variable}_FILE", f"{variable}_COMMAND") if environ.get(key)]
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and (Path(folder) / credential).exists():
        sources.append("CREDENTIALS_DIRECTORY")
    return sources


def _checked(secret: Secret, source: str) -> Secret:
    if not secret:
        raise CommandFailed(f"the password from {source} is empty", status=2)
    return secret


def _read(path: Path) -> Secret:
    """The content of a file, without the line end that editors put there."""
    try:
        warn_of_readers(path, "the password")
        return _line(path.read_bytes())
    except OSError as error:
        status = STATUS_OF_KIND["AccessDenied"] if isinstance(error, PermissionError) else FAILED
        raise CommandFailed(f"the password file {path} cannot be read: {error.strerror}", status=status) from error


def warn_of_readers(path: Path, secret: str) -> None:
    """Say it where a file with a secret is not this user's or root's alone. OSError: it cannot be looked at."""
    found = path.stat()
    if found.st_mode & stat.S_IROTH:
        click.echo(f"nbdserver: warning: everybody can read {secret} in {path}: chmod o-r it", err=True)
    if found.st_mode & stat.S_IWOTH:
        click.echo(f"nbdserver: warning: everybody can replace {secret} in {path}: chmod o-w it", err=True)
    if found.st_uid not in (0, os.geteuid()):
        click.echo(f"nbdserver: warning: {path} belongs to user {found.st_uid}, who knows {secret} in it", err=True)


def _run(command: str, source: str, environ: Mapping[str, str]) -> Secret:
    """What a command prints; it is split as a shell would, but no shell runs it. It may ask a person, so it has all the
    time it takes. It reads standard input only where that is a terminal: a disk may come in there, and what the command
    took would be missing in the middle of it.
    """
    import shlex
    import subprocess

    from storage.secret import without_passwords

    # No error is kept as the cause of another: it quotes the command, which may hold a secret of its own.
    try:
        with subprocess.Popen(
            shlex.split(command),
            stdin=None if os.isatty(INPUT) else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=without_passwords(environ),
        ) as child:
            printed = _wait(child, f"waiting for the command in {source}")
    except (OSError, ValueError, IndexError) as error:
        raise CommandFailed(f"the command in {source} cannot be run: {error}") from None
    if child.returncode:
        raise CommandFailed(f"the command in {source} ended with status {child.returncode}")
    return _line(printed)


def _wait(child: subprocess.Popen[bytes], sentence: str) -> bytes:
    """What a child prints; while that takes long, `sentence` is said every few seconds."""
    import subprocess

    from nbdserver.service.waiting import FIRST_SECONDS, REPEAT_SECONDS

    pause = FIRST_SECONDS
    try:
        while True:
            try:
                return child.communicate(timeout=pause)[0]
            except subprocess.TimeoutExpired:
                complain(sentence)
                pause = REPEAT_SECONDS
    except BaseException:
        child.kill()
        raise


def _line(data: bytes) -> Secret:
    from storage.secret import Secret

    return Secret(data.removesuffix(b"\n").removesuffix(b"\r"))


def _ask(prompt: str) -> Secret:
    from storage.secret import Secret

    answer: str = click.prompt(prompt, hide_input=True, default="", show_default=False, err=True)
    return Secret(os.fsencode(answer))
