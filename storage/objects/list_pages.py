"""Listings, page by page: what is asked of an S3 store for one, and what its answer says. No I/O of its own.

The client's own parser makes an object of a dozen fields for each name, at 40 us, of which a listing needs three:
65,000 names, as many as a terabyte has SSTs, took 2.5 s of processor there and take a tenth of that here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree

PAGE_MAX = 1000
"""Names in one answer: more are not given, whatever is asked for."""

EMPTY_PAGES_MAX = 100
"""Pages in a row without a name, of a listing that goes on: some stores give them where much was deleted. Each has its
own deadline, so without a limit such a listing could go on for ever.
"""


@dataclass(frozen=True, slots=True)
class ListPage:
    """One answer."""

    found: list[tuple[str, int, float | None]]
    """Key, bytes, and when it was put there, in seconds since 1970, if the store says so."""
    truncated: bool
    """Whether there is more."""
    token: str
    """What the next page is asked for with; nothing: the last key."""

    @classmethod
    def parse(cls, answer: bytes) -> "ListPage":
        """ValueError, ParseError: it is no listing."""
        root = ElementTree.fromstring(answer)
        space = root.tag.removesuffix("ListBucketResult")
        if space == root.tag or root.find(f"{space}Name") is None:
            raise ValueError("a listing was answered with something else")
        is_quoted = root.findtext(f"{space}EncodingType") == "url"
        key, size, modified = f"{space}Key", f"{space}Size", f"{space}LastModified"
        found = []
        for item in root.iterfind(f"{space}Contents"):
            name, length = item.findtext(key), item.findtext(size)
            if not name or length is None:
                raise ValueError("a listing shows an object without a name or a size")
            found.append((unquote_plus(name) if is_quoted else name, int(length), _seconds(item.findtext(modified))))
        truncated = (root.findtext(f"{space}IsTruncated") or "").lower() == "true"
        token = root.findtext(f"{space}NextContinuationToken") or ""
        if truncated and not token and not found:
            raise ValueError("a listing goes on, and does not say where")
        return cls(found, truncated, token)


def list_pages(ask: Callable[[dict[str, str]], bytes], prefix: str, start_after: str) -> Iterator[ListPage]:
    """The pages of a listing of all keys with `prefix` that come after `start_after`; `ask` sends a query."""
    query = {
        "list-type": "2",
        "delimiter": "",
        "encoding-type": "url",
        "max-keys": str(PAGE_MAX),
        "prefix": prefix,
        **({"start-after": start_after} if start_after else {}),
    }
    empty = 0
    while True:
        page = ListPage.parse(ask(query))
        empty = 0 if page.found else empty + 1
        if empty > EMPTY_PAGES_MAX:
            raise ValueError(f"a listing goes on and on, and the last {empty} pages had no name")
        yield page
        if not page.truncated:
            return
        query.pop("continuation-token" if page.token == "" else "start-after", None)
        query |= {"continuation-token": page.token} if page.token else {"start-after": page.found[-1][0]}


def _seconds(moment: str | None) -> float | None:
    return datetime.fromisoformat(moment).timestamp() if moment else None
