"""`nbdserver device import` and `export`: whole disks from and to files, holes kept."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import at_rest, way_to
from nbdserver.cli.shared.parameters import NAME, SNAPSHOT, Place, json_option, store_option
from nbdserver.cli.shared.reminding import reminding
from nbdserver.cli.shared.standard import complain
from nbdserver.cli.shared.streams import export_stream, import_stream
from nbdserver.config import format_size
from nbdserver.printable import printable

if TYPE_CHECKING:
    from nbdserver.cli.devices.disk_images import ImageReader, ImageWriter, Piece
    from nbdserver.cli.shared.progress import ProgressDisplay
    from storage import Store


@click.command("import")
@click.argument("name", type=NAME)
@click.argument("file")
@click.option("--overwrite", is_flag=True, help="Replace what the device holds.")
@click.option(
    "--format", "raw", type=click.Choice(["raw"]), help="Import the bytes as they are, whatever they look like."
)
@json_option
@store_option
def import_command(place: Place, name: str, file: str, overwrite: bool, raw: str | None, as_json: bool) -> None:
    """Fill the device NAME from FILE, a raw disk image or a block device; - is standard input.

    \b
    nbdserver device import vol1 disk.img
    nbdserver device import copy vol1-tuesday.stream

    A device that is not there is made with the size of FILE. One that is there must be large enough and, unless
    --overwrite is given, must hold nothing yet; what FILE does not fill becomes zeros. It takes over all of FILE, or
    stays as it was, also if the import is interrupted or the server crashes; until its end the store has both contents.
    Holes and zeros of FILE take no space in the store. Images in other formats (qcow2, VMDK, VDI, VHDX) and compressed
    ones are refused, with the way to convert them.

    FILE may also be a stream of a snapshot, as device export makes it: of all that it holds, which makes a device
    that is not there, or of what changed since another one, for a device that has that snapshot and was not changed
    since. It takes over all of it, with the snapshot, or stays as it was (status 16: something else is there; 15: the
    snapshot is there already; 20: the stream is damaged).
    """
    from nbdserver.admin.snapshot_stream import is_stream
    from nbdserver.cli.devices.disk_images import ImageReader
    from nbdserver.cli.shared.progress import ProgressDisplay

    with contextlib.closing(ImageReader(file, insist=raw is not None)) as reader:
        lines_to = sys.stdout if as_json else None
        with ProgressDisplay(f"importing {name}", reader.size, lines_to=lines_to) as progress:
            if raw is None and is_stream(reader.head()):
                if overwrite:
                    raise click.UsageError(f"{printable(file)} is a stream of a snapshot, which replaces nothing")
                answer = import_stream(way_to(place), name, reader.raw(progress.advance))
                progress.summary(**answer)
                if not as_json:
                    output.line(f"{answer['snapshot']}: imported, {format_size(answer['size'])}")
                return
            size = _import(place, name, reader, progress, overwrite=overwrite)
            progress.summary(name=name, size=size)
    if not as_json:
        output.line(f"{name}: imported, {format_size(size)}")


@click.command("export")
@click.argument("name", metavar="DEVICE[@SNAPSHOT]", type=NAME)
@click.argument("file")
@click.option("--overwrite", is_flag=True, help="Replace what FILE holds; needed for a block device.")
@click.option("--stream", is_flag=True, help="Write a stream of the snapshot, for device import.")
@click.option("--since", metavar="SNAPSHOT", type=NAME, help="A stream of what changed since this older snapshot.")
@json_option
@store_option
def export_command(
    place: Place, name: str, file: str, overwrite: bool, stream: bool, since: str | None, as_json: bool
) -> None:
    """Write a device, or a snapshot of it, to FILE, as a raw disk image with holes; - is standard output.

    \b
    nbdserver device export vol1 disk.img
    nbdserver device export vol1@monday vol1-monday.stream --stream
    nbdserver device export vol1@tuesday vol1-tuesday.stream --since monday

    Of a device that is written to, every piece is as it is when its turn comes: for an image of one moment,
    export a snapshot. A store at rest is only read, whoever serves it elsewhere.

    With --stream FILE gets the snapshot with its identity, checked by sums of its own: device import makes a device
    with that snapshot of it. With --since it gets what changed since another snapshot of the device, for one that
    has that.
    """
    from nbdserver.cli.devices.disk_images import ImageWriter
    from nbdserver.cli.shared.progress import ProgressDisplay

    snapshot = SNAPSHOT(name) if stream or since is not None else None
    with contextlib.closing(ImageWriter(file, overwrite=overwrite)) as writer:
        apart = writer.is_standard_output
        lines_to = (sys.stderr if apart else sys.stdout) if as_json else None
        with ProgressDisplay(f"exporting {name}", None, lines_to=lines_to) as progress:
            if snapshot is None:
                size = _export(place, name, writer, progress)
                writer.finish(size)
                progress.summary(name=name, size=size)
            else:
                size = _export_stream(place, snapshot, since, writer, progress)
                writer.finish(size)
                progress.summary(name=name, stream_bytes=size)
    if not as_json:
        output.line(f"{name}: exported, {format_size(size)}", err=apart)


def _import(place: Place, name: str, reader: ImageReader, progress: ProgressDisplay, *, overwrite: bool) -> int:
    from nbdserver.admin.client import find_server
    from nbdserver.admin.content_frames import TooLong, encode, encode_end
    from nbdserver.admin.transfer import import_device
    from storage.errors import Conflict, Unavailable

    reached = 0

    def note(position: int) -> None:
        nonlocal reached
        reached = position
        progress.advance(position)

    def frames() -> Iterator[bytes]:
        for offset, data in reader.pieces(note):
            yield encode(offset, data)
        yield encode_end(reached)

    async def pieces(room: int) -> AsyncIterator[Piece]:
        for piece in reader.pieces(note):
            yield piece
        if reached > room:  # only zeros lay behind the end: that was no mistake of ours, but may be one
            raise Conflict(str(TooLong(room)))

    async def work(store: Store) -> dict[str, Any]:
        return await import_device(store, name, pieces, size=reader.size, overwrite=overwrite)

    server = find_server(place.store, os.environ)
    try:
        if server is None:
            return int(at_rest(place, work, writes=True, shows_progress=True)["size"])
        with reminding(server, shows_progress=True):
            return int(server.write_content(name, frames(), size=reader.size, overwrite=overwrite)["size"])
    except (Unavailable, KeyboardInterrupt):
        if reached:  # and nobody has said what became of it
            complain(
                f"if {printable(name)} was not filled to its end, it is as it was before, or will be once its server "
                "is back, or a command has opened its store to write"
            )
        raise


def _export(place: Place, name: str, writer: ImageWriter, progress: ProgressDisplay) -> int:
    from nbdserver.admin.client import find_server
    from nbdserver.admin.transfer import dump

    def take(offset: int, data: bytes | bytearray | memoryview) -> None:
        writer.write(offset, bytes(data))
        progress.advance(offset + len(data))

    async def work(store: Store) -> int:
        device = store.device(name)
        size = device.size
        progress.expect(size)
        async with contextlib.aclosing(dump(device, size)) as pieces:
            async for offset, data in pieces:
                take(offset, data)
        return size

    server = find_server(place.store, os.environ)
    if server is None:
        return at_rest(place, work, writes=False, shows_progress=True)
    with reminding(server, shows_progress=True), server.read_content(name) as (size, received):
        progress.expect(size)
        for offset, data in received:
            take(offset, data)
    return size


def _export_stream(
    place: Place, snapshot: tuple[str, str], since: str | None, writer: ImageWriter, progress: ProgressDisplay
) -> int:
    """The size of the stream in bytes."""
    position = 0

    def take(part: bytes) -> None:
        nonlocal position
        writer.write(position, part)
        position += len(part)
        progress.advance(position)

    export_stream(way_to(place), snapshot, since, take)
    return position
