"""The handshake: its tables hold together, cutting makes no difference, garbage does no more than end it."""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.protocol import wire
from nbdserver.protocol.agreement import INCARNATION, Agreement, Dialect, MetaContext
from nbdserver.protocol.handshake import OPTIONS_PER_TURN, OUTPUT_BYTES_MAX, Handshake
from nbdserver.protocol.option_answers import OPTIONS
from nbdserver.protocol.states import TRANSITIONS, Event, HandshakeState
from nbdserver.protocol.wire import ProtocolError
from tests.support import messages as m
from tests.support.answers import read_answers


@dataclass(frozen=True)
class Offer:
    name: str
    size: int = 1 << 20
    read_only: bool = False
    exclusive: bool = False
    is_view: bool = False
    description: str = "a disk"
    lineage: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def incarnations(self, queries: Sequence[str]) -> Sequence[str]:
        own = self.lineage[-1:]
        return [
            INCARNATION + each for each in (*own, *self.lineage[:-1]) if each in own or INCARNATION + each in queries
        ]

    def snapshots(self) -> tuple[str, ...]:
        return self.known


class Offers:
    """Exports by name that count how often they are asked for."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self.found: list[str] = []

    def names(self) -> tuple[str, ...]:
        return self._names

    def find(self, name: str) -> Offer | None:
        self.found.append(name)
        if name not in self._names:
            return None
        return Offer(name, read_only=name == "locked", exclusive=name == "single", is_view=name == "view")

    def refusal(self, export: Offer) -> str | None:
        return "somebody has it" if export.name == "taken" else None


def hear(handshake: Handshake[Offer], data: bytes | memoryview) -> None:
    """Let a handshake take bytes, in as many turns as it wants."""
    while not handshake.received(data):
        data = b""


def talk(data: bytes, *, cut: random.Random | None = None) -> tuple[bytes, HandshakeState, object, bytes]:
    """What a handshake makes of bytes: its output, state, agreement and the bytes left over."""
    handshake = Handshake(Offers("disk", "locked", "single", "view"))
    output = b""
    view = memoryview(data)
    try:
        while True:
            count = len(view) if cut is None else cut.randint(1, 40)
            hear(handshake, view[:count])
            output += b"".join(handshake.take_output())
            view = view[count:]
            if not view:
                break
    except ProtocolError:
        return output + b"".join(handshake.take_output()), HandshakeState.CLOSED, None, b""
    return output, handshake.state, handshake.agreement, handshake.take_rest() + bytes(view)


OPTION = st.one_of(
    st.sampled_from(
        [
            m.option(m.LIST),
            m.option(m.STRUCTURED_REPLY),
            m.option(m.ABORT),
            m.option(m.EXPORT_NAME, b"disk"),
            m.go("no"),
            m.go("disk", 0, 1, 2, 3),
            m.info("locked", 3),
            m.set_contexts("disk", m.BASE, "x-other:thing"),
            m.list_contexts("disk"),
            m.option(m.GO, bytes(70_000)),
        ]
    ),
    st.builds(m.option, st.integers(0, 13), st.binary(max_size=40)),
    st.builds(m.option, st.integers(0, 2**32 - 1), st.binary(max_size=40)),
)
CONVERSATION = st.builds(
    lambda flags, said, end: flags + b"".join(said) + end,
    st.sampled_from([m.FIXED_FLAGS, m.FIXED_ZEROLESS_FLAGS, m.PLAIN_FLAGS]),
    st.lists(OPTION, max_size=8),
    st.binary(max_size=30),
)


@given(CONVERSATION, st.integers(0, 2**32))
def test_cutting_makes_no_difference(conversation: bytes, seed: int) -> None:
    whole, cut = talk(conversation), talk(conversation, cut=random.Random(seed))
    assert cut[:3] == whole[:3]
    if whole[1] is not HandshakeState.CLOSED:
        assert cut[3] == whole[3]


@given(st.binary(max_size=500))
def test_garbage_does_no_more_than_end_it(garbage: bytes) -> None:
    talk(garbage)
    talk(m.FIXED_FLAGS + garbage)
    talk(m.FIXED_FLAGS + m.option(m.STRUCTURED_REPLY) + b"".join(m.option(number, garbage) for number in (6, 7, 9, 10)))


def test_the_tables_hold_together() -> None:
    assert set(TRANSITIONS) == set(HandshakeState)
    reached = {state for moves in TRANSITIONS.values() for state in moves.values()}
    assert reached == set(HandshakeState) - {HandshakeState.GREETED}
    assert {event for moves in TRANSITIONS.values() for event in moves} == set(Event)
    for rule in OPTIONS.values():
        assert rule.states <= {HandshakeState.PLAIN, HandshakeState.UNSECURED, HandshakeState.HAGGLING}


def test_what_follows_go_belongs_to_the_transmission() -> None:
    _, state, agreement, rest = talk(m.FIXED_FLAGS + m.go() + b"requests")
    assert state is HandshakeState.TRANSMISSION
    assert agreement is not None
    assert rest == b"requests"


CHUNKS = m.option(m.STRUCTURED_REPLY)
LONG = m.option(m.EXTENDED_HEADERS)
SET = m.SET_META_CONTEXT

WRITABLE = {0, 2, 3, 5, 6, 8, 10, 11}
"""HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN, SEND_CACHE, SEND_FAST_ZERO."""

LOCKED = {0, 1, 2, 3, 8, 10}
"""READ_ONLY, and nothing that writes."""

DF, MULTI_CONN, STATUS_PAYLOAD = 7, 8, 12


@pytest.mark.parametrize(
    ("name", "before", "bits"),
    [
        ("disk", b"", WRITABLE),
        ("disk", CHUNKS, WRITABLE | {DF}),
        ("disk", LONG, WRITABLE | {DF}),
        ("disk", CHUNKS + LONG, WRITABLE | {DF}),
        ("disk", CHUNKS + m.option(SET, m.context_data("disk", m.BASE)), WRITABLE | {DF}),
        ("disk", LONG + m.option(SET, m.context_data("disk", m.BASE)), WRITABLE | {DF, STATUS_PAYLOAD}),
        ("disk", LONG + m.option(SET, m.context_data("locked", m.BASE)), WRITABLE | {DF}),
        ("disk", LONG + m.option(SET, m.context_data("disk", "base:")), WRITABLE | {DF}),
        ("locked", b"", LOCKED),
        ("locked", CHUNKS, LOCKED | {DF}),
        ("locked", LONG + m.option(SET, m.context_data("locked", m.BASE)), LOCKED | {DF, STATUS_PAYLOAD}),
        ("single", b"", WRITABLE - {MULTI_CONN}),
        ("view", b"", WRITABLE - {MULTI_CONN}),
    ],
)
@pytest.mark.parametrize("option", [m.INFO, m.GO])
def test_transmission_flags(name: str, before: bytes, bits: set[int], option: int) -> None:
    """DF only with replies in chunks; BLOCK_STATUS_PAYLOAD only for a client with extended headers that selected
    a context of this very export; MULTI_CONN not where a second connection would be refused, or see another moment."""
    output, *_ = talk(m.FIXED_FLAGS + before + m.option(option, m.info_data(name)))
    flags = sum(1 << bit for bit in bits)
    assert output[-32:-20] == struct.pack(">HQH", wire.INFO_EXPORT, 1 << 20, flags)


@pytest.mark.parametrize(
    ("before", "dialect"),
    [
        (b"", Dialect.SIMPLE),
        (CHUNKS, Dialect.STRUCTURED),
        (LONG, Dialect.EXTENDED),
        (CHUNKS + LONG, Dialect.EXTENDED),
        (LONG + CHUNKS, Dialect.EXTENDED),
        (m.option(m.EXTENDED_HEADERS, b"x") + CHUNKS, Dialect.STRUCTURED),
    ],
)
def test_extended_headers_take_precedence(before: bytes, dialect: Dialect) -> None:
    _, _, agreement, _ = talk(m.FIXED_FLAGS + before + m.option(SET, m.context_data("disk", m.BASE)) + m.go())
    assert agreement == Agreement(
        Offer("disk"), dialect, () if dialect is Dialect.SIMPLE else (MetaContext("base:allocation"),)
    )


def test_block_sizes() -> None:
    output, *_ = talk(m.FIXED_FLAGS + m.go("disk", wire.INFO_BLOCK_SIZE))
    assert output[-34:-20] == struct.pack(">HIII", wire.INFO_BLOCK_SIZE, 1, 4096, 32 << 20)


def test_answers_stop_while_too_much_of_them_waits() -> None:
    """26: a client that lists and never reads is not answered for ever, and nothing is lost when it reads
    on."""
    names = [f"export-{number:05}" for number in range(10_000)]
    handshake = Handshake(Offers(*names))
    assert not handshake.received(m.FIXED_FLAGS + m.option(m.LIST) * 10)
    output = handshake.take_output()
    longest = sum(len(name) + 24 for name in names) + 20
    assert OUTPUT_BYTES_MAX <= sum(map(len, output)) <= OUTPUT_BYTES_MAX + longest + 18
    while not handshake.received(b""):
        output += handshake.take_output()
    output += handshake.take_output()
    assert b"".join(output).count(m.acknowledged(m.LIST)) == 10


def test_listing_many_exports_may_take_many_options() -> None:
    """qemu-nbd --list asks two options for each export it finds."""
    names = [f"export-{number}" for number in range(100)]
    handshake = Handshake(Offers(*names))
    said = m.option(m.LIST) + b"".join(m.info(name) * 2 for name in names)
    hear(handshake, m.FIXED_FLAGS + said)
    assert read_answers(b"".join(handshake.take_output())).count("INFO ACK EXPORT") == 200
    with pytest.raises(ProtocolError):
        hear(handshake, m.option(99) * 300)


def test_many_options_take_turns() -> None:
    """A client that says a thousand of them in one segment holds up nobody: each may list all exports."""
    handshake = Handshake(Offers("disk"))
    said = m.FIXED_FLAGS + m.option(m.LIST) * (3 * OPTIONS_PER_TURN - 1)
    turns = 0
    while True:
        need_data = handshake.received(said)
        assert b"".join(handshake.take_output()).count(m.acknowledged(m.LIST)) == OPTIONS_PER_TURN - need_data
        turns += 1
        said = b""
        if need_data:
            break
    assert turns == 3


def test_no_export_is_touched_before_it_is_named() -> None:
    offers = Offers("disk")
    Handshake(offers).received(m.FIXED_FLAGS + m.option(m.LIST) + m.option(m.STRUCTURED_REPLY) + m.option(m.ABORT))
    assert offers.found == []


def test_long_option_data_is_not_kept() -> None:
    handshake = Handshake(Offers("disk"))
    handshake.received(m.FIXED_FLAGS + m.option(m.GO, length=1 << 20))
    for _ in range(1 << 4):
        handshake.received(bytes(1 << 16))
        assert handshake.take_rest() == b""
    assert read_answers(b"".join(handshake.take_output())) == ["GO ERR_TOO_BIG"]
