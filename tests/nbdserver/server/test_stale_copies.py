"""What a client left behind: an old copy of a write must not undo a newer one, and what is not doubtful must be
carried out.

Linux sends a request again on another socket when one stalls; bytes of a client that is gone are therefore carried
out only if m.GOODBYE stands behind them.
"""

import asyncio

from nbdserver.server.limits import Limits
from tests.support import messages as m
from tests.support.idle import idle
from tests.support.memory_device import BLOCK, MemoryDevice, memory_exports
from tests.support.wired import Wire, answers, attach, transmission

OLD, NEW = b"o" * 4096, b"n" * 4096

ALWAYS_SILENT = Limits(silence_seconds=-1.0)
"""Whatever comes, comes after a silence."""


async def test_an_old_copy_behind_a_pause_does_not_undo_a_newer_write(disk: MemoryDevice) -> None:
    """Linux sends a request again on another socket when one stalls. The first copy waits in a paused
    connection; the second is acknowledged and overwritten. When the pause ends, the first must not come to
    life."""
    exports = memory_exports({"disk": disk})
    with Wire(exports) as stalled, Wire(exports) as other:
        await stalled.feed(m.structured())
        await other.feed(m.structured())
        disk.gate.closed = True
        stalled.offer(m.write(0, OLD))
        await idle()
        assert answers(stalled) == []
        stalled.leave()
        disk.gate.closed = False  # it opened for the other first
        await other.feed(m.write(0, OLD) + m.write(0, NEW, cookie=2))
        assert answers(other) == ["1 ok", "2 ok"]
        disk.gate.open()
        await idle()
        stalled.end()
        await idle()
        assert disk.contents(0, 4096) == NEW
        assert disk.last_sequence == 2


async def test_an_old_copy_after_silence_does_not_undo_a_newer_write(
    disk: MemoryDevice,
) -> None:
    """The network heals after the client gave the connection up: its bytes and its FIN arrive together."""
    exports = memory_exports({"disk": disk})
    with Wire(exports, limits=ALWAYS_SILENT) as stalled, Wire(exports) as other:
        await stalled.feed(m.structured())
        await other.feed(m.structured() + m.write(0, OLD) + m.write(0, NEW, cookie=2))
        stalled.leave()
        await stalled.feed(m.write(0, OLD) + m.read())
        stalled.end()
        await idle()
        assert answers(stalled) == []
        assert disk.contents(0, 4096) == NEW


