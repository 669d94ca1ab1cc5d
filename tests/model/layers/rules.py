"""The rules of layers, with a switch for each mistake that can be planted, and what a state consists of.

Contents are sequences of writes; 0 is zeros. A chain is newest first, each element (mask of sectors, place), and a
place is (SST, frame) or None for zeros. A head has a flat map: block to chain, () a hole. A snapshot has its reverse
delta: block to the chain that the next newer layer replaced since, or None.
"""

from typing import NamedTuple

SECTORS = (0, 1)
FULL = 3
ZEROS = 0

Content = tuple[int | None, ...]
"""Of a block, by sector; None where nothing is said."""
Place = tuple[int, int] | None
Chain = tuple[tuple[int, Place], ...]
Map = tuple[Chain | None, ...]
"""By block."""
Maps = tuple[tuple[int, Map], ...]
Trunks = tuple[tuple[int, ...], ...]
"""Of each device its snapshots, oldest first, and its head."""


class Rules(NamedTuple):
    """The engine's, and what a mistake would make of each."""

    # operations on trunks
    turn: str = "after"
    """The indexes show an operation "after" what is in the memtable that it came with; or "before" that."""
    made: str = "after"
    """Entries of a layer that an operation made are put in "after" it, or by "nobody"."""
    inherit: str = "origin"
    """A layer that is not in the indexes yet shows the memtable of its "origin" too, or "nothing" of it."""
    roll_memtable: str = "forgotten"
    """What the head that a rollback takes away has in memory is "forgotten", or "kept" for the new one."""
    roll_seals: bool = False
    """The memtable is sealed in the step of an operation; else it goes on taking writes."""
    waits: str = "operation"
    """An operation waits for the installation of the memtables that have an earlier "operation"; or for that of
    "active" ones only, or for "nothing"."""
    gone: str = "written"
    """What a memtable that is being flushed has of a layer that goes meanwhile is "written", or "forgotten"."""
    drop: str = "alone"
    """A device leaves the indexes at once only if these show it "alone", else at its turn; or "always" at once."""
    # checkpoints
    at: str = "cut"
    """A checkpoint holds what was done up to the last flush that was installed ("cut"), or says that it does "now"."""
    freeze: str = "settled"
    """Never between a commit and the end of its install, or at "any" moment."""
    merged: str = "freeze"
    """Marks as merged what was listed at its "freeze", or at its "commit"."""
    forget: str = "held"
    """Forgets the operations that it "held", "all", or "none"."""
    again: str = "later"
    """A start does operations "later" than the checkpoint, or "all" that are there."""
    listed: bool = True
    """A flush lists the operations that it takes out of the log."""
    # a start
    rows: str = "turn"
    """Rows of a layer are put in at its making, or before ("first") or after ("last") all operations."""
    dead: str = "kept"
    """Rows of layers that live no more are put in for those that were made of them, or "ignored"."""
    # reverse deltas
    record: str = "first"
    """A snapshot keeps what was replaced "first" since, or "last"."""
    keeps: str = "chain"
    """The whole "chain", or its "top"."""
    roll: str = "record"
    """A rollback keeps what it replaces for the newest snapshot if that lacks it; "never"; "over" what it has."""
    down: str = "lacking"
    """A deletion hands down what the older snapshot is "lacking", "nothing", or "over" what it has."""
    # jobs
    victims: bool = True
    """Only merged SSTs are repacked."""
    drops: bool = True
    """Only merged SSTs are dropped."""
    live: str = "all"
    """What "all" maps refer to is copied by a repack, and keeps an SST from being dropped; or only the "heads"."""
    moved: str = "followed"
    """A start follows the rows "old place, new place", or "ignores" them."""
    compare: bool = True
    """A repack points elsewhere what still stands; else the blocks that it copied."""
    sequence: str = "cut"
    """A consolidated entry has that of the last installed flush, of the newest "manifest", or a "fresh" one."""
    above: bool = True
    """Patches that are newer than a consolidation stay above."""
    below: bool = True
    """What a consolidation replaces is kept for the snapshot below."""
    heir: str = "none"
    """A consolidation whose head became a snapshot is given up ("none"), listed and not installed ("listed"), or
    installed in "every" map in which its inputs stand."""


