"""STARTTLS as the handshake sees it: what is told before TLS, what stops it, and that nothing said in clear
survives it."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.protocol import wire
from nbdserver.protocol.handshake import OPTIONS_MAX, Handshake
from nbdserver.protocol.option_answers import TlsMode
from nbdserver.protocol.states import HandshakeState
from nbdserver.protocol.wire import ProtocolError
from tests.nbdserver.protocol.test_handshake import Offer, Offers, hear
from tests.support import messages as m
from tests.support.answers import read_answers

STARTTLS = m.option(m.STARTTLS)


def begin(security: TlsMode, *names: str) -> Handshake[Offer]:
    return Handshake(Offers(*(names or ("disk",))), security=security)


def say(handshake: Handshake[Offer], data: bytes, *, padding: int = 0) -> list[str]:
    """The answers to this, greeting left out."""
    before = b"".join(handshake.take_output())
    greeting = before if before else wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT, 3)
    hear(handshake, data)
    return read_answers(greeting + b"".join(handshake.take_output()), padding=padding)


def stage(handshake: Handshake[Offer]) -> HandshakeState:
    return handshake.state


@pytest.mark.parametrize("security", [TlsMode.OFFERED, TlsMode.REQUIRED])
def test_starttls_hands_the_connection_over(security: TlsMode) -> None:
    handshake = begin(security)
    assert say(handshake, m.FIXED_FLAGS + STARTTLS) == ["STARTTLS ACK"]
    assert stage(handshake) is HandshakeState.UPGRADING
    assert say(handshake, m.option(m.LIST)) == []
    handshake.secured(Offers("disk", "secret"))
    assert stage(handshake) is HandshakeState.HAGGLING
    assert say(handshake, m.option(m.LIST)) == ["LIST ACK disk secret"]
    assert say(handshake, STARTTLS) == ["STARTTLS ERR_INVALID"]
    assert say(handshake, m.go("secret")) == ["GO ACK EXPORT"]
    assert stage(handshake) is HandshakeState.TRANSMISSION


def test_nothing_that_was_negotiated_in_clear_survives() -> None:
    """31: neither the kind of replies, nor contexts, nor which exports there are; the client's flags do."""
    handshake = begin(TlsMode.OFFERED, "disk", "old")
    said = m.option(m.STRUCTURED_REPLY) + m.set_contexts("disk", m.BASE) + STARTTLS
    say(handshake, m.FIXED_ZEROLESS_FLAGS + said)
    handshake.secured(Offers("disk"))
    assert say(handshake, m.go("old") + m.list_contexts("disk")) == [
        "GO ERR_UNKNOWN",
        "LIST_META_CONTEXT ERR_INVALID",
    ]
    assert say(handshake, m.option(m.EXPORT_NAME, b"disk")) == [f"export {1 << 20}"]
    agreement = handshake.agreement
    assert agreement is not None
    assert not agreement.structured
    assert not agreement.contexts


@pytest.mark.parametrize("behind", [b"\x16", m.option(m.LIST), m.go(), b"\x16\x03\x01"])
@pytest.mark.parametrize("security", [TlsMode.OFFERED, TlsMode.REQUIRED])
def test_bytes_in_clear_behind_starttls_end_the_connection(security: TlsMode, behind: bytes) -> None:
    """30: they might pass for bytes that came through TLS."""
    handshake = begin(security)
    with pytest.raises(ProtocolError):
        handshake.received(m.FIXED_FLAGS + STARTTLS + behind)
    assert read_answers(b"".join(handshake.take_output())) == []


def test_bytes_that_come_while_tls_is_awaited_are_left_alone() -> None:
    handshake = begin(TlsMode.OFFERED)
    say(handshake, m.FIXED_FLAGS + STARTTLS)
    assert handshake.received(m.go())
    handshake.secured(Offers("disk"))
    assert handshake.take_rest() == b""
    assert say(handshake, b"") == []
    assert stage(handshake) is HandshakeState.HAGGLING


BEFORE_TLS = {
    "LIST": m.option(m.LIST),
    "INFO": m.info("disk", 3),
    "GO": m.go(),
    "STRUCTURED_REPLY": m.option(m.STRUCTURED_REPLY),
    "EXTENDED_HEADERS": m.option(m.EXTENDED_HEADERS),
    "LIST_META_CONTEXT": m.list_contexts("disk"),
    "SET_META_CONTEXT": m.set_contexts("disk", m.BASE),
    "99": m.option(99, b"payload"),
    "98": m.option(98, bytes(100_000)),
}


def test_before_tls_nothing_is_told() -> None:
    """28, 29: every option is answered that TLS comes first, its data consumed; no export is looked up."""
    offers = Offers("disk")
    handshake = Handshake(offers, security=TlsMode.REQUIRED)
    answers = say(handshake, m.FIXED_FLAGS + b"".join(BEFORE_TLS.values()))
    assert answers == [f"{name} ERR_TLS_REQD" for name in BEFORE_TLS]
    assert offers.found == []
    assert stage(handshake) is HandshakeState.UNSECURED
    assert say(handshake, STARTTLS) == ["STARTTLS ACK"]


def test_before_tls_the_number_of_options_says_nothing_of_the_exports() -> None:
    handshake = begin(TlsMode.REQUIRED, *(f"export-{number}" for number in range(100)))
    hear(handshake, m.FIXED_FLAGS + m.option(99) * OPTIONS_MAX)
    with pytest.raises(ProtocolError):
        hear(handshake, m.option(99))


