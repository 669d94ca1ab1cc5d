"""`nbdserver device salvage`: what can be read of a damaged device, and a map of what cannot."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbdserver.cli.devices.mapfile import mapfile
from nbdserver.cli.shared import output
from nbdserver.cli.shared.backend import at_rest
from nbdserver.cli.shared.exit_status import PROBLEMS, CommandFailed
from nbdserver.cli.shared.parameters import NAME, Place, json_option, option, store_option
from nbdserver.config import format_size

if TYPE_CHECKING:
    from nbdserver.cli.devices.disk_images import ImageWriter
    from nbdserver.cli.shared.progress import ProgressDisplay
    from storage import Store


@click.command("salvage")
@click.argument("name", type=NAME)
@click.argument("file")
@option("--map", "map_file", help="Where the map goes; FILE.map unless it is given.")
@option("--fill", help="Text that is repeated where nothing can be read; a hole unless it is given.")
@click.option("--overwrite", is_flag=True, help="Replace what FILE and its map hold.")
@json_option
@store_option
def salvage_command(
    place: Place, name: str, file: str, map_file: str | None, fill: str | None, overwrite: bool, as_json: bool
) -> int:
    """Write what can be read of the device NAME to FILE, a raw disk image, and which ranges cannot to a map.

    The store is opened to be read, also where it does not open to be served since data is missing. What cannot be read
    is a hole; the map is a mapfile of GNU ddrescue. Nothing old is written in place of what is newer: where that cannot
    be known, since a part of the index or of the log is damaged, the command refuses. Exit status 3: there are bad
    ranges.
    """
    from nbdserver.cli.devices.disk_images import ImageWriter
    from nbdserver.cli.shared.progress import ProgressDisplay

    if file == "-":
        raise CommandFailed("a salvaged disk needs a file, since its map is of no use beside a pipe")
    where = Path(map_file or f"{file}.map")
    # Opened before the work begins, by the same rules: nobody gets the map by having been first to use its name.
    # The map first: what keeps it from being written must not cost an image that is there.
    map_name = "./-" if str(where) == "-" else str(where)
    if os.path.realpath(map_name) == os.path.realpath(file):
        raise CommandFailed("the map and the disk image are one file: name another one with --map")
    with (
        contextlib.closing(ImageWriter(map_name, overwrite=overwrite)) as map_writer,
        contextlib.closing(ImageWriter(file, overwrite=overwrite)) as writer,
    ):
        lines_to = sys.stdout if as_json else None
        with ProgressDisplay(f"salvaging {name}", None, lines_to=lines_to) as progress:
            size, bad = _salvage(place, name, writer, map_writer, progress, fill.encode() if fill else None)
            text = mapfile(size, bad).encode()
            map_writer.write(0, text)
            map_writer.finish(len(text))
            writer.finish(size)
            lost = sum(length for _, length in bad)
            progress.summary(name=name, size=size, bad_bytes=lost, map=str(where))
    if not as_json:
        output.line(
            f"{name}: salvaged, {format_size(size - lost)} of {format_size(size)}; {lost} bytes are bad: {where}"
        )
    return PROBLEMS if bad else 0


def _salvage(
    place: Place,
    name: str,
    writer: ImageWriter,
    map_writer: ImageWriter,
    progress: ProgressDisplay,
    fill: bytes | None,
) -> tuple[int, list[tuple[int, int]]]:
    """Write the image; its size, and what is bad."""
    from nbdserver.admin.transfer import salvage

    bad: list[tuple[int, int]] = []

    async def work(store: Store) -> int:
        device = store.device(name)
        size = device.size
        progress.expect(size)
        async with contextlib.aclosing(salvage(device, size)) as parts:
            async for offset, part in parts:
                map_writer.begin()  # a map that is there tells of another image than what is written from now on
                writer.begin()
                length = part if isinstance(part, int) else len(part)
                if not isinstance(part, int):
                    writer.write(offset, part)
                else:
                    bad.append((offset, length))
                    if fill:
                        writer.write(offset, (fill * (-(-length // len(fill))))[:length])
                progress.advance(offset + length)
        return size

    return at_rest(place, work, writes=False, shows_progress=True, damaged=True), bad
