"""What is wrong with a store is said, each thing of it, and nothing of a store that is well."""

from typing import Any

import pytest

from nbdserver.service.condition import moment, problems, standing_by, summary, waits_for

MIB = 1 << 20
WELL: dict[str, Any] = {
    "failing": None,
    "failing_requests": [],
    "unlogged_seconds": 0.0,
    "unlogged_bytes": 0,
    "lost": [],
    "damaged": [],
    "unreadable": [],
    "kept_bytes": 0,
    "view": None,
    "uncopied": [],
    "unkept": [],
    "untaken": [],
    "garbage": {"objects": 0, "since": None, "reason": ""},
    "devices": 2,
    "flushing": None,
}
FAILS = {"request": "list", "name": "wal/", "since": 5.0, "reason": "it is busy"}
MISSING = {"name": "compacted/1.sst", "since": 7.0, "reason": "it is withheld", "ranges": []}
ALONE = {"name": "manifest/3", "since": 9.0, "reason": "no room"}
UNTAKEN = {"device": "disk", "since": 9.0, "reason": "it is torn"}
VIEW = {"as_of": 4.0, "age_seconds": 90.0, "older": 0, "collected": 0, "reason": "", "missing": ""}
"""Of a server that follows another one."""


def test_a_store_that_is_well_has_no_problems() -> None:
    assert problems(WELL) == []
    assert summary(WELL, 3) == "2 devices, 3 connections; everything durable"
    young = WELL | {"unlogged_bytes": MIB, "unlogged_seconds": 2.0}
    assert problems(young) == []
    assert summary(young, 3) == "2 devices, 3 connections; 1 MiB not durable yet, the oldest for 2 s"
    assert problems(WELL | {"view": VIEW}) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"failing": FAILS}, ["the store fails since", "it is busy"]),
        ({"failing_requests": [FAILS]}, ["wal/ cannot be listed since", "it is busy"]),
        (
            {"unlogged_bytes": MIB, "unlogged_seconds": 31.0},
            ["1 MiB not durable yet, the oldest for 31 s", "it is lost"],
        ),
        ({"lost": ["a.sst is gone"]}, ["a.sst is gone"]),
        ({"damaged": ["a.sst is torn"]}, ["a.sst is torn", "--read-data"]),
        ({"unreadable": [MISSING]}, ["compacted/1.sst cannot be read since", "it is withheld"]),
        ({"kept_bytes": MIB}, ["1 MiB cannot leave the log"]),
        ({"untaken": [UNTAKEN]}, ["the schedule takes no snapshot of disk since", "it is torn"]),
        ({"unkept": ["this host cannot keep a thing"]}, ["this host cannot keep a thing"]),
        ({"uncopied": [ALONE]}, ["manifest/3 has no sound copy since", "no room"]),
        ({"garbage": {"objects": 4, "since": 8.0, "reason": "denied"}}, ["4 objects", "cannot be deleted", "denied"]),
        ({"view": VIEW | {"collected": 1}}, ["its reads fail"]),
        ({"view": VIEW | {"reason": "it is away"}}, ["90 s old: it is away"]),
        ({"view": VIEW | {"missing": "the log is gone"}}, ["the log is gone"]),
    ],
)
def test_each_thing_that_is_wrong_is_said(wrong: dict[str, Any], said: list[str]) -> None:
    (sentence,) = problems(WELL | wrong)
    assert all(words in sentence for words in said), sentence
    assert summary(WELL | wrong, 3) == sentence, "and before all that is well"


def test_of_several_the_first_is_said_and_how_many_more_there_are() -> None:
    wrong = WELL | {"lost": ["a is gone", "b is gone"], "uncopied": [ALONE, ALONE]}
    assert len(problems(wrong)) == 4
    assert summary(wrong, 3) == "a is gone (and 3 more: nbdserver status)"


def test_who_waits_is_told_what_for() -> None:
    assert waits_for(WELL) == "waiting for the store"
    waiting = WELL | {"unlogged_bytes": MIB, "unlogged_seconds": 2.0, "flushing": "a manifest", "failing": FAILS}
    assert waits_for(waiting | {"failing_requests": [FAILS]}).split("; ") == [
        "1 MiB not durable yet, the oldest for 2 s",
        "waiting for a manifest",
        f"the store fails since {moment(5.0)}: it is busy",
        f"wal/ cannot be listed since {moment(5.0)}: it is busy",
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"reason": "it is away"}, "beside epoch 7, and cannot look: it is away"),
        ({"basis": "lock", "epoch": 0}, "beside process 12 of this host (epoch 0), which lives"),
        ({"epoch": 0}, "has not found the writer yet"),
        ({"basis": "nothing"}, "takes the store only when that is closed"),
        ({}, "1.5 s without a sign of life, of 30.0 s after which it takes the store"),
    ],
)
def test_who_stands_by_says_beside_whom_and_what_that_rests_on(found: dict[str, Any], said: str) -> None:
    beside = {"reason": "", "basis": "signs", "epoch": 7, "writer_pid": 12, "silent_seconds": 1.5}
    assert said in standing_by(beside | {"patience_seconds": 30.0} | found)
