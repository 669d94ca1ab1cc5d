"""What a client does on the disk it is attached to, as a connection does it: every answer is judged."""

import asyncio
import random
import struct
from collections.abc import Callable
from typing import Any, Protocol

from storage.fs.devices.device import Device
from storage.lsm.memtable.gate import RateLimiter
from storage.lsm.read.assemble import Piece
from tests.simulation import changes
from tests.simulation.damage import WAIT_SECONDS, Damage
from tests.simulation.disk_history import BLOCK_BYTES, Disk, Op

SECTOR = 4096


STAMP = struct.Struct("<QQ")


class Work(changes.Work, Protocol):
    """What an actor knows of the session it lives in."""

    damage: Damage
    users: dict[str, int]
    stopping: bool
    unanswered: int

    def stamp(self) -> int: ...

    def watch_closely(self) -> None: ...

    def spend(self, *, counts: bool) -> bool: ...

    async def next_commit(self) -> None: ...

    def layer_of(self, name: str) -> int: ...


def joined(found: list[Piece]) -> bytes:
    """The bytes of a read's answer. (`bytes` of a number is so many zeros, and that is what a number means.)"""
    return b"".join(bytes(piece) for piece in found)


class Attached:
    """A client, and the disk it is attached to."""

    def __init__(self, work: Work, chance: random.Random, name: str) -> None:
        self._work = work
        self._chance = chance
        self._name = name
        self._passes = random.Random(f"passes of {name} in {work.session.name}")
        self._device: Device
        self._limiter: RateLimiter
        self._on = ""
        self._snapshot: int | None = None

    def _goes_on(self) -> bool:
        return not self._work.stopping and not self._work.store.failed.done()

    @property
    def _disk(self) -> Disk:
        """The disk that this client is attached to: another one from the step on in which a snapshot of it is taken."""
        layer = self._work.layer_of(self._on) if self._snapshot is None else self._snapshot
        return self._work.session.disks[layer]

    # --- where

    def _block(self) -> int:
        """A block to work on: few hot ones, some at the edges of index pages, the last of the disk."""
        last = (self._device.size - 1) // BLOCK_BYTES
        place = self._chance.random()
        if last > 5000 and place < 0.2:
            return self._chance.choice([4095, 4096, last // 2, last - 1, last])
        return min(self._chance.randrange(self._work.profile.hot_blocks), last)

    def _cut(self, offset: int, length: int) -> tuple[int, int]:
        size = self._device.size
        offset = min(offset, size - 512)
        return offset, min(length, size - offset)

    # --- writes

    def _content(self, offset: int, length: int) -> bytes:
        """Bytes that say which write they are of, and which sector: nothing else has ever held them."""
        stamp = self._work.stamp()
        first, end = offset // SECTOR, (offset + length - 1) // SECTOR + 1
        kind = self._chance.random()
        sectors = []
        for sector in range(first, end):
            if kind > 0.9 and (sector ^ stamp) % 3 == 0:
                sectors.append(bytes(SECTOR))
            else:
                sectors.append(STAMP.pack(stamp, sector) * (SECTOR // STAMP.size))
        start = offset - first * SECTOR
        return b"".join(sectors)[start : start + length]

    async def _write(self, offset: int, length: int, data: bytes | None = None) -> None:
        await self._wait_for_room()
        if not self._goes_on():
            return
        offset, length = self._cut(offset, length)
        content = self._content(offset, length) if data is None else data[:length]
        device, disk = self._device, self._disk
        given = content if self._chance.random() < 0.5 else memoryview(bytearray(content))
        sequence = device.write(offset, given)
        # Longer writes than the limit are two operations, and a crash may fall between them.
        limit = self._work.profile.options.atomic_bytes_max
        at = 0
        while length - at > limit:
            step = limit - ((offset + at) % BLOCK_BYTES)
            disk.add(Op(offset + at, step, content[at : at + step]))
            at += step
        count = disk.add(Op(offset + at, length - at, content[at:]), sequence)
        self._work.note(f"{self._name} write {self._on} {offset}+{length} = op {count} of layer {disk.layer}")
        await self._answer(count)
        await self._maybe_fua(sequence, count)

    # --- zeros

    async def _zero(self, offset: int, length: int, *, allocated: bool) -> None:
        if not self._goes_on():
            return
        offset, length = self._cut(offset, length)
        sequence = self._device.zero(offset, length, allocated=allocated)
        count = self._disk.add(Op(offset, length), sequence)
        self._work.note(f"{self._name} zero {self._on} {offset}+{length} = op {count} of layer {self._disk.layer}")
        await self._answer(count)
        await self._maybe_fua(sequence, count)

    async def _answer(self, count: int) -> None:
        """The reply to a write: the journal first, as in `Outbox`. More may be carried out before, in the same pass."""
        if self._passes.random() < 0.3:
            await asyncio.sleep(0)
        work = self._work
        if work.store.failed.done():
            return
        if self._device.journal.pending:
            self._device.journal.keep()
        work.oracle.answered(work.session, self._disk, count)

    async def _wait_for_room(self) -> None:
        work = self._work
        if self._device.gate.closed and self._goes_on():
            opened = asyncio.Event()
            self._device.gate.when_open(opened.set, 0)
            waiting = asyncio.ensure_future(opened.wait())
            either: set[asyncio.Future[Any]] = {waiting, work.store.failed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        if self._device.gate.slows:
            await asyncio.sleep(self._limiter.delay(BLOCK_BYTES))

    async def _maybe_fua(self, sequence: int, count: int) -> None:
        if self._chance.random() < 0.1:
            await self._durable(sequence, count)

    async def _durable(self, sequence: int, count: int, *, waits: bool = True) -> None:
        work, disk, device = self._work, self._disk, self._device
        done = asyncio.get_running_loop().create_future()

        def listener(upto: int) -> None:
            if upto >= sequence:
                device.unlisten(listener)
                answered()

        def answered() -> None:
            work.unanswered -= 1
            if work.store.failed.done():
                work.violate(f"{self._name}: a flush was answered after the store had failed")
            work.note(f"{self._name} flushed op {count} of layer {disk.layer}")
            self._tell(work.oracle.acknowledged, work.session, disk.layer, count)
            if not done.done():
                done.set_result(None)

        work.unanswered += 1
        if device.want_durable(sequence):
            answered()
            return
        device.listen(listener)
        if waits:
            await asyncio.wait({done, work.store.failed}, return_when=asyncio.FIRST_COMPLETED)

    def _tell(self, tell: Callable[..., object], *facts: object) -> None:
        try:
            tell(*facts)
        except Exception as error:
            self._work.violate(str(error))

    async def _fetch(self, offset: int, length: int) -> None:
        """Read, from the store if need be. What is damaged fails, or has no answer; then the client goes its way."""
        work, disk, device = self._work, self._disk, self._device
        first, end = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES + 1
        history = len(disk.ops)

        async def read() -> None:
            # Compared in the step in which it is answered: whatever was written meanwhile is in both.
            found = await device.read(offset, length)
            self._compare("fetched", offset, found, self._disk.live.read(offset, length))

        reading = asyncio.ensure_future(read())
        while True:
            await asyncio.wait({reading}, timeout=WAIT_SECONDS)
            error = reading.exception() if reading.done() else TimeoutError()
            if error is None:
                return
            if work.damage.excuses(error, work.session, disk, history, first, end):
                work.seen(f"read of what is damaged: {type(error).__name__}")
                reading.cancel()
                return
            if reading.done():
                raise error

    def _place_to_read(self) -> tuple[int, int]:
        start = self._block() * BLOCK_BYTES + self._chance.choice([0, 0, self._chance.randrange(BLOCK_BYTES)])
        length = self._chance.choice([512, SECTOR, SECTOR, 7000, 64 * 1024, BLOCK_BYTES, 3 * BLOCK_BYTES])
        if length == SECTOR:
            start = start // SECTOR * SECTOR
        return self._cut(start, length)

    def _compare(self, how: str, offset: int, found: list[Piece], want: bytes) -> None:
        got = joined(found)
        if got != want:
            at = next((i for i in range(min(len(got), len(want))) if got[i] != want[i]), min(len(got), len(want)))
            self._work.violate(
                f"{self._name}: a {how} read of {self._on} (layer {self._disk.layer}) at {offset}+{len(want)} is wrong "
                f"from byte {offset + at} on: {got[at : at + 16].hex()} instead of {want[at : at + 16].hex()}, "
                f"{len(got)} bytes"
            )
