"""What a store answers when it is asked for a listing, and what it is asked for next."""

from xml.etree.ElementTree import ParseError

import pytest

from storage.objects.list_pages import EMPTY_PAGES_MAX, ListPage, list_pages

SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def answer(*items: str, more: str = "<IsTruncated>false</IsTruncated>", space: str = SPACE) -> bytes:
    contents = "".join(f"<Contents>{item}</Contents>" for item in items)
    return f"<ListBucketResult{space}><Name>b</Name>{more}{contents}</ListBucketResult>".encode()


def item(key: str, size: str = "5") -> str:
    return f"<Key>{key}</Key><Size>{size}</Size>"


@pytest.mark.parametrize("space", ["", SPACE])
def test_a_page_says_key_size_and_time(space: str) -> None:
    found = answer(
        "<Key>a+b</Key><LastModified>2026-01-02T03:04:05.500Z</LastModified><ETag>x</ETag><Size>7</Size>",
        item("c%2Fd"),
        space=space,
    )
    page = ListPage.parse(found)
    assert page == ListPage([("a+b", 7, 1767323045.5), ("c%2Fd", 5, None)], truncated=False, token="")
    quoted = answer(item("a+b"), item("c%2Fd"), more="<EncodingType>url</EncodingType>", space=space)
    assert [key for key, _, _ in ListPage.parse(quoted).found] == ["a b", "c/d"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"<html></html>",
        b"<Error><Code>x</Code></Error>",
        b"<ListBucketResult></ListBucketResult>",
        answer(item(""), space=""),
        answer("<Key>a</Key>"),
        answer("<Size>5</Size>"),
        answer(item("a", "five")),
        answer("<Key>a</Key><Size>5</Size><LastModified>yesterday</LastModified>"),
        answer(more="<IsTruncated>true</IsTruncated>"),
        answer(item("a"))[:-9],
    ],
)
def test_what_is_no_page_is_not_believed(wrong: bytes) -> None:
    with pytest.raises((ValueError, ParseError)):
        ListPage.parse(wrong)


@pytest.mark.parametrize(
    ("token", "then"),
    [("<NextContinuationToken>t/1</NextContinuationToken>", {"continuation-token": "t/1"}), ("", {"start-after": "b"})],
)
def test_the_next_page_begins_where_this_one_ends(token: str, then: dict[str, str]) -> None:
    asked: list[dict[str, str]] = []
    answers = [
        answer(item("a"), item("b"), more=f"<IsTruncated>true</IsTruncated>{token}"),
        answer(item("c")),
    ]

    def ask(query: dict[str, str]) -> bytes:
        asked.append(dict(query))
        return answers[len(asked) - 1]

    pages = list(list_pages(ask, "", "0"))
    assert [[key for key, _, _ in page.found] for page in pages] == [["a", "b"], ["c"]]
    both = ("start-after", "continuation-token")
    assert [{name: query[name] for name in both if name in query} for query in asked] == [{"start-after": "0"}, then]


def test_a_listing_that_goes_on_without_names_ends() -> None:
    """A store that has deleted much may give some pages without names; one that gives nothing else is ill."""
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    empty, asked = answer(more=more), 0

    def ask(_: dict[str, str]) -> bytes:
        nonlocal asked
        asked += 1
        return answer(item("a"), more=more) if asked == EMPTY_PAGES_MAX else empty

    with pytest.raises(ValueError, match="goes on and on"):
        list(list_pages(ask, "", ""))
    assert asked == 2 * EMPTY_PAGES_MAX + 1
