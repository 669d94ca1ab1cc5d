"""What only a session decides: how a READ that memory cannot answer is told about, above all if part of it cannot be
read at all."""

import asyncio

import pytest

from nbdserver.server.reads import PART_BYTES
from storage.errors import Corrupt
from storage.fetch_times import FetchTimes
from tests.support import messages as m
from tests.support.answers import Answers, read_answers
from tests.support.memory_device import BLOCK, MemoryDevice, memory_exports
from tests.support.wired import Wire, transmission

SIZE = 64 << 20
LONG = 3 * PART_BYTES
"""A READ of this length from a part's beginning is answered in three parts."""


class Damaged(MemoryDevice):
    """A disk on which the bytes around `bad` cannot be read, and nothing is in memory."""

    def __init__(self, bad: int | None) -> None:
        super().__init__(SIZE)
        self.misses = asyncio.Event()
        self.misses.set()
        self.bad = bad
        self.asked: list[tuple[int, int]] = []

    async def read(
        self, offset: int, length: int, times: FetchTimes | None = None
    ) -> list[bytes | bytearray | memoryview | int]:
        self.asked.append((offset, length))
        pieces = await super().read(offset, length, times)
        if self.bad is not None and offset <= self.bad < offset + length:
            raise Corrupt("objects/1", "a frame is damaged")
        return pieces


