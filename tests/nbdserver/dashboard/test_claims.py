"""What the dashboard says of the safety of data: never good without evidence, red for each fault, grey for what is not
known."""

from typing import Any

import msgspec
import pytest

from nbdserver.dashboard.claims import SILENCE_SECONDS_MAX, SafetyClaim, Seen, claims, verdict
from storage import Store

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture
async def status(store: Store) -> dict[str, Any]:
    """That of a store where all is well."""
    found: dict[str, Any] = msgspec.to_builtins(store.status())
    return {**found, "wal_acknowledged": 4711, "epoch": 3, "uptime_seconds": 9999.0, "sole_writer_at": NOW - 4}


def seen(status: dict[str, Any], **more: Any) -> Seen:
    reads = {
        "last_read": [{"since": "within 7 days", "ssts": 61, "bytes": 61}, {"since": "never", "ssts": 39, "bytes": 39}]
    }
    usual = {
        "answered": {"head": NOW - 4, "create": NOW - 1},
        "reads": {**reads, "oldest": NOW - 12 * DAY, "damaged": [], "at": NOW - 20},
        "scrub_days": 30.0,
        "snapshots": {"count": 2, "newest": NOW - 3600, "at": NOW - 15},
    }
    return Seen(now=NOW, store=status, **{**usual, **more})


def by_name(found: list[SafetyClaim]) -> dict[str, SafetyClaim]:
    return {claim.name: claim for claim in found}


def words(claim: SafetyClaim) -> str:
    """What it says, with what the page puts in its reader's words as numbers."""
    parts = [*claim.says, " | ", *claim.evidence]
    return "".join(part if isinstance(part, str) else "<{}={:.0f}>".format(*next(iter(part.items()))) for part in parts)


def test_all_is_well_with_its_evidence(status: dict[str, Any]) -> None:
    found = by_name(claims(seen(status)))
    assert list(found) == ["durable", "writer", "answers", "sound", "snapshots"]
    assert {claim.state for claim in found.values()} == {"good"}
    assert words(found["durable"]) == f"durable to <time={NOW:.0f}>, <age={NOW:.0f}> | by wal/4711; nothing waits"
    assert words(found["writer"]) == f"epoch 3 | looked for a newer writer <age={NOW - 4:.0f}>"
    assert words(found["answers"]) == f"memory:// | it answered a create <age={NOW - 1:.0f}>"
    assert words(found["sound"]).startswith(
        f"read check: 61 %, oldest part <seconds={12 * DAY:.0f}> | <bytes=61> of <bytes=100>"
    )
    assert (found["writer"].at, found["answers"].at, found["sound"].at) == (NOW - 4, NOW - 1, NOW - 20)
    assert all(claim.red and claim.at is not None and claim.stale_seconds > 0 for claim in found.values())
    assert verdict(found.values()) == "good"


REQUEST = {"request": "put", "name": "wal/5", "since": NOW - 99, "reason": "no"}
WITHHELD = {"name": "compacted/B.sst", "since": NOW, "reason": "archived", "ranges": []}

FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "old writes": ({"unlogged_seconds": 31.0, "unlogged_bytes": 4096}, "durable", "<bytes=4096> written since"),
    "a store that fails": ({"failing": {"since": NOW - 9, "reason": "gone"}}, "answers", "gone"),
    "a store that fails, and durability": ({"failing": {"since": NOW - 9, "reason": "gone"}}, "durable", "durable to"),
    "one request": ({"failing_requests": [REQUEST]}, "answers", "wal/5"),
    "deletion": ({"garbage": {"objects": 3, "since": NOW - 99, "reason": "denied"}}, "answers", "denied"),
    "damage": ({"damaged": ["compacted/A.sst: no frame opens"]}, "sound", "compacted/A.sst"),
    "loss": ({"lost": ["wal/7 is gone", "wal/8 is gone"]}, "sound", "wal/7 is gone, and 1 more"),
    "refusal": ({"unreadable": [WITHHELD]}, "sound", "compacted/B.sst"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_red_and_says_so(status: dict[str, Any], fault: str) -> None:
    change, name, sentence = FAULTS[fault]
    found = by_name(claims(seen({**status, **change})))
    assert found[name].state == "bad"
    assert sentence in words(found[name])
    assert found[name].at == NOW, "it is not grey, however old the good evidence is"
    assert verdict(found.values()) == "bad"


def test_writes_under_way_are_no_fault(status: dict[str, Any]) -> None:
    durable = by_name(claims(seen({**status, "unlogged_seconds": 0.4, "unlogged_bytes": 9000})))["durable"]
    assert durable.state == "good"
    assert words(durable).startswith(f"durable to <time={NOW - 0.4:.0f}>")
    assert "not durable yet, the oldest for <seconds=0>" in words(durable)


def test_without_evidence_nothing_is_good(status: dict[str, Any]) -> None:
    status["sole_writer_at"] = None
    found = by_name(claims(seen(status, answered={}, reads=None, snapshots=None)))
    assert {name: claim.state for name, claim in found.items()} == {
        "durable": "good",  # its evidence is this very look
        "writer": "unknown",
        "answers": "unknown",
        "sound": "unknown",
        "snapshots": "unknown",
    }
    assert all(found[name].at is None for name in ("writer", "answers", "sound", "snapshots"))
    assert verdict(found.values()) == "unknown"


def test_that_nobody_else_writes_is_seen_by_no_other_request(status: dict[str, Any]) -> None:
    """A HEAD of the log, or of an object that is gone, is answered whoever has the store."""
    status["sole_writer_at"] = NOW - 500
    writer = by_name(claims(seen(status, answered={"head": NOW - 1, "list": NOW - 1})))["writer"]
    assert writer.at == NOW - 500
    status["sole_writer_at"] = None
    assert by_name(claims(seen(status, answered={"head": NOW - 1})))["writer"].state == "unknown"


def test_what_a_silent_store_answered_long_ago_says_nothing(status: dict[str, Any]) -> None:
    """The page shows a claim grey whose evidence is older than it may be: it must be told when that was."""
    status["sole_writer_at"] = NOW - 100
    found = by_name(claims(seen(status, answered={"head": NOW - 100})))
    for name in ("writer", "answers"):
        assert found[name].at == NOW - 100
        assert found[name].stale_seconds == SILENCE_SECONDS_MAX


def test_data_that_was_not_read_for_long_is_grey(status: dict[str, Any]) -> None:
    reads = {
        "last_read": [{"since": "longer ago", "ssts": 1, "bytes": 9}],
        "damaged": [],
        "at": NOW,
        "oldest": NOW - 46 * DAY,
    }
    assert by_name(claims(seen(status, reads=reads)))["sound"].state == "unknown"
    assert by_name(claims(seen(status, reads={**reads, "oldest": NOW - 44 * DAY})))["sound"].state == "good"
    assert by_name(claims(seen(status, reads={**reads, "oldest": NOW}, scrub_days=0.0)))["sound"].state == "unknown"
    nothing = {"last_read": [], "damaged": [], "at": NOW, "oldest": None}
    assert "nothing to read" in words(by_name(claims(seen(status, reads=nothing)))["sound"])


def test_a_schedule_that_takes_none_is_red(status: dict[str, Any]) -> None:
    none = {"count": 0, "newest": None, "at": NOW}
    old = {"count": 1, "newest": NOW - 3 * 3600, "at": NOW}
    hourly = {"snapshot_seconds": 3600.0}
    assert by_name(claims(seen(status, snapshots=none)))["snapshots"].state == "unknown"
    assert by_name(claims(seen(status, snapshots=none, **hourly)))["snapshots"].state == "bad"
    assert (
        by_name(claims(seen({**status, "uptime_seconds": 60.0}, snapshots=none, **hourly)))["snapshots"].state
        == "unknown"
    )
    assert by_name(claims(seen(status, snapshots=old)))["snapshots"].state == "good"
    assert by_name(claims(seen(status, snapshots=old, **hourly)))["snapshots"].state == "bad"


def test_a_follower_says_how_old_its_view_is(status: dict[str, Any]) -> None:
    view = {"as_of": NOW - 3, "age_seconds": 3.0, "older": 0, "collected": 0, "reason": "", "missing": ""}
    found = by_name(claims(seen({**status, "view": view})))
    assert "durable" not in found
    assert "writer" not in found
    assert found["view"].state == "good"
    assert words(found["view"]).startswith(f"a view of <time={NOW - 3:.0f}>")
    for fault in ({"reason": "it does not answer"}, {"collected": 1}, {"missing": "it is gone"}):
        assert by_name(claims(seen({**status, "view": {**view, **fault}})))["view"].state == "bad"


@pytest.mark.parametrize(("days", "state"), [(20.0, "good"), (7.1, "good"), (6.9, "bad"), (-1.0, "bad")])
def test_a_certificate_that_ends_soon(status: dict[str, Any], days: float, state: str) -> None:
    until = NOW + days * DAY
    claim = by_name(claims(seen(status, certificate={"path": "/tls/server-cert.pem", "until": until})))["certificate"]
    assert (claim.state, claim.at) == (state, NOW)
    says = f"valid for <seconds={days * DAY:.0f}>" if days > 0 else f"expired <age={until:.0f}>"
    assert words(claim) == f"{says} | /tls/server-cert.pem, as it was read last, until <time={until:.0f}>"
