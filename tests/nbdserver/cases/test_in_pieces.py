"""Every row of the table in this process, whole and cut in other places than a network would.

The same connection as in `test_cases`, without sockets, threads or another process, so that it is fed exactly the
pieces that are meant; a well-behaved client beside it must notice nothing. Rows about time and TLS are left to the
servers there.
"""

import itertools
import struct

import pytest

from tests.nbdserver.cases import extended, haggling, requests
from tests.nbdserver.cases.case import DATA, SIZE, Case, Then, farewell, matches
from tests.nbdserver.cases.served import exports
from tests.support import messages as m
from tests.support.answers import read_answers
from tests.support.wired import Wire

CASES = [case for case in (*haggling.CASES, *requests.CASES, *extended.CASES) if case.server == "plain"]
LONG_BYTES = 50_000
"""A case that is longer is cut in fewer places."""

BESIDE = m.request(m.WRITE, 0, data=b"b" * 4096) + m.request(m.READ, 0, 4096, cookie=7)
BESIDE_ANSWERS = ["1 ok", "7: read 0+4096 b*4096 (data)"]


@pytest.mark.parametrize(
    "step", [None, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 7))], ids=["whole", "bytes", "sevens"]
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
async def test_answer(case: Case, step: int | None) -> None:
    if step is not None and len(case.say) > LONG_BYTES:
        step = 10_007 * step
    served, disk = exports()
    with Wire(served) as wire, Wire(served) as beside:
        await beside.feed(m.structured("beside") + BESIDE)
        await wire.feed(case.start.say + case.say, step=step)
        expected = (*case.start.expect, *case.expect)
        if case.then is Then.CLOSED:
            assert wire.closed
        else:
            behind, answer, goodbye, last = farewell(case)
            await wire.feed(behind, step=step)
            ended = wire.closed
            await wire.feed(goodbye, step=step)
            assert (ended, wire.closed) == (False, True)
            expected = (*expected, *answer, *last)
        lines = read_answers(wire.output, case.lengths, padding=case.padding)
        assert matches(lines, expected), f"\n{lines}\nis not\n{list(expected)}"

        assert not beside.closed
        await beside.feed(BESIDE)
        assert read_answers(beside.output)[3:] == BESIDE_ANSWERS * 2
    for offset, data in case.after or ((0, b"d" * DATA + bytes(SIZE - DATA)),):
        assert disk.contents(offset, len(data)) == data


@pytest.mark.slow
async def test_every_order_of_three_options_is_answered() -> None:
    """74: no order of options trips an assumption; after any three, GO works unless the connection was ended."""
    served, _ = exports()
    names = {
        "list": m.option(m.LIST),
        "info": m.info("disk", 3),
        "failing go": m.go("no"),
        "structured": m.option(m.STRUCTURED_REPLY),
        "set": m.set_contexts("disk", m.BASE),
        "list contexts": m.list_contexts("disk"),
        "tls": m.option(m.STARTTLS),
        "extended": m.option(m.EXTENDED_HEADERS),
        "unknown": m.option(77),
    }
    for order in itertools.product(names, repeat=3):
        with Wire(served) as client:
            await client.feed(m.FIXED_FLAGS + b"".join(names[name] for name in order) + m.go())
            assert read_answers(client.output)[-1] == "GO ACK EXPORT", order


async def test_info_promises_what_go_gives() -> None:
    """23: the same request is answered with the same bytes."""
    served, _ = exports()
    answers = []
    for option in (m.INFO, m.GO):
        with Wire(served) as client:
            await client.feed(
                m.FIXED_FLAGS + m.option(m.STRUCTURED_REPLY) + m.option(option, m.info_data("disk", 0, 1, 2, 3))
            )
            told, general = (m.OPTION_REPLY_MAGIC + struct.pack(">I", number) for number in (option, 0))
            answers.append(bytes(client.output).replace(told, general))
    assert answers[0] == answers[1]
