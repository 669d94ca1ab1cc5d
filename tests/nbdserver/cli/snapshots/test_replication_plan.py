"""What a replication decides: on all histories of two devices that come about by rounds, crashes and other people."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.cli.shared.exit_status import CommandFailed
from nbdserver.cli.snapshots.replication_plan import (
    TRY_AGAIN_SECONDS,
    Held,
    Round,
    age,
    brought,
    facts,
    failure,
    new_name,
    newest_common,
    own,
    own_prefix,
    passes,
    pause_after,
    sentence,
    unneeded,
)
from storage.errors import Conflict, Corrupt, NotFound, Unavailable, WrongPassword

PREFIX = own_prefix("store", "copy")
OTHER = own_prefix("store", "other")
START = 1_790_000_000.0


@dataclass
class Pair:
    """A device, its replica, and what each of them shows, as the identity of a snapshot; "" is written to since."""

    keep: int
    source: list[Held] = field(default_factory=list)
    target: list[Held] | None = None
    shows: str = ""
    count: int = 0

    def take(self, name: str) -> Held:
        self.count += 1
        self.source.append(Held(name, f"identity {self.count}", START + self.count))
        return self.source[-1]

    def new_name(self, prefix: str) -> str:
        return new_name(prefix, START, [*self.source, *(self.target or [])])

    def tidy(self) -> None:
        here, there = unneeded(self.source, self.target, PREFIX, self.keep)
        self.source = [one for one in self.source if one.name not in here]
        self.target = self.target and [one for one in self.target if one.name not in there]

    def round(self, crash: int) -> None:
        """One that ends after so many of its steps."""
        common = newest_common(self.source, self.target or [])
        if self.target is not None:
            assert common is not None, "the chain is broken"
            shown = next(one.name for one in self.target if one.identity == self.shows)
            assert shown in brought(self.source, self.target, PREFIX)
        if crash == 0:
            return
        here, _ = unneeded(self.source, self.target, PREFIX, self.keep)
        self.source = [one for one in self.source if one.name not in here]
        taken = self.take(self.new_name(PREFIX))
        if crash == 1:
            return
        self.target = [*(self.target or []), taken]
        self.shows = taken.identity
        if crash > 2:
            self.tidy()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("round"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["theirs here", "theirs there", "another one's", "they delete"]), st.integers(0, 9)),
    ),
    max_size=30,
)


@given(STEPS, st.integers(1, 3))
def test_the_chain_holds_and_nothing_piles_up(steps: list[tuple[str, int]], keep: int) -> None:
    pair = Pair(keep)
    others = {"here": set[str](), "there": set[str]()}
    for step, number in steps:
        if step == "round":
            pair.round(number)
        elif step == "theirs here":
            others["here"].add(pair.take(f"theirs-{pair.count}").name)
        elif step == "another one's":
            others["here"].add(pair.take(pair.new_name(OTHER)).name)
        elif step == "theirs there" and pair.target:
            pair.target.append(Held(f"there-{pair.count}-{len(pair.target)}", f"there {len(pair.target)}", START))
            others["there"].add(pair.target[-1].name)
        elif step == "they delete" and others["here"]:
            gone = sorted(others["here"])[number % len(others["here"])]
            others["here"].discard(gone)
            pair.source = [one for one in pair.source if one.name != gone]
        assert others["here"] <= {one.name for one in pair.source}, "of others"
        assert others["there"] <= {one.name for one in pair.target or []}, "of others"
        assert len(own(pair.source, PREFIX)) <= 2, "they pile up"
        assert len(own(pair.target or [], PREFIX)) <= keep + sum(1 for each in steps if each == ("round", 2))
    pair.round(3)
    assert len(own(pair.source, PREFIX)) == 1
    assert len(own(pair.target or [], PREFIX)) <= keep
    common = newest_common(pair.source, pair.target or [])
    assert common is not None
    assert common[1].identity == pair.shows


HELD = st.builds(
    Held,
    st.sampled_from(
        [f"{PREFIX}20261129T05000{n}Z" for n in range(5)] + [f"{OTHER}20261129T050000Z", "mine", "replica-"]
    ),
    st.sampled_from("abcdefg"),
    st.just(START),
)
LISTS = st.lists(HELD, max_size=6, unique_by=(lambda one: one.name, lambda one: one.identity))


@given(LISTS, LISTS, st.integers(1, 3))
def test_what_is_deleted_breaks_nothing(source: list[Held], target: list[Held], keep: int) -> None:
    here, there = unneeded(source, target, PREFIX, keep)
    before = newest_common(source, target)
    left = [one for one in source if one.name not in here], [one for one in target if one.name not in there]
    assert newest_common(*left) == before
    assert all(name.startswith(PREFIX) for name in (*here, *there))
    if before is None:
        assert not here
        assert not there
    assert len(own(left[1], PREFIX)) >= min(keep, len(own(target, PREFIX)))


@given(LISTS, LISTS)
def test_what_a_replica_may_hold(source: list[Held], target: list[Held]) -> None:
    names = brought(source, target, PREFIX)
    common = newest_common(source, target)
    assert len(set(names)) == len(names)
    assert set(names) <= {one.name for one in target}
    if common is not None:
        assert names[0] == common[1].name, "it is looked at first"
    assert "mine" not in names or any(
        one.name == "mine" and one.identity in {s.identity for s in source} for one in target
    )


def test_names_are_their_own() -> None:
    first = Held(new_name(PREFIX, START, []), "a", START)
    second = Held(new_name(PREFIX, START, [first]), "b", START)
    assert first.name != second.name
    assert own([first, second, Held(f"{PREFIX}mine", "c", START), Held("mine", "d", START)], PREFIX) == [first, second]
    assert own([first, second], OTHER) == []
    assert unneeded([first, second], None, PREFIX, 1) == ([first.name, second.name], [])


def test_an_older_one_in_common_stays_where_the_newest_is_gone() -> None:
    older, newest = (Held(f"{PREFIX}20261129T05000{n}Z", str(n), START) for n in range(2))
    assert unneeded([older], [older, newest], PREFIX, 1) == ([], [])
    assert brought([older], [older, newest], PREFIX) == [older.name, newest.name]


def test_what_somebody_took_of_the_replica_was_not_brought() -> None:
    mine = Held("mine", "of the replica", START)
    assert brought([], [mine], PREFIX) == []
    assert brought([Held("mine", "of the device", START)], [mine], PREFIX) == []
    assert brought([Held("another", mine.identity, START)], [mine], PREFIX) == ["mine"]


def test_what_passes_by_itself() -> None:
    assert passes(Unavailable("away"), begun=False)
    assert passes(Conflict("attached"), begun=False)
    assert not passes(NotFound("no device"), begun=False)
    assert passes(NotFound("no device"), begun=True)
    for error in (WrongPassword("x"), Corrupt("x", "y"), CommandFailed("x"), ValueError("x")):
        assert not passes(error, begun=True)


@given(st.floats(1, 1e6), st.floats(0, 1e6), st.booleans())
def test_the_pause(every: float, took: float, failed: bool) -> None:
    pause = pause_after(every, took, failed=failed)
    assert 0 <= pause <= every
    assert pause <= TRY_AGAIN_SECONDS or not failed
    assert pause == 0 or pause + took >= min(every, TRY_AGAIN_SECONDS) * 0.999


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (1e6, "12 d")]
)
def test_an_age(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_what_is_said() -> None:
    done = Round("disk", "copy", "s", START, 2 << 20, 2.0)
    assert (
        sentence(done, START + 3)
        == "copy: as disk was at 2026-09-21 14:13:20+00:00, 2 MiB in 2.0 s (1 MiB/s); 3 s behind"
    )
    assert facts(done, START + 3)["lag_seconds"] == 3
    unchanged = Round("disk", "copy", "s", START, None, 0.0)
    assert sentence(unchanged, START - 3) == "copy: as disk, in which nothing changed; 0 s behind"
    assert facts(unchanged, START)["changed"] is False
    assert failure("copy", "away", None, START) == "away: trying again"
    assert "copy is as of 2026-09-21 14:13:20+00:00, 2 min behind" in failure("copy", "away", START, START + 120)
