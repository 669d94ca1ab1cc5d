"""The manifest: its fields over versions, and what no commit may do."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from storage.errors import BrokenInvariant, Corrupt
from storage.format.blocks import SstRef
from storage.format.manifest import (
    EMPTY,
    WAYS_TO_LOSE_DATA,
    Manifest,
    check_successor,
    check_table,
    checkpointed,
    decode,
    dropped,
    encode,
    flushed,
)
from storage.format.sst_list import SstList
from storage.format.trunks import DropLayer, LoggedOperation

NAME = "manifest/00000000000000000007.manifest"
TABLES = [SstRef(f"01K1JW549K0H0MV3FH28CKBWT{letter}", 1000, 900, bytes(16), 3) for letter in "ABC"]

OLD = Manifest(
    epoch=3,
    takeover=False,
    closed=False,
    replay=40,
    replay_tag=b"t" * 16,
    acknowledged=45,
    sequence=1000,
    ssts=TABLES[:2],
    tree=TABLES[2],
    fences=[5, 30],
    takeovers=[1, 4, 6],
    keys=2,
    lineage=[b"before", b"own"],
)


def changed(**fields: Any) -> Manifest:
    return msgspec.structs.replace(OLD, **fields)


def test_it_comes_back() -> None:
    for manifest in (EMPTY, OLD):
        assert decode(NAME, encode(manifest)) == manifest


def test_fields_that_an_older_writer_did_not_know_are_filled_in() -> None:
    fields = msgspec.msgpack.decode(encode(OLD))
    by_age = ("ssts", "tree", "fences", "takeovers", "keys", "checkpoint", "gone", "operations", "lineage", "identity")
    for count, missing in enumerate(reversed((*by_age, "rekeyed"))):
        old = decode(NAME, msgspec.msgpack.encode(fields[: len(fields) - count - 1]))
        assert getattr(old, missing) == getattr(EMPTY, missing)
        assert old.sequence == OLD.sequence
    with pytest.raises(Corrupt):
        decode(NAME, msgspec.msgpack.encode(fields[:6]))


def test_fields_that_a_later_writer_adds_are_passed_over() -> None:
    fields = msgspec.msgpack.decode(encode(OLD))
    assert decode(NAME, msgspec.msgpack.encode([*fields, {"new": [1, 2]}, "more"])) == OLD


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x90", b"text", msgspec.msgpack.encode({"epoch": 1})])
def test_what_is_no_manifest_is_damage(body: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        decode(NAME, body)
    assert caught.value.object_name == NAME


@pytest.mark.parametrize(
    "new",
    [
        changed(),
        changed(replay=41, acknowledged=46, sequence=1001, fences=[5, 30, 38], keys=3, ssts=TABLES, closed=True),
        changed(epoch=4, takeover=True, takeovers=[1, 4, 6, 8]),
        changed(tree=TABLES[1]),
        changed(lineage=[b"own"]),
        changed(epoch=4, takeover=True, lineage=[b"next"]),
        changed(epoch=4, takeover=True, identity=b"another"),
        changed(epoch=4, takeover=True, lineage=[b"before", b"own", b"next"]),
    ],
)
def test_what_a_commit_may_do(new: Manifest) -> None:
    check_successor(OLD, new)


@pytest.mark.parametrize(
    ("new", "story"),
    [
        (changed(replay=39), "replay point"),
        (changed(sequence=999), "sequence goes back"),
        (changed(acknowledged=44), "acknowledged number"),
        (changed(fences=[5]), "drops a fence"),
        (changed(takeovers=[1, 4]), "drops a take-over"),
        (changed(ssts=TABLES[:1]), "drops an SST"),
        (changed(ssts=[*TABLES[:2], TABLES[0]]), "lists an SST twice"),
        (changed(epoch=4), "epoch"),
        (changed(epoch=2), "epoch"),
        (changed(takeover=True), "epoch"),
        (changed(epoch=5, takeover=True), "epoch"),
        (changed(keys=1), "keys"),
        (changed(lineage=[b"earlier", b"before", b"own"]), "nothing was lost"),
        (changed(lineage=[b"before"]), "nothing was lost"),
        (changed(lineage=[]), "nothing was lost"),
        (changed(tree=None), "tree of names"),
        (changed(identity=b"another"), "another store"),
    ],
)
def test_what_no_commit_may_do(new: Manifest, story: str) -> None:
    with pytest.raises(BrokenInvariant, match=story):
        check_successor(OLD, new)
    assert sum(loses(OLD, new) for loses, _ in WAYS_TO_LOSE_DATA) == 1, "each way has one name"


def test_a_checkpoint_adds_each_table_once_and_begins_no_epoch() -> None:
    taken = changed(epoch=4, takeover=True)
    make: Callable[..., Manifest] = flushed
    new = make(
        taken,
        closed=True,
        replay=50,
        replay_tag=b"n" * 16,
        acknowledged=52,
        sequence=2000,
        ssts=[TABLES[1], TABLES[2], TABLES[2]],
        tree=None,
        fences=[5, 30, 47],
        keys=2,
        operations=[],
    )
    check_successor(taken, new)
    assert new.ssts == TABLES
    assert new.tree == OLD.tree, "an unchanged tree stays"
    assert (new.takeover, new.closed, new.epoch, new.replay) == (False, True, 4, 50)


def done_at(*sequences: int) -> list[LoggedOperation]:
    return [LoggedOperation(sequence, DropLayer(sequence)) for sequence in sequences]


def test_a_checkpoint_takes_off_what_it_holds_and_nothing_that_came_since() -> None:
    old = changed(closed=True, gone=[1], ssts=[TABLES[1], TABLES[2]], operations=done_at(10, 20, 21))
    new = checkpointed(old, ref=TABLES[0], table=SstList.of(TABLES[:2]), sequence=20)
    assert (new.ssts, new.gone, new.operations) == ([TABLES[2]], [], done_at(21))
    assert not new.closed, "who commits serves"
    check_successor(old, new)


def test_a_checkpoint_holds_what_the_one_before_did_but_for_what_is_gone() -> None:
    old = changed(gone=[1])
    check_table(old, SstList.of(TABLES[:2]), SstList.of(TABLES[1:]))
    with pytest.raises(BrokenInvariant, match="does not hold"):
        check_table(old, SstList.of(TABLES[:2]), SstList.of([TABLES[2]]))


def test_only_what_a_checkpoint_holds_is_dropped_and_once() -> None:
    old = changed(ssts=[TABLES[2]], gone=[1])
    table = SstList.of(TABLES[:2])
    assert dropped(old, table=table, ids={TABLES[1].id}).gone == [1, 2]
    for wrong in (TABLES[0], TABLES[2]):
        with pytest.raises(BrokenInvariant, match="rows no checkpoint holds"):
            dropped(old, table=table, ids={TABLES[1].id, wrong.id})


@pytest.mark.parametrize("sequences", [(20, 10), (10, OLD.sequence + 1)])
def test_what_was_done_to_trunks_is_listed_in_order_and_not_before_it_is_done(sequences: tuple[int, ...]) -> None:
    check_successor(OLD, changed(operations=done_at(10, 20, OLD.sequence)))
    with pytest.raises(BrokenInvariant, match="not in order"):
        check_successor(OLD, changed(operations=done_at(*sequences)))