class Cancelling(MemoryDevice):
    """A disk whose reads are misses, the first bytes of which end with a cancellation that nobody asked for."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.misses = asyncio.Event()
        self.misses.set()

    async def read(
        self, offset: int, length: int, times: FetchTimes | None = None
    ) -> list[bytes | bytearray | memoryview | int]:
        if offset == 0:
            raise asyncio.CancelledError
        return await super().read(offset, length, times)


async def answers(disk: MemoryDevice, said: bytes, *, reads: dict[int, int] | None = None) -> list[str]:
    """What is answered to this behind the handshake."""
    with Wire(memory_exports({"disk": disk})) as client:
        await client.feed(said)
        await client.until(lambda: not transmission(client.connection).session.admission.outstanding)
        return [line for line in read_answers(client.output, reads) if line[0].isdigit()]


@pytest.mark.thorough
async def test_a_long_read_is_answered_in_parts() -> None:
    disk = Damaged(None)
    disk.write(PART_BYTES, b"d" * PART_BYTES)
    lines = await answers(disk, m.structured() + m.request(m.READ, 0, LONG))
    assert sorted(disk.asked) == [(0, PART_BYTES), (PART_BYTES, PART_BYTES), (2 * PART_BYTES, PART_BYTES)]
    assert len(lines) == 1
    read, kinds = lines[0].split(" (")
    assert read == f"1: read 0+{LONG} 0*{PART_BYTES} d*{PART_BYTES} 0*{PART_BYTES}"
    assert sorted(kinds.rstrip(")").split()) == ["data", "hole", "hole"]


async def test_parts_do_not_straddle() -> None:
    """So no block of the store is read for two of them."""
    disk = Damaged(None)
    await answers(disk, m.extended_headers() + m.extended(m.READ, PART_BYTES - 512, PART_BYTES + 1024))
    assert sorted(disk.asked) == [(PART_BYTES - 512, 512), (PART_BYTES, PART_BYTES), (2 * PART_BYTES, 512)]


@pytest.mark.parametrize(
    ("start", "who"), [(m.structured(), "1"), (m.extended_headers(), "1@0")], ids=["structured", "extended"]
)
async def test_what_cannot_be_read_does_not_spoil_the_rest(start: bytes, who: str) -> None:
    """49, 50: the error says where, the other parts are there, and the answer has an end."""
    say = m.extended if "@" in who else m.request
    lines = await answers(Damaged(PART_BYTES + 5), start + say(m.READ, 0, LONG))
    first, last = (f"{place}+{PART_BYTES} 0*{PART_BYTES}" for place in (0, 2 * PART_BYTES))
    assert lines == [f"{who}: read {first}, {last} (hole hole) EIO@{PART_BYTES}"]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (m.structured() + m.request(m.READ, 0, PART_BYTES), "1: EIO"),
        (m.structured() + m.request(m.READ, 0, LONG, flags=m.DF), "1: EIO"),
        (m.extended_headers() + m.extended(m.READ, 0, LONG, flags=m.DF), "1@0: EIO"),
        (m.extended_headers() + m.extended(m.READ, 0, 4096), "1@0: EIO"),
        (m.simple() + m.request(m.READ, 0, LONG), "1 EIO"),
    ],
    ids=["short", "structured DF", "extended DF", "extended", "simple"],
)
async def test_what_is_answered_at_once_fails_at_once(said: bytes, line: str) -> None:
    """A short READ, one that forbids fragments, and simple replies, which cannot tell a part."""
    assert await answers(Damaged(5), said) == [line]


async def test_no_part_outlives_its_connection() -> None:
    disk = Damaged(None)
    assert disk.misses is not None
    disk.misses.clear()
    with Wire(memory_exports({"disk": disk})) as client:
        await client.feed(m.structured() + m.request(m.READ, 0, LONG))
        assert disk.reads_under_way == 3
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert disk.reads_under_way == 0


async def test_a_part_that_goes_wrong_unforeseen_drops_the_client() -> None:
    disk = Damaged(None)
    disk.failure = RuntimeError("nobody thought of this")
    with Wire(memory_exports({"disk": disk})) as client:
        await client.feed(m.structured() + m.request(m.READ, 0, LONG))
        await client.gone()
    assert disk.reads_under_way == 0


COMMANDS = {
    "TRIM": m.extended(m.TRIM, 0, SIZE),
    "WRITE_ZEROES": m.extended(m.WRITE_ZEROES, 0, SIZE),
    "CACHE": m.extended(m.CACHE, 0, SIZE),
    "BLOCK_STATUS": m.extended(m.BLOCK_STATUS, 0, SIZE),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_others_have_their_turn_between_commands_that_take_long(command: bytes) -> None:
    """A thousand of them in one segment are not carried out in one go, and all are answered."""
    with Wire(memory_exports({"disk": MemoryDevice(SIZE)})) as client:
        await client.feed(m.extended_headers())
        start = len(client.output)
        client.offer(command * 1000)
        assert 0 < (len(client.output) - start) // 32 < 100
        assert await client.until(lambda: client.reading)
        lines = read_answers(client.output)
        assert len([line for line in lines if line.startswith("1@0: ")]) == 1000


async def test_the_status_of_much_takes_a_turn() -> None:
    """A GiB of it may take as long as others can be asked to wait; a hole of 1 MiB costs nothing."""
    for size, most in ((1 << 50, 2), (1 << 20, 20)):
        with Wire(memory_exports({"disk": MemoryDevice(size)})) as client:
            await client.feed(m.extended_headers())
            start = len(client.output)
            client.offer(m.extended(m.BLOCK_STATUS, 0, size) * 1000)
            answered = (len(client.output) - start) // 56
            assert 0 < answered <= most


@pytest.mark.parametrize("length", [4096, LONG])
async def test_a_read_that_is_cancelled_by_nobody_drops_the_client(length: int) -> None:
    """An answer would be missing, or a part of one that ends like a whole answer."""
    disk = Cancelling(SIZE)
    with Wire(memory_exports({"disk": disk})) as client:
        await client.feed(m.structured() + m.request(m.READ, 0, length))
        await client.gone()
        answered = Answers()
        answered.feed(client.output)
        assert not [line for line in answered.lines if line.startswith("1")]


async def test_a_held_write_that_goes_wrong_unforeseen_drops_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDevice(SIZE)
    disk.gate.closed = True

    def broken(*_: object) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(disk, "write", broken)
    with Wire(memory_exports({"disk": disk})) as client:
        await client.feed(m.structured() + m.request(m.WRITE, 0, data=b"x" * 4096))
        assert not client.closed
        disk.gate.open()
        await client.gone()


@pytest.mark.parametrize("missing", [False, True], ids=["in memory", "in the store"])
async def test_a_byte_that_waits_to_be_sent_does_not_keep_its_block(
    missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a client that reads single bytes, and none of the replies, would make the server hold all its blocks."""
    disk = MemoryDevice(SIZE)
    disk.write(0, b"x" * BLOCK)
    with Wire(memory_exports({"disk": disk})) as client:
        await client.feed(m.structured())
        client.block()
        await client.feed(m.request(m.READ, 0, BLOCK))
        assert client.unsent > BLOCK
        given: list[bytes | bytearray | memoryview] = []
        monkeypatch.setattr(client, "writelines", given.extend)
        if missing:
            disk.misses = asyncio.Event()
            disk.misses.set()
        await client.feed(m.request(m.READ, 5, 1) + m.request(m.READ, 0, BLOCK))
        assert [part for part in given if len(part) == 1] == [b"x"]
        assert not [part for part in given if isinstance(part, memoryview) and len(part) < BLOCK]
        assert [part for part in given if len(part) == BLOCK]


async def test_who_reads_while_more_replies_come_has_taken_what_it_read() -> None:
    """By this it is told from one that reads nothing, whom others need not wait for."""
    disk = MemoryDevice(SIZE)
    disk.write(0, b"x" * BLOCK)
    with Wire(memory_exports({"disk": disk})) as client:
        await client.feed(m.simple())
        client.block()
        await client.feed(m.request(m.READ, 0, BLOCK))
        outbox = transmission(client.connection).session.outbox
        before = outbox.bytes_taken
        client.read_some(BLOCK // 2)  # and at that moment more comes than it takes
        await client.feed(m.request(m.READ, 0, BLOCK))
        assert client.unsent > BLOCK
        assert BLOCK // 2 - 100 <= outbox.bytes_taken - before <= BLOCK // 2