class Bounds(NamedTuple):
    """How much may happen; what is not said does not."""

    writes: int = 0
    trees: int = 0
    flushes: int = 0
    jobs: int = 0
    crashes: int = 0
    blocks: int = 1
    masks: tuple[int, ...] = (3, 1)
    """Sectors that a write or a trim may take."""
    trims: bool = True
    only: str = ""
    """Operations and jobs by letters, "" all: snapshot, clone, rollback, delete, x a device goes, make; k checkpoint,
    p repack, o consolidation."""
    start: tuple[str, ...] = ()
    """Beginnings of the labels of steps that come before."""
    tidy: bool = False
    """Whether from every state all garbage must be collectable."""


class Op(NamedTuple):
    """freeze (head, child), clone (snapshot, new layer), roll (snapshot, child, head), delete (snapshot), drop (layer),
    make (layer)."""

    kind: str
    on: int
    new: int = 0
    head: int = 0

    @property
    def gone(self) -> int:
        """The layer that goes with it, 0 for none."""
        return {"roll": self.head, "delete": self.on, "drop": self.on}.get(self.kind, 0)

    @property
    def on_trunks(self) -> bool:
        """Whether it is one that seals the memtable."""
        return self.kind not in ("drop", "make")


class Logged(NamedTuple):
    sequence: int
    op: Op


class Written(NamedTuple):
    sequence: int
    layer: int
    block: int
    mask: int
    value: int


class Piece(NamedTuple):
    """What a memtable knows of a block."""

    layer: int
    block: int
    sequence: int
    content: Content


class Memtable(NamedTuple):
    blocks: tuple[Piece, ...] = ()
    operations: tuple[Logged, ...] = ()


class Entry(NamedTuple):
    """A row of an SST's own index; `frame` None: zeros."""

    layer: int
    block: int
    mask: int
    sequence: int
    frame: int | None


class Sst(NamedTuple):
    number: int
    frames: tuple[Content, ...]
    entries: tuple[Entry, ...] = ()
    moved: tuple[tuple[Place, Place], ...] = ()
    """Places of frames before they were repacked, and here."""
    merged: bool = False


class Flush(NamedTuple):
    """Of a sealed memtable; once it is committed the index is still to be pointed to the SST."""

    sequence: int
    memtable: Memtable
    tree: Trunks
    sst: Sst
    committed: bool = False


class Image(NamedTuple):
    """A checkpoint of the indexes."""

    trunks: Trunks
    maps: Maps
    at: int


class Manifest(NamedTuple):
    image: Image
    ssts: tuple[Sst, ...]
    operations: tuple[Logged, ...]
    sequence: int
    tree: Trunks


class Job(NamedTuple):
    kind: str
    sst: Sst | None = None
    """What it has written."""
    image: Image | None = None
    names: tuple[int, ...] = ()
    """SSTs: listed when a checkpoint was frozen; the victim of a repack or a drop."""
    layer: int = 0
    block: int = 0
    chain: Chain = ()
    where: tuple[tuple[int, int], ...] = ()
    """Layers and blocks that refer to a victim."""
    committed: bool = False
    gone: Sst | None = None
    """The victim, which is there until the maps are pointed elsewhere."""


class Left(NamedTuple):
    writes: int
    trees: int
    flushes: int
    jobs: int
    crashes: int


class State(NamedTuple):
    truth: tuple[tuple[int, tuple[Content, ...]], ...]
    """Of each layer that lives."""
    tree: Trunks
    """The layers that live, as names say."""
    trunks: Trunks
    """Those that the indexes have: up to the last flush that was installed."""
    maps: Maps
    active: Memtable
    flush: Flush | None
    manifest: Manifest
    log: tuple[Logged | Written, ...]
    cut: int
    """Sequence of the last flush that was installed."""
    job: Job | None
    numbers: tuple[int, int, int]
    """The last sequence, SST, layer."""
    left: Left

    @property
    def locked(self) -> bool:
        """Whether something was committed, and is not installed."""
        return bool((self.flush and self.flush.committed) or (self.job and self.job.committed))
