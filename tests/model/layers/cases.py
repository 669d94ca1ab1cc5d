"""What is searched: the engine's rules within bounds, and each planted mistake where it must be found."""

from typing import Any

from tests.model.layers.rules import Bounds, Rules

FLUSH = ("seal", "flush commits", "install")
CHECKPOINT = ("checkpoint freezes", "checkpoint commits")

DISK = ("write layer 1 block 0 sectors 3", *FLUSH, *CHECKPOINT)
"""One disk, in an SST that a checkpoint holds."""
SNAPSHOT = (*DISK, "freeze 1")
"""A snapshot of it, which only the log knows."""
SNAPSHOT_OF_TWO_BLOCKS = ("write layer 1 block 1 sectors 3", *SNAPSHOT)
TWO = (
    *SNAPSHOT,
    *FLUSH,
    "write layer 2 block 0 sectors 1",
    "freeze 2",
    *FLUSH,
    *CHECKPOINT,
)
"""Two snapshots of it, in a checkpoint, with a write between."""


def bounds(
    start: tuple[str, ...], writes: int, trees: int, flushes: int, jobs: int, only: str = "", **more: Any
) -> Bounds:
    return Bounds(start=start, writes=writes, trees=trees, flushes=flushes, jobs=jobs, only=only, **more)


ONE = (1,)

QUICK = (
    "operations beside flushes",
    "beside a consolidation",
    "two blocks",
)
"""What takes a second at most."""

LONG = (
    "devices come and go",
    "beside a repack",
    "many operations beside flushes",
    "beside a checkpoint and a consolidation",
    "all jobs of one disk beside operations",
    "many operations and a crash",
)
"""What takes a quarter of a minute, and the last one a whole one."""

PROVEN: dict[str, Bounds] = {
    "jobs and flushes of one disk": bounds(DISK, 2, 0, 2, 2),
    "operations beside flushes": bounds(SNAPSHOT, 1, 2, 1, 0),
    "operations beside a checkpoint": bounds(SNAPSHOT, 1, 2, 1, 1, "scrdk"),
    "devices come and go": bounds(SNAPSHOT, 1, 3, 1, 1, "xmcdk", masks=ONE, trims=False),
    "beside a repack": bounds(TWO, 1, 1, 1, 2, "scrdkp", trims=False),
    "beside a consolidation": bounds(TWO, 1, 2, 1, 1, "srdo", trims=False, masks=ONE),
    "a crash, and on from there": bounds(TWO, 1, 1, 1, 1, crashes=1, masks=ONE, trims=False),
    "two blocks": bounds(SNAPSHOT_OF_TWO_BLOCKS, 1, 1, 1, 1, blocks=2, trims=False),
    "garbage can be collected from every state": bounds(SNAPSHOT, 1, 1, 1, 1, tidy=True, masks=ONE),
    "many operations beside flushes": bounds(SNAPSHOT, 2, 2, 1, 0),
    "beside a checkpoint and a consolidation": bounds(TWO, 1, 2, 1, 2, "scrdko", trims=False, masks=ONE),
    "all jobs of one disk beside operations": bounds(DISK, 2, 1, 2, 2, trims=False),
    "many operations and a crash": bounds(TWO, 1, 2, 1, 1, crashes=1, masks=ONE, trims=False),
}

