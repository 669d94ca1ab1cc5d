"""What clients may send that they should not, and what each is answered.

The table, in bad_options and bad_requests, is that of docs/bad-inputs.md (the rows that need no TLS and no extended
headers); numbers in the names are its rows. Every case runs whole, byte by byte and in odd pieces,
with a well-behaved client beside it that must notice nothing. Answers are those of the NBD protocol's "Option reply
types", "Request types" and "Error values".
"""

import itertools
import struct

import pytest

from nbdserver.protocol import wire
from tests.nbdserver.protocol.bad_input import (
    GONE,
    LIST,
    READ,
    READ_BACK,
    SIZE,
    Case,
)
from tests.nbdserver.protocol.bad_options import CONTEXTS, HANDSHAKE, LIST_CONTEXTS, SET
from tests.nbdserver.protocol.bad_requests import EINVAL, ENOSPC, EPERM, REQUESTS
from tests.support import messages as m
from tests.support.memory_device import MemoryDevice, memory_exports
from tests.support.speech import read_answers
from tests.support.wired import Wire

CASES = HANDSHAKE + CONTEXTS + REQUESTS
PREFIX_LINES = {m.structured(name): 5 for name in ("disk", "locked", "huge")} | {
    m.simple(name): 2 for name in ("disk", "huge")
}


def disks() -> dict[str, MemoryDevice]:
    disk, locked = MemoryDevice(SIZE), MemoryDevice(SIZE, read_only=True)
    for device in (disk, locked):
        device.write(0, b"d" * 65536)
    return {"disk": disk, "locked": locked, "huge": MemoryDevice(1 << 50)}


@pytest.mark.parametrize("step", [None, pytest.param(1, marks=pytest.mark.slow), 7], ids=["whole", "bytes", "sevens"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_answer(case: Case, step: int | None) -> None:
    if step is not None and case.large:
        step = 10_007 * step
    devices = disks()
    exports = memory_exports(devices)
    with Wire(exports) as wire_, Wire(exports) as beside:
        await beside.feed(m.structured() + READ)
        await wire_.feed(case.before + case.say, step=step)

        answers = read_answers(bytes(wire_.output), dict(case.reads))
        assert answers[PREFIX_LINES.get(case.before, 0) :] == case.expect
        assert wire_.closed is not case.open

        assert not beside.closed
        await beside.feed(READ)
        assert read_answers(bytes(beside.output))[5:] == READ_BACK * 2


async def test_refused_writes_change_nothing() -> None:
    """Whatever is refused in the table leaves the disk as it was."""
    devices = disks()
    exports = memory_exports(devices)
    refused = [case for case in REQUESTS if case.expect[:1] in ([EINVAL], [ENOSPC], [EPERM])]
    assert len(refused) > 30
    for case in refused:
        with Wire(exports) as client:
            await client.feed(case.before + case.say)
    assert devices["disk"].contents(0, SIZE) == b"d" * 65536 + bytes(SIZE - 65536)
    assert devices["disk"].last_sequence == 1
    assert devices["locked"].last_sequence == 1


async def test_every_order_of_three_options_is_answered() -> None:
    """74: no order of options trips an assumption; after any three, GO works unless the connection was
    ended."""
    exports = memory_exports(disks())
    names = {
        "list": LIST,
        "info": m.info("disk", 3),
        "failing go": m.go("no"),
        "structured": m.option(m.STRUCTURED_REPLY),
        "set": m.option(SET, m.context_data("disk", m.BASE)),
        "list contexts": m.option(LIST_CONTEXTS, m.context_data("disk")),
        "tls": m.option(m.STARTTLS),
        "extended": m.option(m.EXTENDED_HEADERS),
        "unknown": m.option(77),
    }
    for order in itertools.product(names, repeat=3):
        with Wire(exports) as client:
            await client.feed(m.FIXED_FLAGS + b"".join(names[name] for name in order) + m.go())
            assert read_answers(bytes(client.output))[-2:] == GONE, order


async def test_info_promises_what_go_gives() -> None:
    """23: the same request is answered with the same bytes."""
    exports = memory_exports(disks())
    answers = []
    for option in (m.INFO, m.GO):
        with Wire(exports) as client:
            await client.feed(
                m.FIXED_FLAGS + m.option(m.STRUCTURED_REPLY) + m.option(option, m.info_data("disk", 0, 1, 2, 3))
            )
            told, general = (struct.pack(">QI", wire.OPTION_REPLY_MAGIC, n) for n in (option, 0))
            answers.append(bytes(client.output).replace(told, general))
    assert answers[0] == answers[1]
