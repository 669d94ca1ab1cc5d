"""A damaged store gives an error, never wrong data: a folder store with every kind of object, end to end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.tampering import Damage, StoreAtRest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FLIPS = 24
"""In every test run; `python -m tests.crash.tampering` does as many as one likes."""


@pytest.fixture
def at_rest(work: Path) -> Iterator[StoreAtRest]:
    store = StoreAtRest(work, seed=20261124)
    yield store
    store.server.close()


def survive(at_rest: StoreAtRest, damages: list[Damage]) -> dict[str, set[str]]:
    """Do each damage to the whole store in turn; returns which effects each kind of object showed."""
    effects: dict[str, set[str]] = {}
    for damage in damages:
        damage.do()
        try:
            effect = at_rest.effect()
        except AssertionError as error:
            pytest.fail(f"{damage.name}, {damage.what}: {error}", pytrace=False)
        effects.setdefault(damage.name.split("/")[0], set()).add(effect.kind)
        at_rest.restore()
    return effects


def judge(effects: dict[str, set[str]]) -> None:
    """What is there once is missed; keys and newest manifest have a copy each, which stands in for them."""
    for kind in ("wal", "compacted"):
        assert effects[kind] - {"none"}, f"no damage to any object under {kind}/ was noticed"
    for kind in ("keys", "manifest", "spare"):
        assert effects[kind] == {"none"}, f"damage to an object under {kind}/ was not survived"


def test_every_kind_of_object_is_there_and_undamaged_all_is_right(at_rest: StoreAtRest) -> None:
    kinds = {name.split("/")[0] for name in at_rest.objects()}
    assert kinds == {"keys", "manifest", "spare", "wal", "compacted"}
    assert at_rest.effect().kind == "none"


def test_flipped_bits(at_rest: StoreAtRest) -> None:
    effects = survive(at_rest, list(at_rest.flips(FLIPS)))
    judge(effects)


def test_cut_lost_and_exchanged_objects(at_rest: StoreAtRest) -> None:
    effects = survive(at_rest, list(at_rest.cuts_losses_and_swaps()))
    judge(effects)
