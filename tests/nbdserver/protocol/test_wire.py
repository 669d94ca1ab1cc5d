"""The sizes that the receive buffer counts on."""

from nbdserver.protocol import wire
from nbdserver.protocol.transmission import ADOPT_BYTES_MIN, BUFFER_BYTES, DISCARD_BYTES_MAX


def test_the_headers_have_the_size_of_the_specification() -> None:
    assert (wire.REQUEST_BYTES, wire.EXTENDED_REQUEST_BYTES) == (28, 32)


def test_the_receive_buffer_holds_what_is_not_adopted() -> None:
    assert BUFFER_BYTES >= 2 * (wire.EXTENDED_REQUEST_BYTES + ADOPT_BYTES_MIN)


def test_a_refused_write_of_any_valid_length_is_answered() -> None:
    assert DISCARD_BYTES_MAX > wire.PAYLOAD_BYTES_MAX
