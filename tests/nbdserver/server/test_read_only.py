"""The second lock: what a client that may only read is taken to say never reaches the device."""

import pytest

from nbdserver.protocol import wire
from nbdserver.server.read_only import ReadOnlySession
from tests.support import messages as m
from tests.support.answers import read_answers
from tests.support.memory_device import MemoryDevice, memory_exports
from tests.support.wired import Wire, transmission

MIB = 1 << 20


@pytest.mark.parametrize("length", [512, MIB])
async def test_a_write_that_slipped_through_the_protocol_changes_nothing(length: int) -> None:
    disk = MemoryDevice(4 * MIB)
    disk.write(0, b"o" * MIB)
    written = disk.last_sequence
    with Wire(memory_exports({"disk": disk}, read_only=True)) as client:
        await client.feed(m.structured())
        session = transmission(client.connection).session
        assert isinstance(session, ReadOnlySession)
        room = session.allocate(length)
        assert room is not None
        assert session.write(b"\0" * 8, 0, room)
        assert session.write(b"\0" * 8, 0, b"n" * length, fua=True)
        assert session.zero(b"\0" * 8, 0, length, command=wire.CMD_TRIM, allocated=False, fua=False)
        session.outbox.send()
        assert read_answers(client.output)[-3:] == ["0: EPERM"] * 3
        assert session.admission.inflight == 0
    assert disk.last_sequence == written
    assert disk.contents(0, MIB) == b"o" * MIB


async def test_a_client_that_may_write_is_no_spectator() -> None:
    with Wire(memory_exports({"disk": MemoryDevice(MIB)})) as client:
        await client.feed(m.structured())
        assert not isinstance(transmission(client.connection).session, ReadOnlySession)
