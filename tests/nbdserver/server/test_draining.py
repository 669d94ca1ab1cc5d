"""A connection of a server that stops: what is under way is answered, and nothing else is, with no error either."""

import pytest

from tests.support import messages as m
from tests.support.idle import idle
from tests.support.memory_device import MemoryDevice
from tests.support.wired import Wire, answers, attach


@pytest.mark.parametrize("before", [0, 20, 1000])
async def test_draining_finishes_what_is_under_way(client: Wire, disk: MemoryDevice, before: int) -> None:
    """What comes then has no answer, not even an error, so that clients send it again to the next server; also that of
    which a part had come `before`."""
    late = m.write(4096, cookie=8) + m.read(cookie=9)
    disk.durable_at_once = False
    await client.feed(m.structured() + m.write(0) + m.flush() + late[:before])
    client.connection.drain()
    assert not client.closed
    client.offer(late[before:])  # what the loop had read already
    disk.commit()
    await idle()
    assert answers(client) == ["1 ok", "3 ok"]
    assert client.lost
    assert disk.last_sequence == 1


async def test_who_leaves_while_the_server_stops_is_not_waited_for(client: Wire, disk: MemoryDevice) -> None:
    """Its end of the stream lies behind requests that nobody answers any more."""
    disk.durable_at_once = False
    await client.feed(m.structured() + m.write(0) + m.flush())
    client.connection.drain()
    client.offer(m.write(4096, cookie=8) + m.read(cookie=9))
    assert not client.closed
    client.end()
    await idle()
    assert client.lost
    disk.commit()
    assert answers(client) == ["1 ok"]


async def test_draining_closes_the_idle_at_once(disk: MemoryDevice) -> None:
    for said in (b"", m.FIXED_FLAGS, m.structured(), m.simple() + m.read()):
        with attach(disk) as client:
            if said:
                await client.feed(said)
            client.connection.drain()
            await idle()
            assert client.lost
