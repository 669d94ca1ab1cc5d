"""STARTTLS as the handshake sees it: what is told before TLS, what stops it, and that nothing said in clear
survives it."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.protocol import wire
from nbdserver.protocol.handshake import OPTIONS_MAX, Handshake, TlsMode
from nbdserver.protocol.states import HandshakeState
from nbdserver.protocol.wire import ProtocolError
from tests.nbdserver.protocol.test_handshake import Offer, Offers, hear
from tests.support.speech import BASE, FIXED, FIXED_NO_ZEROES, PLAIN, contexts, go, info, opt, read_answers

STARTTLS = opt(wire.OPT_STARTTLS)


def begin(security: TlsMode, *names: str) -> Handshake[Offer]:
    return Handshake(Offers(*(names or ("disk",))), security=security)


def say(handshake: Handshake[Offer], data: bytes) -> list[str]:
    """The answers to this, greeting left out."""
    before = b"".join(handshake.take_output())
    greeting = before if before else wire.GREETING.pack(wire.NBDMAGIC, wire.IHAVEOPT, 3)
    hear(handshake, data)
    return read_answers(greeting + b"".join(handshake.take_output()))


def stage(handshake: Handshake[Offer]) -> HandshakeState:
    return handshake.state


@pytest.mark.parametrize("security", [TlsMode.OFFERED, TlsMode.REQUIRED])
def test_starttls_hands_the_connection_over(security: TlsMode) -> None:
    handshake = begin(security)
    assert say(handshake, FIXED + STARTTLS) == ["STARTTLS: ACK"]
    assert stage(handshake) is HandshakeState.UPGRADING
    assert say(handshake, opt(wire.OPT_LIST)) == []
    handshake.secured(Offers("disk", "secret"))
    assert stage(handshake) is HandshakeState.HAGGLING
    assert say(handshake, opt(wire.OPT_LIST)) == ["LIST: SERVER disk", "LIST: SERVER secret", "LIST: ACK"]
    assert say(handshake, STARTTLS) == ["STARTTLS: ERR_INVALID"]
    assert say(handshake, go("secret")) == ["GO: INFO_EXPORT", "GO: ACK"]
    assert stage(handshake) is HandshakeState.TRANSMISSION


def test_nothing_that_was_negotiated_in_clear_survives() -> None:
    """31: neither the kind of replies, nor contexts, nor which exports there are; the client's flags do."""
    handshake = begin(TlsMode.OFFERED, "disk", "old")
    said = opt(wire.OPT_STRUCTURED_REPLY) + contexts(wire.OPT_SET_META_CONTEXT, "disk", BASE) + STARTTLS
    say(handshake, FIXED_NO_ZEROES + said)
    handshake.secured(Offers("disk"))
    assert say(handshake, go("old") + contexts(wire.OPT_LIST_META_CONTEXT, "disk")) == [
        "GO: ERR_UNKNOWN",
        "LIST_META_CONTEXT: ERR_INVALID",
    ]
    assert say(handshake, opt(wire.OPT_EXPORT_NAME, b"disk")) == [f"export {1 << 20}"]
    agreement = handshake.agreement
    assert agreement is not None
    assert not agreement.structured
    assert not agreement.block_status


@pytest.mark.parametrize("behind", [b"\x16", opt(wire.OPT_LIST), go(), b"\x16\x03\x01"])
@pytest.mark.parametrize("security", [TlsMode.OFFERED, TlsMode.REQUIRED])
def test_bytes_in_clear_behind_starttls_end_the_connection(security: TlsMode, behind: bytes) -> None:
    """30: they might pass for bytes that came through TLS."""
    handshake = begin(security)
    with pytest.raises(ProtocolError):
        handshake.received(FIXED + STARTTLS + behind)
    assert read_answers(b"".join(handshake.take_output())) == []


def test_bytes_that_come_while_tls_is_awaited_are_left_alone() -> None:
    handshake = begin(TlsMode.OFFERED)
    say(handshake, FIXED + STARTTLS)
    assert handshake.received(go())
    handshake.secured(Offers("disk"))
    assert handshake.take_rest() == b""
    assert say(handshake, b"") == []
    assert stage(handshake) is HandshakeState.HAGGLING


BEFORE_TLS = {
    "LIST": opt(wire.OPT_LIST),
    "INFO": info(wire.OPT_INFO, "disk", 3),
    "GO": go(),
    "STRUCTURED_REPLY": opt(wire.OPT_STRUCTURED_REPLY),
    "EXTENDED_HEADERS": opt(wire.OPT_EXTENDED_HEADERS),
    "LIST_META_CONTEXT": contexts(wire.OPT_LIST_META_CONTEXT, "disk"),
    "SET_META_CONTEXT": contexts(wire.OPT_SET_META_CONTEXT, "disk", BASE),
    "99": opt(99, b"payload"),
    "98": opt(98, bytes(100_000)),
}


