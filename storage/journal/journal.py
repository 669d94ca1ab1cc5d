"""The journal of a running writer: every operation is in it before anybody is told of it.

Promises: `keep` returns when everything that was linked so far is where a killed process leaves it, or the journal is
off; the log never holds an operation that was not in the journal before (see `GroupCommit`); a segment goes when each
of its queues has all it holds of it in the log. What the log lacks is thus in the segments, in order, whenever the
process ends. FLUSH does not ask the journal: durable is what is in the store.

No room, or any other error of its files, turns the journal off, with a warning, and no client hears of it: the journal
ends in one step, since one with a gap would pass for whole. It begins anew when everything written is in the log.

Nothing awaits here. A kill inside `keep` leaves the first of the operations that were to be kept, or none, or all;
between `keep` and the replies, operations that nobody was told of and that happen all the same, as after any reply that
is lost.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Protocol

from storage.crypto.memory_cipher import MemoryCipher
from storage.errors import AccessDenied
from storage.format.journal_batch import Memory, append, clear, room_for
from storage.format.wal import Meta, Op
from storage.journal.files import JournalFiles
from storage.units import KIB, MIB

_log = logging.getLogger("nbdserver")

SEGMENT_BYTES_MAX = 4 * MIB
"""To find the memory of a new one takes milliseconds of the event loop: 5 at load 6."""

SEGMENTS_MIN = 8
"""Into so many the allowed size is divided, at least."""

EPOCH_SHIFT = 32
"""So far above its count stands the epoch of its writer in the number of a segment."""

RESTART_BYTES_MIN = 256 * KIB
"""A segment that grows is dropped too when the log has all of it and it is this large."""

OFF_SECONDS_MIN = 10.0
"""How long a journal stays off at least."""

TRIM_SECONDS = 10.0
"""Memory of segments that none took for so long is given back. At the size it may have at most, all of it but what is
kept for good is back a minute and a half after the last write; so that the next burst, if it comes earlier, need not
find it again."""


class Queue(Protocol):
    """A queue on its way to the log."""

    @property
    def layer(self) -> int:
        """The number of the layer whose operations it carries."""

    @property
    def last_sequence(self) -> int:
        """The sequence of its newest operation."""

    @property
    def acked_sequence(self) -> int:
        """Up to here it is in the log."""


Unkept = tuple[Queue, int, int, Op | Meta]
"""An operation that is not in the journal yet: its queue, its layer when it was linked (a snapshot may be taken before
it is kept), the operation before it there, and itself."""


_QUEUE: Callable[[Unkept], Queue] = itemgetter(0)


@dataclass(slots=True)
class Segment:
    """A segment, and the newest operation in it of each queue."""

    number: int
    size: int
    """Of the memory that it takes, in bytes."""
    newest: dict[Queue, int]

    @property
    def is_logged(self) -> bool:
        """Whether the log has all of it."""
        return all(queue.acked_sequence >= sequence for queue, sequence in self.newest.items())


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """The journal that a writer goes on with: its files, which have it, its id, what seals its batches, and the epoch
    of its writer, with which the numbers of its segments begin: so none is used twice, also where all of them are gone.

    `name` tells the next writer which journal holds all that this one answered; None: none does, now. OSError,
    AccessDenied.
    """

    files: JournalFiles
    id: bytes
    cipher: MemoryCipher
    epoch: int
    name: Callable[[bytes | None], None]


class Journal:
    """The journal of one writer: what was linked and is not in the log yet, in memory that outlives the process. Until
    `start` it is off. Owned by the event loop.
    """

    def __init__(
        self,
        pending: list[Unkept],
        *,
        bytes_max: int,
        on_size: Callable[[float], None],
        monotonic: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`pending` gets every operation as it is linked. `on_size` is told which share of `bytes_max` the segments
        take, which slows writers before it is all of it. `later` calls back after so many seconds."""
        self.pending = pending
        self.bytes = 0
        """Memory that all segments take together, used or not."""
        self.on = False
        self.failure: str | None = None
        """Why it is off for a while, though there is a place for it."""
        self._place: JournalPlace | None = None
        self._bytes_max = bytes_max
        self._segment_bytes = min(SEGMENT_BYTES_MAX, max(bytes_max // SEGMENTS_MIN, 1))
        self._on_size = on_size
        self._monotonic = monotonic
        self._later = later
        self._trims = False
        """Whether `_trim` is to come."""
        self._retry_at = 0.0
        self._all_logged = False
        """Whether the log has everything but what is pending."""
        self._retries = 0
        """How often it was to begin anew: of several that are to come the newest counts."""
        self._is_named = True
        """Whether the lock may name it."""
        self._segments: deque[Segment] = deque()
        self._newest = 0
        """Number of the newest segment there ever was."""
        self._active: Segment | None = None
        """The one that grows; the last one of `_segments`."""
        self._memory: Memory | None = None
        """The memory of the segment that grows."""
        self._end = 0
        """Where what was written to that segment ends, in bytes from its beginning."""
        self._batches = 0
        """How many batches that segment has: the position of the next one."""

    def start(self, place: JournalPlace, segments: list[Segment]) -> None:
        """Go on behind these segments, which are there and hold all that was linked so far and is not in the log. Those
        of which the log has everything go at once: if it has all, it will not move before somebody writes, and nobody
        may while they take all the room.
        """
        self.on, self._place = True, place
        self.pending.clear()
        self._segments.extend(segments)
        self._newest = max(self._newest, place.epoch << EPOCH_SHIFT, *(segment.number for segment in segments))
        self._resized(sum(segment.size for segment in segments))
        self.logged(everything=False)

    def start_off(self, place: JournalPlace, reason: str) -> None:
        """There is no room for it, and nothing that the log lacks: it begins once there is."""
        self._place, self.failure, self._all_logged = place, reason, True
        self._newest = max(self._newest, place.epoch << EPOCH_SHIFT)
        self._retry_later()

    def keep(self) -> None:
        """Put everything linked so far into the files."""
        pending = self.pending
        place = self._place
        self._all_logged = self._all_logged and not pending
        if not self.on or place is None:
            pending.clear()
            return
        kept = 0
        while kept < len(pending):
            before, kept = kept, self._append(place, kept)
            if kept > before:
                continue
            try:
                self._begin_segment(place, max(self._segment_bytes, room_for(pending[kept][3])))
            except OSError as error:
                self._turn_off(error)
                break
        pending.clear()

    def _append(self, place: JournalPlace, first: int) -> int:
        """Put some of what is pending, from `first` on, into the segment that grows, if it has room; gives how far."""
        active, memory, pending = self._active, self._memory, self.pending
        if active is None or memory is None:
            return first
        kept, self._end = append(memory, self._end, place.cipher, (active.number, self._batches), pending, first)
        if kept > first:
            self._batches += 1
            for queue in set(map(_QUEUE, pending)):
                active.newest[queue] = queue.last_sequence
        return kept

    def _begin_segment(self, place: JournalPlace, size: int) -> None:
        self._newest += 1
        memory = self._memory = place.files.map(self._newest, size)
        self._end, self._batches = clear(memory), 0
        self._active = Segment(self._newest, size, {})
        self._segments.append(self._active)
        self._resized(size)

    def logged(self, *, everything: bool) -> None:
        """The log has more than before, or all there is (`everything`): drop what is not needed any more.

        A crash between two segments leaves one too many, which holds nothing beyond the log.
        """
        place = self._place
        if place is None:
            return
        self._all_logged = everything
        if not self.on:
            if self._monotonic() >= self._retry_at:
                self._retry(self._retries)
            return
        active = self._active
        try:
            for segment in [each for each in self._segments if each.is_logged]:
                if segment is active:
                    if self._end < RESTART_BYTES_MIN:
                        continue
                    self._active = None
                place.files.remove(segment.number)
                self._segments.remove(segment)
                self._resized(-segment.size)
                self._trim_later()
        except OSError as error:
            self._turn_off(error)

    def _trim_later(self) -> None:
        if not self._trims:
            self._trims = True
            self._later(TRIM_SECONDS, self._trim)

    def _trim(self) -> None:
        """Not whenever the log has everything: who syncs often would find the same memory again and again."""
        self._trims = False
        try:
            if self.on and self._place is not None and self._place.files.trim():
                self._trim_later()
        except OSError as error:
            self._turn_off(error)

    def close(self, *, clean: bool) -> None:
        """The writer ends. `clean`: the store was closed, and the log has everything; else it is left for the next one.

        A crash before a clean end leaves a journal that holds nothing beyond the log.
        """
        place, self._place, self.on = self._place, None, False
        if place is None:
            return
        try:
            if clean:
                place.files.end()
        except OSError as error:
            _log.warning("journal_left", extra={"reason": str(error)})
        place.files.leave()

    def _turn_off(self, error: OSError) -> None:
        """Without a gap: what it holds is no journal any more. Until it begins anew, a killed process loses what was
        answered and not flushed, as without a journal."""
        self.on = False
        _log.warning("journal_off", extra={"reason": _words(error)})
        if self._place is not None:
            self._fail(self._place, error)

    def _fail(self, place: JournalPlace, error: OSError | AccessDenied) -> None:
        """It cannot be written: nobody takes it for whole, for which either suffices of what is done here."""
        is_new, self.failure = self.failure is None, _words(error)
        self._segments.clear()
        self._active = self._memory = None
        self._resized(-self.bytes)
        for step in (partial(self._unname, place), place.files.end):
            try:
                step()
            except (OSError, AccessDenied) as left:
                if is_new:
                    _log.warning("journal_left", extra={"reason": str(left)})
        self._retry_later()

    def _unname(self, place: JournalPlace) -> None:
        if self._is_named:
            place.name(None)
            self._is_named = False

    def _retry_later(self) -> None:
        """Also if nobody writes: the next write is to find it on."""
        self._retry_at = self._monotonic() + OFF_SECONDS_MIN
        self._retries += 1
        self._later(OFF_SECONDS_MIN, partial(self._retry, self._retries))

    def _retry(self, which: int) -> None:
        """Begin anew if nothing is missing then: where the log has everything, and nothing was linked since."""
        is_newest = which == self._retries
        if is_newest and self._place is not None and not self.on and self._all_logged and not self.pending:
            self._turn_on(self._place)

    def _turn_on(self, place: JournalPlace) -> None:
        """Under the same id, which the lock of this writer names; segments go on with new numbers. Not before there is
        room for the first: else it would go off and on as long as there is none."""
        try:
            place.files.begin(place.id, place.epoch)
            self._begin_segment(place, self._segment_bytes)
            self._is_named = True
            place.name(place.id)
        except (OSError, AccessDenied) as error:
            # Also where the lock could not be written before and names it yet: an empty one would pass for whole.
            self._fail(place, error)
            return
        self.on, self.failure = True, None
        _log.info("journal_on_again")

    def _resized(self, change: int) -> None:
        self.bytes += change
        self._on_size(self.bytes / self._bytes_max)


def _words(error: OSError | AccessDenied) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