def test_export_name_before_tls_ends_the_connection() -> None:
    """29: there is no way to tell the client why."""
    with pytest.raises(ProtocolError):
        begin(TlsMode.REQUIRED).received(m.FIXED_FLAGS + m.option(m.EXPORT_NAME, b"disk"))


@pytest.mark.parametrize("security", [TlsMode.REQUIRED, TlsMode.OFF])
@pytest.mark.parametrize("data", [b"bye", bytes(70_000)], ids=["short", "long"])
def test_abort_needs_no_tls_and_takes_any_data(security: TlsMode, data: bytes) -> None:
    handshake = begin(security)
    assert say(handshake, m.FIXED_FLAGS + m.option(m.ABORT, data)) == ["ABORT ACK"]
    assert stage(handshake) is HandshakeState.CLOSED


@pytest.mark.parametrize("security", list(TlsMode))
def test_starttls_with_data_is_invalid(security: TlsMode) -> None:
    """27: and the next option is answered."""
    handshake = begin(security)
    assert say(handshake, m.FIXED_FLAGS + m.option(m.STARTTLS, b"x") + m.option(m.ABORT)) == [
        "STARTTLS ERR_INVALID",
        "ABORT ACK",
    ]


def test_without_tls_starttls_is_not_supported() -> None:
    """27: and nobody is told that TLS is required."""
    handshake = begin(TlsMode.OFF)
    assert say(handshake, m.FIXED_FLAGS + STARTTLS + m.go("no")) == ["STARTTLS ERR_UNSUP", "GO ERR_UNKNOWN"]


def test_a_client_without_fixed_newstyle_cannot_have_tls() -> None:
    """5: it may only choose an export, where that is allowed without TLS."""
    for security in (TlsMode.OFF, TlsMode.OFFERED):
        with pytest.raises(ProtocolError):
            begin(security).received(m.PLAIN_FLAGS + STARTTLS)
        handshake = begin(security)
        said = m.PLAIN_FLAGS + m.option(m.EXPORT_NAME, b"disk")
        assert say(handshake, said, padding=m.PADDING_BYTES) == [f"export {1 << 20}"]
    with pytest.raises(ProtocolError):
        begin(TlsMode.REQUIRED).received(m.PLAIN_FLAGS)


HARMLESS = st.lists(
    st.one_of(
        st.sampled_from([option for name, option in BEFORE_TLS.items() if name != "GO"]),
        st.builds(m.option, st.just(m.STARTTLS), st.binary(min_size=1, max_size=9)),
        st.builds(m.option, st.integers(12, 2**32 - 1), st.binary(max_size=40)),
    ),
    max_size=6,
).map(b"".join)


@given(HARMLESS, HARMLESS, st.sampled_from([TlsMode.OFFERED, TlsMode.REQUIRED]), st.integers(0, 2**32))
def test_cutting_makes_no_difference(clear: bytes, encrypted: bytes, security: TlsMode, seed: int) -> None:
    """On either side of the upgrade; the ends of what TLS hands over are as arbitrary as those of segments."""
    results = []
    for chance in (None, random.Random(seed)):
        handshake = begin(security)
        output = handshake.take_output()
        for said in (m.FIXED_FLAGS + clear + STARTTLS, encrypted + m.go()):
            place = 0
            while place < len(said):
                count = len(said) if chance is None else chance.randint(1, 40)
                hear(handshake, said[place : place + count])
                output += handshake.take_output()
                place += count
            if handshake.state is HandshakeState.UPGRADING:
                handshake.secured(Offers("disk"))
        results.append((b"".join(output), handshake.agreement))
    assert results[0] == results[1]
    assert results[0][1] is not None


def test_every_order_of_three_options_around_starttls_is_answered() -> None:
    """74: whatever came before, after TLS the client is where a new one would be."""
    for order in itertools.product([*BEFORE_TLS.values(), m.option(m.STARTTLS, b"x")], repeat=3):
        for security in (TlsMode.OFFERED, TlsMode.REQUIRED):
            handshake = begin(security)
            if security is TlsMode.OFFERED and m.go() in order:
                continue
            say(handshake, m.FIXED_FLAGS + b"".join(order) + STARTTLS)
            handshake.secured(Offers("disk"))
            fresh = begin(TlsMode.OFFERED)
            said = m.info("disk", 0, 3) + m.list_contexts("disk")
            assert say(handshake, said) == say(fresh, m.FIXED_FLAGS + said), order


def test_an_export_that_cannot_be_attached_now() -> None:
    """GO is told why, EXPORT_NAME cannot be; INFO does not ask."""
    handshake = begin(TlsMode.OFF, "taken", "disk")
    assert say(handshake, m.FIXED_FLAGS + m.info("taken") + m.go("taken")) == [
        "INFO ACK EXPORT",
        "GO ERR_POLICY",
    ]
    with pytest.raises(ProtocolError, match="somebody has it"):
        handshake.received(m.option(m.EXPORT_NAME, b"taken"))
    assert stage(handshake) is HandshakeState.HAGGLING


def test_a_set_that_is_too_long_clears_what_was_selected() -> None:
    """38: a SET_META_CONTEXT that fails for its length is one that failed."""
    handshake = begin(TlsMode.OFF)
    selected = m.option(m.STRUCTURED_REPLY) + m.set_contexts("disk", m.BASE)
    say(handshake, m.FIXED_FLAGS + selected + m.option(m.SET_META_CONTEXT, bytes(70_000)) + m.go())
    assert handshake.agreement is not None
    assert not handshake.agreement.contexts
