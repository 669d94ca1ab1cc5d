"""What settings of filesystems cost on a disk of the server: time, written, uploaded, and what is left after deletions.

    scripts/bench filesystems [--size GIB] [--files MIB] [--store folder|minio]

Each setting gets a disk of a store of its own, attached by nbdfuse and a loop device, so with this machine's own ext4,
XFS and btrfs. A tree of compressible and random files is written, half of them are deleted, and the rest is trimmed.
Needs root, /dev/fuse and loop devices.
"""

import argparse
import contextlib
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.bench import GIB, KIB, MIB, Bench
from tests.support.minio import RunningMinio
from tests.support.processes import until
from tests.support.program import Server


@dataclass(frozen=True)
class Setting:
    """A filesystem as it is made and mounted."""

    name: str
    make: str
    mount: str = "defaults"


SETTINGS = (
    Setting("ext4", "mkfs.ext4 -q -F"),
    Setting("ext4, written at once", "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0"),
    Setting("ext4, -o discard", "mkfs.ext4 -q -F", "discard"),
    Setting("ext4, -o noatime", "mkfs.ext4 -q -F", "noatime"),
    Setting("XFS", "mkfs.xfs -q -f"),
    Setting("XFS, -o discard", "mkfs.xfs -q -f", "discard"),
    Setting("btrfs", "mkfs.btrfs -q -f"),
    Setting("btrfs, -o compress=zstd", "mkfs.btrfs -q -f", "compress=zstd"),
)

DIRECTORIES = 32
FILE_BYTES = (KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB)
"""Of each as many."""


def main() -> None:
    parser = argparse.ArgumentParser(description="measure what settings of filesystems cost")
    parser.add_argument("--size", type=int, default=8, metavar="GIB", help="of the disk")
    parser.add_argument("--files", type=int, default=256, metavar="MIB", help="written to it")
    parser.add_argument("--store", choices=["folder", "minio"], default="folder")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    minio = RunningMinio(folder)
    minio.start()
    try:
        print(f"{chosen.files} MiB of files on a disk of {chosen.size} GiB: MiB allocated after each step, MiB in all")
        names = ("made", "filled", "halved", "trimmed", "written", "uploaded", "stored", "seconds")
        print(f"{'':26}{''.join(f'{name:>10}' for name in names)}")
        for setting in SETTINGS:
            with Bench(folder, minio) as bench:
                server = bench.server(chosen.store, chosen.size * GIB, "--scrub-days", "0")
                one(server, setting, chosen.files * MIB, folder)
    finally:
        minio.stop()
        shutil.rmtree(folder, ignore_errors=True)


def one(server: Server, setting: Setting, size: int, folder: Path) -> None:
    """All steps on one disk, and their row."""
    allocated = []

    def note() -> None:
        allocated.append(used(server)["allocated_bytes"])

    with loop_device(server, folder) as device:
        call(f"{setting.make} {device}")
        note()
        mounted = folder / "mounted"
        mounted.mkdir(exist_ok=True)
        call(f"mount -o {setting.mount} {device} {mounted}")
        try:
            began = time.monotonic()
            written = write_tree(mounted, size)
            call(f"sync -f {mounted}")
            seconds = time.monotonic() - began
            note()
            for name in random.Random(2).sample(written, len(written) // 2):
                name.unlink()
            call(f"sync -f {mounted}")
            note()
            call(f"fstrim {mounted}")
            call(f"sync -f {mounted}")
            note()
        finally:
            call(f"umount {mounted}")
    until(lambda: used(server)["memtable_bytes"] == 0, seconds=120, what="everything in SSTs")
    end = used(server)
    figures = [*allocated, end["written_bytes"], end["bytes_up"], end["stored_bytes"]]
    columns = "".join(f"{figure / MIB:10.0f}" for figure in figures)
    print(f"{setting.name:26}{columns}{seconds:10.1f}", flush=True)


def write_tree(root: Path, size: int) -> list[Path]:
    """Files of all sizes in directories, half of their content random; the same ones each time."""
    chance = random.Random(1)
    written: list[Path] = []
    total = 0
    while total < size:
        for length in FILE_BYTES:
            path = root / str(len(written) % DIRECTORIES) / f"{len(written)}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(chance.randbytes(length // 2) + bytes([length % 251]) * (length - length // 2))
            written.append(path)
            total += length
    return written


def used(server: Server) -> dict[str, float]:
    """The figures of the store, with all that was written durable."""
    server.host.run("--store", server.location, "flush")
    document = server.host.json("--store", server.location, "stats")
    assert isinstance(document, dict)
    return {each["name"]: each["value"] for each in document["stats"]}


@contextlib.contextmanager
def loop_device(server: Server, folder: Path) -> Iterator[str]:
    """The disk as a block device of this machine."""
    place = folder / "fuse"
    place.mkdir(exist_ok=True)
    fuse = subprocess.Popen(["nbdfuse", "-C", "4", str(place), server.unix_uri()])
    try:
        until(lambda: (place / "nbd").exists(), seconds=60, what="nbdfuse")
        device = subprocess.check_output(["losetup", "--find", "--show", str(place / "nbd")], text=True).strip()
        try:
            yield device
        finally:
            call(f"losetup -d {device}")
    finally:
        call(f"fusermount3 -u {place}")
        fuse.wait(30)


def call(line: str) -> None:
    subprocess.run(line.split(), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
