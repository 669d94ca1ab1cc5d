"""`nbdserver fs`: the directories, symbolic links and device files of a store."""

import stat as modes
from typing import Any

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import perform
from nbdserver.cli.shared.parameters import PATH, Place, json_option, store_option

LETTERS = {"directory": modes.S_IFDIR, "device": modes.S_IFBLK, "symlink": modes.S_IFLNK}


@click.group()
def fs() -> None:
    """See and change the tree of names: directories, symbolic links, and device files below /.nbd.

    A device is exported under its path below /.nbd, and under that of a symbolic link to it. These commands
    work on a running server, through its admin socket, and on a store at rest, which they open themselves.
    Modes and owners are kept, and no access is decided by them.
    """


@fs.command("ls")
@click.argument("path", type=PATH, default="/")
@json_option
@store_option
def list_command(place: Place, path: str, as_json: bool) -> None:
    """List what lies in a directory.

    \b
    nbdserver fs ls /.nbd

    In a pipe: mode, owner, group, size in bytes, time, path, and of a link its target, separated by tabs.
    """
    _list(place, path, below=False, as_json=as_json)


@fs.command()
@click.argument("path", type=PATH, default="/")
@json_option
@store_option
def tree(place: Place, path: str, as_json: bool) -> None:
    """List what lies in a directory and in all below it."""
    _list(place, path, below=True, as_json=as_json)


@fs.command()
@click.argument("path", type=PATH)
@json_option
@store_option
def stat(place: Place, path: str, as_json: bool) -> None:
    """Show what lies at a path; a symbolic link is not followed."""
    from nbdserver.admin.file_operations import ShowFile

    _show(perform(place, ShowFile(path)), as_json=as_json)


@fs.command()
@click.argument("path", type=PATH)
@json_option
@store_option
def mkdir(place: Place, path: str, as_json: bool) -> None:
    """Make a directory. Those of a device's name are made with the device."""
    from nbdserver.admin.file_operations import MakeDirectory

    _show(perform(place, MakeDirectory(path)), as_json=as_json)


@fs.command()
@click.argument("target")
@click.argument("path", type=PATH)
@json_option
@store_option
def ln(place: Place, target: str, path: str, as_json: bool) -> None:
    """Make a symbolic link at PATH that points to TARGET, which need not be there.

    \b
    nbdserver fs ln vol1 /.nbd/current           # clients may attach "current"
    """
    from nbdserver.admin.file_operations import MakeLink

    _show(perform(place, MakeLink(target, path)), as_json=as_json)


@fs.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@json_option
@store_option
def mv(place: Place, old: str, new: str, as_json: bool) -> None:
    """Move a device to which no client is attached, a symbolic link, or a directory without devices."""
    from nbdserver.admin.file_operations import MoveFile

    _show(perform(place, MoveFile(old, new)), as_json=as_json)


@fs.command()
@click.argument("path", type=PATH)
@json_option
@store_option
def rm(place: Place, path: str, as_json: bool) -> None:
    """Remove a symbolic link, or an empty directory. A device is removed by device delete."""
    from nbdserver.admin.file_operations import RemoveFile

    answer = perform(place, RemoveFile(path))
    if as_json:
        output.document(answer)
    else:
        output.line(f"{path}: removed")


@fs.command()
@click.argument("mode")
@click.argument("path", type=PATH)
@json_option
@store_option
def chmod(place: Place, mode: str, path: str, as_json: bool) -> None:
    """Give a file other permission bits: MODE is octal, as in 640."""
    from nbdserver.admin.file_operations import ChangeFile

    if not mode or set(mode) - set("01234567") or int(mode, 8) > 0o7777:
        raise click.UsageError(f"{mode!a} is no mode: give octal digits up to 7777")
    _show(perform(place, ChangeFile(path, mode=int(mode, 8))), as_json=as_json)


@fs.command()
@click.argument("owner")
@click.argument("path", type=PATH)
@json_option
@store_option
def chown(place: Place, owner: str, path: str, as_json: bool) -> None:
    """Give a file another owner: OWNER is UID, UID:GID or :GID, in numbers."""
    from nbdserver.admin.file_operations import ChangeFile

    uid, colon, gid = owner.partition(":")
    if not (uid or gid) or not all(part.isdecimal() and part.isascii() for part in (uid, gid) if part):
        raise click.UsageError(f"{owner!a} is no owner: give UID, UID:GID or :GID in numbers")
    change = ChangeFile(path, uid=int(uid) if uid else None, gid=int(gid) if colon and gid else None)
    _show(perform(place, change), as_json=as_json)


def _list(place: Place, path: str, *, below: bool, as_json: bool) -> None:
    from nbdserver.admin.file_operations import ListFiles

    found = perform(place, ListFiles(path, below))["files"]
    if as_json:
        output.document(found)
    else:
        _table(found)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.document(found)
    else:
        _table([found])


def _table(files: list[dict[str, Any]]) -> None:
    output.table(("MODE", "OWNER", "GROUP", "SIZE", "MODIFIED", "PATH", "TARGET"), [_row(each) for each in files])


def _row(file: dict[str, Any]) -> tuple[str, ...]:
    return (
        modes.filemode(LETTERS[file["kind"]] | file["mode"]),
        str(file["uid"]),
        str(file["gid"]),
        output.size(file["size"]),
        output.time(file["modified"]),
        file["path"],
        file["target"],
    )
