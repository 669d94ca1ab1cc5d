"""The proven protocol breaks no promise in any state within small bounds, and each planted mistake does."""

from collections.abc import Iterable
from typing import Any

import pytest

from tests.model.explore import explore
from tests.model.rules import Bounds, Rules
from tests.model.writer import Writer

SECONDS = 300.0
"""Ends a search that would not; the longest takes 5 s on a quiet machine."""


def bounds(*writes: int, **more: Any) -> Bounds:
    """As many sessions as there are numbers of writes; what is not said does not happen."""
    for name in ("retries", "flushes", "sweeps"):
        more[name] = (*more.get(name, ()), *[0] * (len(writes) - len(more.get(name, ()))))
    return Bounds(writes=writes, **more)


PROVEN = {
    "log, lost and delayed PUTs": bounds(2, 1, retries=(1,)),
    "log and flush": bounds(2, 1, flushes=(1,)),
    "locators and sweeps": bounds(1, 1, flushes=(1,), sweeps=(0, 1), bulk=frozenset({(0, 1)})),
    "three writers": bounds(1, 0, 0, flushes=(0, 1)),
    "partial copies": bounds(2, 1, flushes=(1, 1), copies=True),
    "partial copies of three writers": bounds(1, 1, 0, flushes=(1,), copies=True),
}

COPIES = bounds(2, 1, flushes=(1, 1), copies=True)

MISTAKES: dict[str, tuple[Rules, Bounds]] = {
    "fences are deleted with the log they end": (Rules(keep_fences=False), bounds(2, 0, flushes=(0, 1))),
    "no fence, only the epoch of the manifest": (Rules(fence="none"), bounds(2, 1)),
    "fence above the highest number": (Rules(fence="top"), bounds(2, 1)),
    "fence chosen before the take-over manifest": (Rules(early=True), bounds(2, 0, flushes=(1,))),
    "opening not verified after the fence": (Rules(verify=False), bounds(2, 1, 1, flushes=(0, 0, 1))),
    "the log goes on right behind the fence": (Rules(jump=1), bounds(2, 2)),
    "acknowledged out of order": (Rules(ack_in_order=False), bounds(2, 1)),
    "a taken name counts as success": (Rules(on_412="ok"), bounds(2, 1)),
    "replay jumps over a gap": (Rules(replay_gap="skip"), bounds(2, 1)),
    "the log is deleted before the commit": (Rules(delete="before"), bounds(2, 0, flushes=(1,))),
    "a take-over that loses does not read the winner": (Rules(rebase=False), bounds(2, 1, flushes=(1,))),
    "the sweep takes every unknown object": (Rules(sweep="any"), bounds(1, 1, flushes=(0, 1), sweeps=(1,))),
    "the sweep forgets the locators of the log": (
        Rules(sweep="nolocator"),
        bounds(1, 0, sweeps=(0, 1), bulk=frozenset({(0, 1)})),
    ),
    "a locator before its SST": (Rules(locator_after_upload=False), bounds(1, 0, bulk=frozenset({(0, 1)}))),
    "a flush does not list the SSTs of its locators": (
        Rules(flush_names_locators=False),
        bounds(1, 0, flushes=(1,), bulk=frozenset({(0, 1)})),
    ),
    "a store without a manifest is an empty one": (Rules(needs_manifest=False), COPIES),
    "what nothing names is an orphan": (Rules(orphans_log=False), COPIES),
    "an SST knows only what the last manifest knew": (Rules(header="manifest"), COPIES),
    "an orphan's log is believed to go on behind a fence": (
        Rules(fences_end=False),
        bounds(1, 1, 0, flushes=(1,), copies=True),
    ),
}


LONG = (
    "partial copies of three writers",
    "opening not verified after the fence",
    "an orphan's log is believed to go on behind a fence",
)
"""What takes more than a few seconds."""


def named(cases: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in cases]


@pytest.mark.parametrize("name", named(PROVEN))
def test_the_protocol_keeps_its_promises(name: str) -> None:
    verdict = explore(Writer(Rules(), PROVEN[name]), seconds=SECONDS)
    assert verdict.violation is None, "\n".join([*verdict.trace, str(verdict.violation)])
    assert verdict.complete, f"{verdict.states} states were not all"


@pytest.mark.parametrize("name", named(MISTAKES))
def test_a_mistake_is_found(name: str) -> None:
    verdict = explore(Writer(*MISTAKES[name]), seconds=SECONDS)
    assert verdict.violation is not None, f"nothing is wrong in {verdict.states} states"