def test_before_tls_nothing_is_told() -> None:
    """28, 29: every option is answered that TLS comes first, its data consumed; no export is looked up."""
    offers = Offers("disk")
    handshake = Handshake(offers, security=TlsMode.REQUIRED)
    answers = say(handshake, FIXED + b"".join(BEFORE_TLS.values()))
    assert answers == [f"{name}: ERR_TLS_REQD" for name in BEFORE_TLS]
    assert offers.found == []
    assert stage(handshake) is HandshakeState.UNSECURED
    assert say(handshake, STARTTLS) == ["STARTTLS: ACK"]


def test_before_tls_the_number_of_options_says_nothing_of_the_exports() -> None:
    handshake = begin(TlsMode.REQUIRED, *(f"export-{number}" for number in range(100)))
    hear(handshake, FIXED + opt(99) * OPTIONS_MAX)
    with pytest.raises(ProtocolError):
        hear(handshake, opt(99))


def test_export_name_before_tls_ends_the_connection() -> None:
    """29: there is no way to tell the client why."""
    with pytest.raises(ProtocolError):
        begin(TlsMode.REQUIRED).received(FIXED + opt(wire.OPT_EXPORT_NAME, b"disk"))


def test_abort_needs_no_tls() -> None:
    handshake = begin(TlsMode.REQUIRED)
    assert say(handshake, FIXED + opt(wire.OPT_ABORT, b"bye")) == ["ABORT: ACK"]
    assert stage(handshake) is HandshakeState.CLOSED


@pytest.mark.parametrize("security", list(TlsMode))
def test_starttls_with_data_is_invalid(security: TlsMode) -> None:
    """27: and the next option is answered."""
    handshake = begin(security)
    assert say(handshake, FIXED + opt(wire.OPT_STARTTLS, b"x") + opt(wire.OPT_ABORT)) == [
        "STARTTLS: ERR_INVALID",
        "ABORT: ACK",
    ]


def test_without_tls_starttls_is_not_supported() -> None:
    """27: and nobody is told that TLS is required."""
    handshake = begin(TlsMode.OFF)
    assert say(handshake, FIXED + STARTTLS + go("no")) == ["STARTTLS: ERR_UNSUP", "GO: ERR_UNKNOWN"]


def test_a_client_without_fixed_newstyle_cannot_have_tls() -> None:
    """5: it may only choose an export, where that is allowed without TLS."""
    for security in (TlsMode.OFF, TlsMode.OFFERED):
        with pytest.raises(ProtocolError):
            begin(security).received(PLAIN + STARTTLS)
        handshake = begin(security)
        assert say(handshake, PLAIN + opt(wire.OPT_EXPORT_NAME, b"disk")) == [f"export {1 << 20} padded"]
    with pytest.raises(ProtocolError):
        begin(TlsMode.REQUIRED).received(PLAIN)


HARMLESS = st.lists(
    st.one_of(
        st.sampled_from([option for name, option in BEFORE_TLS.items() if name != "GO"]),
        st.builds(opt, st.just(wire.OPT_STARTTLS), st.binary(min_size=1, max_size=9)),
        st.builds(opt, st.integers(12, 2**32 - 1), st.binary(max_size=40)),
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
        for said in (FIXED + clear + STARTTLS, encrypted + go()):
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
    for order in itertools.product([*BEFORE_TLS.values(), opt(wire.OPT_STARTTLS, b"x")], repeat=3):
        for security in (TlsMode.OFFERED, TlsMode.REQUIRED):
            handshake = begin(security)
            if security is TlsMode.OFFERED and go() in order:
                continue
            say(handshake, FIXED + b"".join(order) + STARTTLS)
            handshake.secured(Offers("disk"))
            fresh = begin(TlsMode.OFFERED)
            said = info(wire.OPT_INFO, "disk", 0, 3) + contexts(wire.OPT_LIST_META_CONTEXT, "disk")
            assert say(handshake, said) == say(fresh, FIXED + said), order


def test_an_export_that_cannot_be_attached_now() -> None:
    """GO is told why, EXPORT_NAME cannot be; INFO does not ask."""
    handshake = begin(TlsMode.OFF, "taken", "disk")
    assert say(handshake, FIXED + info(wire.OPT_INFO, "taken") + go("taken")) == [
        "INFO: INFO_EXPORT",
        "INFO: ACK",
        "GO: ERR_POLICY",
    ]
    with pytest.raises(ProtocolError, match="somebody has it"):
        handshake.received(opt(wire.OPT_EXPORT_NAME, b"taken"))
    assert stage(handshake) is HandshakeState.HAGGLING


def test_a_set_that_is_too_long_clears_what_was_selected() -> None:
    """38: a SET_META_CONTEXT that fails for its length is one that failed."""
    handshake = begin(TlsMode.OFF)
    selected = opt(wire.OPT_STRUCTURED_REPLY) + contexts(wire.OPT_SET_META_CONTEXT, "disk", BASE)
    say(handshake, FIXED + selected + opt(wire.OPT_SET_META_CONTEXT, bytes(70_000)) + go())
    assert handshake.agreement is not None
    assert not handshake.agreement.block_status