async def test_an_old_copy_that_straddles_a_silence_does_not_undo_a_newer_write(disk: MemoryDevice) -> None:
    """The path stalls in the middle of a long WRITE. When it recovers, the end of the client's stream is still behind
    the rest of the payload, and comes into sight with that."""
    exports = memory_exports({"disk": disk})
    old = m.write(0, b"o" * BLOCK)
    with Wire(exports) as stalled, Wire(exports) as other:
        await stalled.feed(m.structured())
        await other.feed(m.structured())
        stalled.offer(old[: BLOCK // 4])
        transmission(stalled.connection).heard -= 10 * stalled.limits.silence_seconds
        await other.feed(old + m.write(0, NEW, cookie=2))
        stalled.offer(old[BLOCK // 4 : BLOCK // 2])
        stalled.leave()
        await stalled.feed(old[BLOCK // 2 :])
        stalled.end()
        await idle()
        assert answers(stalled) == []
        assert disk.contents(0, 4096) == NEW


async def test_a_request_that_straddles_a_silence_is_carried_out_for_a_client_that_is_there(
    client: Wire, disk: MemoryDevice
) -> None:
    await client.feed(m.structured())
    said = m.write(0, b"n" * BLOCK)
    client.offer(said[:100])
    transmission(client.connection).heard -= 10 * client.limits.silence_seconds
    await client.feed(said[100:])
    assert answers(client) == ["1 ok"]
    assert not transmission(client.connection).straddled
    assert disk.contents(0, BLOCK) == b"n" * BLOCK


async def test_a_client_that_left_in_good_order_loses_nothing(disk: MemoryDevice) -> None:
    """With m.GOODBYE behind them the requests of a client that has left already are carried out."""
    with attach(disk, ALWAYS_SILENT) as client:
        await client.feed(m.structured())
        client.leave()
        said = (
            m.write(0, NEW)
            + m.write(BLOCK, b"l" * BLOCK, cookie=4)
            + m.request(m.WRITE_ZEROES, 4096, 4096, cookie=5)
            + m.request(m.CACHE, 0, 4096, cookie=6)
            + m.request(m.BLOCK_STATUS, 0, 4096, cookie=7)
            + m.request(m.READ, cookie=8)
            + m.request(99, cookie=9)
            + m.read()
            + m.flush()
        )
        await client.feed(said, step=1000)
        assert disk.last_sequence == 0
        await client.feed(m.GOODBYE)
        assert client.lost
        assert disk.contents(0, 4096) == NEW
        assert disk.contents(BLOCK, BLOCK) == b"l" * BLOCK
        assert answers(client) == [
            "1 ok",
            "4 ok",
            "5 ok",
            "6 ok",
            "7: status 1 4096/0",
            "8: ok",
            "9: EINVAL",
            "2: read 0+4096 n*4096 (data)",
            "3 ok",
        ]


async def test_a_client_that_shut_its_side_gets_all_its_replies(disk: MemoryDevice) -> None:
    """libnbd says m.GOODBYE behind requests, shuts its sending side, and reads on: also more than may wait unsent, and
    with misses among it."""
    disk.write(0, b"x" * BLOCK)
    for misses in (None, asyncio.Event()):
        disk.misses = misses
        with attach(disk, Limits(reply_bytes=100_000, requests=8, silence_seconds=-1.0)) as client:
            await client.feed(m.structured())
            client.shut()
            client.block()
            client.offer(b"".join(m.read(0, 30_000, cookie=cookie) for cookie in range(8)) + m.GOODBYE)
            await idle()
            if misses:
                misses.set()
            for _ in range(20):
                client.unblock()
                client.block()
                await idle()
            client.unblock()
            await idle()
            assert client.closed
            assert len(answers(client)) == 8


async def test_what_a_client_leaves_behind_is_bounded(disk: MemoryDevice) -> None:
    with attach(disk, Limits(requests=10, silence_seconds=-1.0)) as client:
        await client.feed(m.structured())
        client.leave()
        await client.feed(m.write(0) * 11)
        assert client.lost
        assert disk.last_sequence == 0


async def test_a_write_cut_short_changes_nothing(disk: MemoryDevice) -> None:
    """54: whichever byte of the payload is the last, short or long."""
    for length, cuts in ((4096, range(0, 4124, 37)), (100_000, (1, 28, 29, 50_000, 100_027))):
        for cut in cuts:
            with attach(disk) as client:
                await client.feed(m.structured() + m.write(0, b"x" * length)[:cut])
                client.leave()
                client.end()
                await idle()
                assert client.lost
    assert disk.last_sequence == 0


# Behind a closed gate


async def test_a_client_that_left_while_its_writes_were_held(client: Wire, disk: MemoryDevice) -> None:
    """With m.GOODBYE behind them held writes are applied when the gate opens, without it they are dropped."""
    await client.feed(m.structured())
    disk.gate.closed = True
    await client.feed(m.write(0, NEW) + m.GOODBYE)
    client.shut()
    client.end()
    await idle()
    assert not client.closed
    disk.gate.open()
    await idle()
    assert client.lost
    assert disk.contents(0, 4096) == NEW
    disk.gate.closed = True
    with attach(disk) as rude:
        await rude.feed(m.structured() + m.write(0, OLD))
        rude.leave()
        disk.gate.open()
        await idle()
        rude.end()
        await idle()
        assert rude.lost
    assert disk.contents(0, 4096) == NEW
