"""What a server of pages answers that is in the store's place for a moment, with all the marks of S3 on it."""

import pytest

from storage.errors import Unavailable
from storage.objects.s3 import S3Store
from tests.storage.objects.calls import ask
from tests.storage.objects.stubs import StubServer, http


@pytest.fixture(autouse=True)
def aws(aws: None) -> None:
    """Nothing of this machine's own set-up, for all tests here."""


@pytest.mark.parametrize("operation", ["create", "put", "get", "range", "head"])
@pytest.mark.parametrize("kind", ["text/html", "Text/HTML; charset=utf-8"])
async def test_a_page_with_the_marks_of_s3_is_not_believed(
    s3: S3Store, stub: StubServer, operation: str, kind: str
) -> None:
    """Servers of pages have ETags too, and give parts of a page to whoever asks for a range."""
    part = {"head": (b"<", "bytes 0-0/612"), "range": (bytes(20), "bytes 10-29/612")}.get(operation)
    page = b"<html>we are back soon</html>" if part is None else part[0]
    ranged = {} if part is None else {"Content_Range": part[1]}
    stub.answer(http(200 if part is None else 206, page, Content_Type=kind, ETag='W/"5f-x"', **ranged))
    with pytest.raises(Unavailable, match=r"not S3: .*page"):
        await ask(s3, operation)


async def test_a_write_is_confirmed_by_no_body_of_any_kind(s3: S3Store, stub: StubServer) -> None:
    stub.answer(http(200, b'{"status": "starting"}', Content_Type="application/json", ETag='"5f"'))
    with pytest.raises(Unavailable, match="not S3: a write was answered with a page"):
        await s3.create("wal/1", b"data")
