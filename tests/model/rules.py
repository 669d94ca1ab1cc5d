"""The rules of the commit protocol, the bounds of a search, and what the states of the model are made of."""

from typing import Any, NamedTuple

Write = tuple[int, int]
"""(session, number): the i-th write of a session."""

Writes = tuple[Write, ...]
Table = tuple[Any, ...]
"""("s", session, number, writes in it, highest WAL number acknowledged when it was made, all that was acknowledged
then), or ("x", session, number of a write): an SST of the bulk bypass.
"""

Request = tuple[Any, ...]
"""Something on the wire: ("w", number, object, session, try), ("m", number, manifest, session, try), ("dw", number),
("ds", table), ("px", table).
"""


class Rules(NamedTuple):
    """The protocol. Defaults are the proven one; each field is a switch that a mutation turns."""

    jump: int = 3  # a fence at f says: the log goes on at f + jump (must be at least the PUTs in flight)
    keep_fences: bool = True  # truncation of the log never deletes a fence
    keep_takeover: bool = True  # deletion of old manifests never takes a take-over manifest
    verify: bool = True  # after replay look for a newer manifest
    fence: str = "gap"  # "gap": lowest free number; "top": above the highest number; "none": manifest epoch only
    early: bool = False  # the fence's number is chosen before the take-over manifest is committed
    rebase: bool = True  # a take-over that loses manifest N+1 reads the new newest before trying N+2
    ack_in_order: bool = True
    on_412: str = "content"  # "content": the same bytes are ours; "ok": believe that it landed
    replay_gap: str = "stop"  # "stop" at the first gap, or "skip" it
    delete: str = "after"  # objects are deleted "after" or "before" the manifest commit
    sweep: str = "epoch"  # orphans: lower "epoch" only, "any" unknown object, "nolocator": epoch but forgets locators
    locator_after_upload: bool = True
    flush_names_locators: bool = True
    # What a store must hold to be taken for whole (`completeness`):
    needs_manifest: bool = True  # nothing else may be there without a manifest
    orphans_log: bool = True  # an SST that nothing names must not know of more acknowledged numbers than the log holds
    fences_end: bool = True  # ... than its writer's part of the log, which ends at the fence of the next
    header: str = "draw"  # the number in an SST's header: as known when it is "draw"n, or in the last "manifest"


class Bounds(NamedTuple):
    """How much may happen; one entry a session."""

    writes: tuple[int, ...] = (2, 1)
    retries: tuple[int, ...] = (0, 0)  # PUTs each session may send again
    flushes: tuple[int, ...] = (0, 0)  # memtable flushes
    sweeps: tuple[int, ...] = (0, 0)  # sweeps of orphans
    bulk: frozenset[Write] = frozenset()  # writes that go through an SST and a locator
    window: int = 3  # WAL PUTs in flight
    copies: bool = False  # whether every partial copy of every state is opened


class Manifest(NamedTuple):
    """A manifest: `replay` is the first WAL number that the tables do not hold, `acknowledged` the highest known."""

    epoch: int
    session: int
    attempt: int
    takeover: bool
    replay: int
    acknowledged: int
    writes: Writes
    tables: frozenset[Table]


class Put(NamedTuple):
    """A WAL PUT that is not acknowledged. Status: in flight "i", answered 412 "q", landed "d"."""

    number: int
    writes: tuple[int, ...]
    status: str
    attempt: int


class Job(NamedTuple):
    """A manifest commit under way, and what may be deleted after it."""

    takeover: bool
    status: str
    attempt: int
    number: int
    manifest: Manifest
    deletes: tuple[Request, ...]


class Session(NamedTuple):
    """A writer process. Phases: idle, taking (its manifest is sent), listing, fencing, replaying, verifying, running,
    dead.
    """

    phase: str = "idle"
    epoch: int = 0
    number: int = 0  # newest manifest it knows as its own
    manifest: Manifest | None = None
    base: Writes = ()  # state recovered at the take-over
    next: int = 0  # next WAL number
    durable: int = 0  # first number not acknowledged
    puts: tuple[Put, ...] = ()
    issued: int = 0
    acked: int = 0
    job: Job | None = None
    fence: int = -1
    fence_try: int = 0
    fence_status: str = "i"
    attempts: int = 0
    tables: int = 0
    uploaded: int = 0
    retries: int = 0
    flushes: int = 0
    sweeps: int = 0


class State(NamedTuple):
    """Everything there is: the bucket, what is on the wire, the processes."""

    log: tuple[tuple[int, Any], ...]  # (number, ("F", epoch, session, resume) or ("D", epoch, session, writes))
    manifests: tuple[tuple[int, Manifest], ...]
    tables: frozenset[Table]
    wire: frozenset[Request]
    sessions: tuple[Session, ...]


ROOT: Table = ("s", -1, 0, ((-1, 1),), -1, ())
"""The SST of the manifest that there is at the beginning."""


def holds(table: Table) -> Writes:
    """The writes in an SST."""
    return table[3] if table[0] == "s" else ((table[1], table[2]),)


def is_prefix(some: Writes, whole: Writes) -> bool:
    return whole[: len(some)] == some