MISTAKES: dict[str, tuple[Rules, Bounds]] = {
    "an operation does not wait for an earlier one that is being flushed": (
        Rules(waits="active"),
        bounds(SNAPSHOT, 1, 2, 1, 0, "sd"),
    ),
    "an operation does not wait for an earlier one": (Rules(waits="nothing"), bounds(SNAPSHOT, 1, 2, 0, 0, "sd")),
    "what was written to a layer before a crash is not put in after its making": (
        Rules(made="nobody"),
        bounds(SNAPSHOT, 1, 0, 1, 0, crashes=1),
    ),
    "a head does not show what is in memory of its snapshot": (Rules(inherit="nothing"), bounds(DISK, 1, 1, 0, 0)),
    "a rollback keeps the old head's memtable": (Rules(roll_memtable="kept"), bounds(TWO, 1, 1, 0, 0)),
    "a device goes at once though the indexes show snapshots of it": (
        Rules(drop="always"),
        bounds(SNAPSHOT, 0, 3, 0, 0, "cdx"),
    ),
    "a checkpoint says that it holds what is not installed": (Rules(at="now"), bounds(DISK, 0, 1, 0, 1)),
    "a checkpoint freezes between a commit and the end of its install": (
        Rules(freeze="any"),
        bounds(DISK, 1, 0, 1, 1, "k"),
    ),
    "a checkpoint marks SSTs merged that came after its freeze": (
        Rules(merged="commit"),
        bounds(DISK, 2, 0, 2, 1, "k"),
    ),
    "a checkpoint forgets operations that came after its freeze": (Rules(forget="all"), bounds(SNAPSHOT, 0, 1, 1, 1)),
    "a start does again what the checkpoint holds": (Rules(again="all", forget="none"), bounds(SNAPSHOT, 1, 1, 1, 1)),
    "a flush does not list the operations that it takes out of the log": (
        Rules(listed=False),
        bounds(DISK, 0, 1, 0, 0),
    ),
    "a start puts rows in after all operations": (Rules(rows="last"), bounds(DISK, 1, 2, 1, 0, "sd")),
    "a start puts rows in before all operations": (Rules(rows="first"), bounds(SNAPSHOT, 1, 0, 1, 0)),
    "a start ignores rows of layers that live no more": (Rules(dead="ignored"), bounds(DISK, 1, 2, 1, 0, "sd")),
    "a snapshot keeps what was replaced last": (Rules(record="last"), bounds(SNAPSHOT, 2, 0, 2, 0)),
    "a snapshot keeps the newest patch only": (Rules(keeps="top"), bounds(SNAPSHOT, 2, 1, 2, 0)),
    "a rollback keeps nothing for newer snapshots": (Rules(roll="never"), bounds(TWO, 1, 1, 1, 0)),
    "a rollback keeps over what newer snapshots have": (Rules(roll="over"), bounds(TWO, 1, 1, 1, 0)),
    "a deletion hands nothing down": (Rules(down="nothing"), bounds(SNAPSHOT, 1, 2, 1, 0, "sd")),
    "a deletion hands down over what the older one has": (Rules(down="over"), bounds(TWO, 1, 1, 1, 0)),
    "an SST is repacked whose rows no checkpoint holds": (Rules(victims=False), bounds(DISK, 2, 0, 2, 2)),
    "an SST is dropped whose rows no checkpoint holds": (Rules(drops=False), bounds(DISK, 2, 0, 2, 1)),
    "what snapshots refer to is not live": (Rules(live="heads"), bounds(SNAPSHOT, 1, 0, 1, 1)),
    "a start does not follow moved frames": (Rules(moved="ignored"), bounds(SNAPSHOT, 1, 0, 1, 1)),
    "a repack points elsewhere what was written since": (Rules(compare=False), bounds(DISK, 1, 0, 1, 1)),
    "a consolidated block counts as the newest": (Rules(sequence="fresh"), bounds(DISK, 2, 0, 2, 1)),
    "a consolidated block counts as what is not installed": (
        Rules(sequence="manifest", freeze="any"),
        bounds(DISK, 3, 0, 3, 1),
    ),
    "a consolidation takes newer patches away": (Rules(above=False), bounds(DISK, 2, 0, 2, 1)),
    "a consolidation keeps nothing for the snapshot below": (Rules(below=False), bounds(DISK, 1, 1, 1, 2, "sko")),
    "a consolidation is installed wherever its inputs stand": (Rules(heir="every"), bounds(TWO, 0, 1, 0, 1, "ro")),
    "garbage: operations are never forgotten": (Rules(forget="none"), bounds(SNAPSHOT, 0, 1, 0, 0, "c", tidy=True)),
}

EQUAL: dict[str, tuple[Rules, Bounds]] = {
    "an operation is done before what was written ahead of it": (
        Rules(turn="before"),
        bounds(DISK, 2, 2, 2, 0, crashes=1, trims=False),
    ),
    "a consolidation whose head became a snapshot is listed, and not installed": (
        Rules(heir="listed"),
        bounds(DISK, 2, 1, 2, 2, "sko", trims=False),
    ),
    "the memtable is sealed with an operation": (
        Rules(roll_seals=True),
        bounds(SNAPSHOT, 2, 2, 2, 0, trims=False),
    ),
    "what goes while it is flushed is not written": (
        Rules(gone="forgotten"),
        bounds(SNAPSHOT, 2, 2, 2, 0, crashes=1, trims=False, masks=ONE),
    ),
}
"""What the engine does not need for its promises: it is so for order and thrift."""
