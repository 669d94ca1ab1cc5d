"""Sizes and stores as people write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.config import (
    KEEP_PERIODS,
    format_size,
    locate,
    parse_duration,
    parse_keep,
    parse_request_budget,
    parse_size,
)
from storage.env import RealEnv
from storage.fs.snapshots import retention
from storage.objects.locations import open_location


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("10GiB", 10 << 30),
        ("10G", 10 << 30),
        ("10g", 10 << 30),
        ("1.5TiB", 3 << 39),
        (" 64 MiB ", 64 << 20),
        ("1P", 1 << 50),
        ("0.5K", 512),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "10GB",
        "10 gigabytes",
        "-1",
        "1e9",
        "0x10",
        "1.1",
        "0.3K",
        "\u0661\u0660G",
        "1,5G",
        "10\u212a",
        "9" * 21,
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|whole number"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), (" 4 W ", 2419200)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "7", "d", "0d", "-1d", "1.5h", "7 days", "1h30m", "1y", "9999999s", "\u0661d", "10\u017f"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="length of time"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "999999d", "999999w"])
def test_what_is_too_long(text: str) -> None:
    assert parse_duration("36500d") == 36500 * 86400
    with pytest.raises(ValueError, match="36500d"):
        parse_duration(text)


def test_schedules() -> None:
    assert parse_keep("hourly=24,daily=7") == {"hourly": 24, "daily": 7}
    assert parse_keep(" yearly = 1 ") == {"yearly": 1}
    assert list(retention.PERIODS) == list(KEEP_PERIODS)


@pytest.mark.parametrize(
    "text",
    ["", "hourly", "hourly=", "hourly=0", "hourly=-1", "hourly=1.5", "hourly=1,", "hourly=1,hourly=2", "often=3"],
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match="no schedule"):
        parse_keep(text)


@pytest.mark.parametrize(
    ("text", "requests"),
    [("5M/month", 5 * 10**6), (" 800k ", 800_000), ("5000000", 5 * 10**6), ("2 g/MONTH", 2 * 10**9), ("1/month", 1)],
)
def test_budgets_of_requests(text: str, requests: int) -> None:
    assert parse_request_budget(text) == requests


@pytest.mark.parametrize("text", ["", "0", "-1", "M", "5M/day", "5M/", "1.5M", "5MiB", "1e6", "\u0665", "9" * 13])
def test_what_is_no_budget_of_requests(text: str) -> None:
    with pytest.raises(ValueError, match="no budget of requests"):
        parse_request_budget(text)


@given(st.integers(0, 2**60))
def test_plain_bytes_are_exact(size: int) -> None:
    assert parse_size(str(size)) == size


def test_sizes_for_people() -> None:
    assert [format_size(size) for size in (0, 512, 1023, 1024, 10 << 30, 3 << 39, (1 << 50) - 262144)] == [
        "0 B",
        "512 B",
        "1023 B",
        "1 KiB",
        "10 GiB",
        "1.5 TiB",
        "1024 TiB",
    ]


def test_one_folder_has_one_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to("a b")
    monkeypatch.chdir(tmp_path)
    ways = [
        "a b",
        "./a b/",
        str(tmp_path / "a b"),
        f"file://{tmp_path}/a%20b",
        "link",
        f"file://localhost{tmp_path}/link",
    ]
    assert {locate(way, {}) for way in ways} == {(tmp_path / "a b").as_uri()}


@pytest.mark.parametrize(
    ("store", "environ"),
    [
        ("s3://bucket/some/prefix", {}),
        ("s3://bucket/some/prefix/", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "https://b/"}),
        ("s3://bucket/p?endpoint=http://127.0.0.1:1", {"AWS_ENDPOINT_URL": "http://a"}),
        ("memory://", {}),
    ],
)
def test_a_location_is_what_the_store_calls_itself(
    store: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    env = RealEnv()
    located = locate(store, environ)
    assert open_location(store, env).url == located
    assert locate(located, {"AWS_ENDPOINT_URL": "http://another"}) == located or not environ
    env.close()


@pytest.mark.parametrize(
    "store", ["", "gopher://x", "file://host/x", "s3:///x", "s3://[b/x", "s3://b\u2100/x", "http://["]
)
def test_what_is_no_store_is_left_for_opening_to_refuse(store: str) -> None:
    assert locate(store, {}) == store
