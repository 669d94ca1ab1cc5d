"""`nbdserver snapshot`: what devices held at some moment, kept, listed, gone back to, and removed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import perform, perform_in_turn, way_to
from nbdserver.cli.shared.exit_status import PROBLEMS, CommandFailed
from nbdserver.cli.shared.parameters import (
    DURATION,
    FOLDER_PATH,
    NAME,
    SNAPSHOT,
    Place,
    json_option,
    option,
    store_option,
)
from nbdserver.cli.shared.standard import complain
from nbdserver.printable import printable

if TYPE_CHECKING:
    from collections.abc import Generator

    from nbdserver.admin.asked import Answer
    from nbdserver.admin.operations import Operation
    from nbdserver.admin.snapshot_operations import CreateSnapshot


@click.group()
def snapshot() -> None:
    """Keep, see, go back to and remove what devices held at some moment.

    A snapshot is named by its device, as in vol1@monday. It is taken at once, takes room only for what is
    written to the device since, and can be attached under that name, to be read. These commands work on a
    running server, through its admin socket, and on a store at rest, which they open themselves.
    """


@snapshot.command()
@click.argument("name", type=NAME)
@option("--devices", metavar="A,B,...", help="Of these devices, at one moment; then NAME is @SNAPSHOT.")
@option("--all", "every", is_flag=True, help="Of all devices, at one moment; then NAME is @SNAPSHOT.")
@option("--expires", type=DURATION, metavar="7d", help="Delete it by itself so long from now: 30m, 12h, 7d or 4w.")
@click.option(
    "--freeze", "mounts", type=FOLDER_PATH, multiple=True, help="Freeze this file system meanwhile. Repeatable."
)
@click.option("--before", metavar="COMMAND", help="Run this in a shell first; if it fails, nothing is taken.")
@click.option("--after", metavar="COMMAND", help="Run this in a shell afterwards, whatever came of it.")
@json_option
@store_option
def create(
    place: Place,
    name: str,
    devices: str | None,
    every: bool,
    expires: float | None,
    mounts: tuple[Path, ...],
    before: str | None,
    after: str | None,
    as_json: bool,
) -> int:
    """Take a snapshot DEVICE@SNAPSHOT, or @SNAPSHOT of several devices at one moment.

    \b
    nbdserver snapshot create vol1@monday --expires 7d
    nbdserver snapshot create @before-upgrade --devices vol1,db
    nbdserver snapshot create vol1@clean --freeze /mnt

    Clients go on. It holds what they were answered for; what a file system has not written yet is not in it,
    unless that is frozen: it writes all it has, and programs that write to it wait until the snapshot is durable, a
    minute at most (status 3: it took longer, so the file system went on before it was known to be taken). It is
    thawed, and --after run, also if this command fails or is killed. Status 3 too: it was taken, and --after failed.
    """
    from nbdserver.admin.snapshot_operations import CreateSnapshot

    device, at, taken = name.partition("@")
    if not at or not taken:
        raise click.UsageError(f"{printable(name)} is no DEVICE@SNAPSHOT, and no @SNAPSHOT of several devices")
    if (bool(device), devices is not None, every).count(True) != 1:
        raise click.UsageError("of which devices? Name one as in vol1@monday, or give @monday with --devices or --all")
    chosen = [device] if device else [] if every else [one for one in (devices or "").split(",") if one]
    if not chosen and not every:
        raise click.UsageError("--devices names none")
    operation = CreateSnapshot(chosen, taken, expires)
    if not mounts and before is None and after is None:
        answer, problem = perform(place, operation), None
    else:
        answer, problem = _take_quiesced(place, operation, mounts, before, after)
    if as_json:
        output.document(answer)
    for one in () if as_json else answer["snapshots"]:
        output.line(f"{one}: taken")
    if problem is not None:
        complain(f"taken, and {printable(problem)}")
    return 0 if problem is None else PROBLEMS


def _take_quiesced(
    place: Place, operation: CreateSnapshot, mounts: tuple[Path, ...], before: str | None, after: str | None
) -> tuple[Answer, str | None]:
    """The answer, and what went wrong once it was there, of which whoever asked is not to think that nothing was taken.
    Conflict: no server has the store, so nobody has a file system on it, and what is frozen waits for a password.
    """
    from nbdserver.admin.client import find_server
    from nbdserver.cli.snapshots.quiescing import quiesced
    from storage.errors import Conflict, StorageError

    server = find_server(place.store, os.environ)
    if server is None:
        raise Conflict(f"no server of {place.store} runs on this machine: --freeze, --before and --after go with one")
    with quiesced([mount.absolute() for mount in mounts], before, after) as state:
        answer = server.perform(operation)
        try:
            was_frozen = state.release()
        except StorageError as error:
            return answer, str(error)
        except KeyboardInterrupt:
            complain(f"{', '.join(map(printable, answer['snapshots']))}: taken, and --after may not have ended")
            raise
    late = f"{', '.join(map(str, mounts))} was not frozen any more when that was known"
    return answer, None if was_frozen else late


@snapshot.command("list")
@click.argument("device", type=NAME, required=False)
@json_option
@store_option
def list_command(place: Place, device: str | None, as_json: bool) -> None:
    """List all snapshots, or those of DEVICE, the oldest first.

    EXCLUSIVE is what would be free if the snapshot were deleted. In a pipe: name, size in bytes, time, when it is
    deleted by itself or "-", bytes exclusive, and who wanted it (asked: somebody who named it; schedule: serve --keep;
    rollback: one that kept what it replaced; clone: one that did not get to its end, which is deleted by itself),
    separated by tabs.
    """
    from nbdserver.admin.snapshot_operations import ListSnapshots

    found = perform(place, ListSnapshots(device))["snapshots"]
    if as_json:
        output.document(found)
        return
    output.table(
        ("NAME", "SIZE", "TAKEN", "EXPIRES", "EXCLUSIVE", "ORIGIN"),
        [
            (
                f"{each['device']}@{each['name']}",
                output.size(each["size"]),
                output.time(each["created"]),
                "-" if each["expires"] is None else output.time(each["expires"]),
                output.size(each["exclusive_bytes"]),
                each["origin"],
            )
            for each in found
        ],
    )


@snapshot.command()
@click.argument("name", type=SNAPSHOT)
@click.argument("other", metavar="DEVICE[@SNAPSHOT]", type=NAME)
@json_option
@store_option
def diff(place: Place, name: tuple[str, str], other: str, as_json: bool) -> None:
    """Say which ranges differ between a snapshot DEVICE@SNAPSHOT and another one, or DEVICE as it is now.

    Never less than what differs; what was discarded is a change. More may be said, in units of 4 KiB: what was
    written again as it was, and of 256 KiB that were put together since, all. In a pipe: offset and length of
    each range in bytes, separated by a tab.
    """
    from nbdserver.admin.snapshot_operations import DiffSnapshot

    device, _, snapshot = other.partition("@")
    if device != name[0]:
        raise click.UsageError(f"{printable(other)} is not {printable(name[0])}, and no snapshot of it")
    ranges: list[tuple[int, int]] = []
    size = 0

    def parts() -> Generator[Operation, Answer, None]:
        nonlocal size
        begin: int | None = 0
        while begin is not None:
            answer = yield DiffSnapshot(*name, snapshot, begin)
            ranges.extend(answer["ranges"])
            size, begin = answer["size"], answer["next"]

    perform_in_turn(way_to(place), parts(), writes=False)
    if as_json:
        found = [{"offset": offset, "length": length} for offset, length in ranges]
        changed = sum(length for _, length in ranges)
        output.document({"size": size, "changed_bytes": changed, "ranges": found})
        return
    output.table(("OFFSET", "LENGTH"), [(str(offset), output.size(length)) for offset, length in ranges])


@snapshot.command()
@click.argument("name", type=SNAPSHOT)
@json_option
@store_option
def delete(place: Place, name: tuple[str, str], as_json: bool) -> None:
    """Remove a snapshot DEVICE@SNAPSHOT, to which no client may be attached. All others stay as they are."""
    from nbdserver.admin.snapshot_operations import DeleteSnapshot

    answer = perform(place, DeleteSnapshot(*name))
    output.said(answer, f"{name[0]}@{name[1]}: deleted", as_json=as_json)


@snapshot.command()
@click.argument("name", type=SNAPSHOT)
@click.option("--discard", is_flag=True, help="Do not keep what the device holds now.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal either.")
@json_option
@store_option
def rollback(place: Place, name: tuple[str, str], discard: bool, yes: bool, as_json: bool) -> None:
    """Give a device the content and the size of its snapshot DEVICE@SNAPSHOT. No client may be attached.

    What it held is kept as a snapshot, unless --discard is given; then it asks first on a terminal. Newer
    snapshots stay.
    """
    from nbdserver.admin.snapshot_operations import RollBackDevice

    device = printable(name[0])
    if discard and not yes and sys.stdin.isatty() and not click.confirm(f"Discard what {device} holds now?", err=True):
        raise CommandFailed(f"{device} was left as it is")
    answer = perform(place, RollBackDevice(*name, keep=not discard))
    kept = "" if answer["kept"] is None else f", what it held is {answer['kept']}"
    output.said(answer, f"{name[0]}: now as {name[0]}@{name[1]}{kept}", as_json=as_json)
