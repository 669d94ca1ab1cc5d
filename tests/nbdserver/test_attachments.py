"""Who is remembered, until when, and who is refused after a loss."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from nbdserver.attachments import HERE, Attachment, Attachments, Record, read_record, refused_after
from storage.errors import OutOfSpace

ONE = Attachment("disk", "10.0.0.5")
OTHER = Attachment("disk", "10.0.0.6")
LOCAL = Attachment("disk", HERE)


class Written:
    """A device of which the test says what is durable."""

    def __init__(self) -> None:
        self.last_sequence = 0
        self.durable = 0
        self.listeners: list[Callable[[int], None]] = []

    def want_durable(self, sequence: int) -> bool:
        return self.durable >= sequence

    def listen(self, listener: Callable[[int], None]) -> None:
        self.listeners.append(listener)

    def unlisten(self, listener: Callable[[int], None]) -> None:
        self.listeners.remove(listener)

    def flush(self, sequence: int) -> None:
        self.durable = sequence
        for listener in list(self.listeners):
            listener(sequence)


class Disk:
    """Where the record is kept; a write waits until the test lets it happen."""

    def __init__(self) -> None:
        self.kept: list[Record] = []
        self.go = asyncio.Event()
        self.go.set()
        self.full = False

    async def keep(self, data: bytes) -> None:
        await self.go.wait()
        if self.full:
            raise OutOfSpace("there is no room")
        found = read_record(data)
        assert found is not None
        self.kept.append(found)

    @property
    def attached(self) -> list[Attachment]:
        return self.kept[-1].attached


@pytest.fixture
async def disk() -> Disk:
    return Disk()


@pytest.fixture
async def attachments(disk: Disk) -> Attachments:
    return Attachments(disk.keep, incarnation="aa", boot="boot", refused=[OTHER])


async def test_requests_wait_until_it_is_remembered(disk: Disk, attachments: Attachments) -> None:
    disk.go.clear()
    kept = attachments.attach(ONE)
    assert kept is not None
    await asyncio.sleep(0)
    second = attachments.attach(ONE)
    assert second is not None, "the record does not have it yet"
    assert not kept.done()
    disk.go.set()
    await asyncio.gather(kept, second)
    assert disk.attached == [ONE]
    assert disk.kept[-1].refused == [OTHER]
    assert attachments.attach(ONE) is None, "the record has it"


async def test_it_is_forgotten_when_all_that_it_wrote_is_durable(disk: Disk, attachments: Attachments) -> None:
    device = Written()
    for _ in range(2):
        kept = attachments.attach(ONE)
        if kept is not None:
            await kept
    attachments.leave(ONE, device)
    await attachments.write()
    assert disk.attached == [ONE], "another connection is left"
    device.last_sequence = 7
    attachments.leave(ONE, device)
    await attachments.write()
    assert disk.attached == [ONE], "its writes may be lost yet"
    device.flush(6)
    await attachments.write()
    assert disk.attached == [ONE]
    device.flush(7)
    await attachments.write()
    assert disk.attached == []
    assert device.listeners == []


async def test_one_that_comes_back_meanwhile_is_not_forgotten(disk: Disk, attachments: Attachments) -> None:
    device = Written()
    kept = attachments.attach(ONE)
    assert kept is not None
    await kept
    device.last_sequence = 7
    attachments.leave(ONE, device)
    assert attachments.attach(ONE) is None
    device.flush(7)
    await attachments.write()
    assert disk.attached == [ONE]


async def test_one_that_leaves_twice_is_forgotten_when_all_that_it_wrote_is_durable(
    disk: Disk, attachments: Attachments
) -> None:
    """Seen: forgotten when what it wrote before it left first was, though it had come back and written more."""
    device = Written()
    kept = attachments.attach(ONE)
    assert kept is not None
    await kept
    for sequence in (7, 9):
        device.last_sequence = sequence
        attachments.leave(ONE, device)
        if sequence == 7:
            assert attachments.attach(ONE) is None
    device.flush(7)
    await attachments.write()
    assert disk.attached == [ONE]
    device.flush(9)
    await attachments.write()
    assert disk.attached == []
    assert not device.listeners


async def test_one_that_left_two_devices_under_one_name_is_forgotten_with_the_last(
    disk: Disk, attachments: Attachments
) -> None:
    """A link that was pointed elsewhere: what it wrote to the first device is still on its way."""
    first, second = Written(), Written()
    kept = attachments.attach(ONE)
    assert kept is not None
    await kept
    first.last_sequence = 7
    attachments.leave(ONE, first)
    assert attachments.attach(ONE) is None
    attachments.leave(ONE, second)
    await attachments.write()
    assert disk.attached == [ONE]
    first.flush(7)
    await attachments.write()
    assert disk.attached == []


async def test_one_that_comes_back_while_it_is_being_forgotten_waits(disk: Disk, attachments: Attachments) -> None:
    """A record without it is on its way to the disk."""
    kept = attachments.attach(ONE)
    assert kept is not None
    await kept
    disk.go.clear()
    attachments.leave(ONE, Written())
    await asyncio.sleep(0)
    again = attachments.attach(ONE)
    assert again is not None
    disk.go.set()
    await again
    assert disk.attached == [ONE]


async def test_who_is_refused_is_let_in_when_accepted(disk: Disk, attachments: Attachments) -> None:
    assert attachments.refusal(ONE) is None
    assert "nbdserver client accept disk" in (attachments.refusal(OTHER) or "")
    assert attachments.refusal(Attachment("other", OTHER.client)) is None
    assert await attachments.accept("other") == []
    assert attachments.refused == [OTHER]
    assert await attachments.accept("disk") == [OTHER.client]
    assert attachments.refusal(OTHER) is None
    assert disk.kept[-1].refused == []


async def test_a_host_that_cannot_remember_serves(
    disk: Disk, attachments: Attachments, caplog: pytest.LogCaptureFixture
) -> None:
    disk.full = True
    for who in (ONE, LOCAL):
        kept = attachments.attach(who)
        assert kept is not None
        await kept
    assert [record.message for record in caplog.records] == ["attachments_not_kept"]


async def test_without_a_host_nobody_waits() -> None:
    nowhere = Attachments(None)
    assert nowhere.attach(ONE) is None
    nowhere.leave(ONE, Written())
    await nowhere.write()


@pytest.mark.parametrize(("unbroken", "same_boot"), [(True, True), (True, False), (False, True), (False, False)])
def test_who_is_refused_after_a_start(unbroken: bool, same_boot: bool) -> None:
    record = Record(1, "aa", "boot", [ONE, LOCAL], [OTHER, Attachment("other", HERE)])
    boot = "boot" if same_boot else "another"
    found = refused_after(record, boot, lambda incarnation: unbroken and incarnation == "aa")
    wanted = {OTHER} if unbroken else {OTHER, ONE}
    if same_boot:
        wanted |= {Attachment("other", HERE)} if unbroken else {Attachment("other", HERE), LOCAL}
    assert found == wanted


def test_a_record_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    assert read_record(None) is None
    assert read_record(b"{") is None
    assert [record.message for record in caplog.records] == ["attachments_not_read"]
    assert read_record(msgspec.json.encode(Record(99, "", "", [], []))) is None
    assert refused_after(None, "boot", lambda incarnation: False) == set()
