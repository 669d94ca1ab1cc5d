"""Operations as they travel: what is none is refused as that, whatever it is."""

import msgspec
import pytest

from nbdserver.admin.operations import decode_operation

DEEP = b"[" * 60_000 + b"]" * 60_000


@pytest.mark.parametrize("around", [b"", b"{}", b"%s", b'{"type":"flush","more":%s}', b'{"type":%s}'])
def test_what_is_no_operation(around: bytes) -> None:
    """Lists in lists, too, which end a parser before they end."""
    with pytest.raises(msgspec.MsgspecError):
        decode_operation(around.replace(b"%s", DEEP))
