"""What changed since a snapshot, beside what devices hold: never less, and no more than what was written."""

import random
from typing import NoReturn

import pytest

from storage.errors import NotFound
from storage.format.frame import BLOCK_BYTES, SECTOR_BYTES
from storage.fs.devices.device import Device
from storage.fs.metadata.inode_table import InodeTable
from storage.lsm.index.page import PAGE_BLOCKS
from storage.lsm.read.changed import COMPARED_AT_ONCE, LOOKUPS_AT_ONCE, PAGES_COMPARED_AT_ONCE
from tests.storage.fs.places import Place
from tests.storage.fs.snapshots.test_snapshots import SIZE, Disks
from tests.support.examples import first_soon


def said(device: Device, snapshot: str) -> set[int]:
    """The sectors of a device that are said to have changed."""
    changes, found, offset = device.history.since(snapshot), set[int](), 0
    while offset < device.size:
        for length, flags in changes.extents(offset, device.size - offset):
            if flags:
                found |= set(range(offset // SECTOR_BYTES, -(-(offset + length) // SECTOR_BYTES)))
            offset += length
    return found


def differing(one: bytearray, other: bytearray) -> set[int]:
    sectors = range(0, max(len(one), len(other)), SECTOR_BYTES)
    return {at // SECTOR_BYTES for at in sectors if one[at : at + SECTOR_BYTES] != other[at : at + SECTOR_BYTES]}


def check(disks: Disks) -> None:
    """Between any two of what there is of a device, in both directions."""
    for name, content in disks.held.items():
        device = disks.store.device(name)
        own = name.partition("@")[0]
        assert device.history.snapshots() == [
            other.partition("@")[2] for other in disks.held if other.startswith(f"{own}@") and other != name
        ]
        for snapshot in device.history.snapshots():
            assert differing(disks.held[f"{own}@{snapshot}"], content) <= said(device, snapshot), (name, snapshot)


@pytest.mark.parametrize("seed", first_soon(range(8)))
async def test_never_less_than_what_changed(place: Place, seed: int) -> None:
    disks = Disks(place, await place.open(create=True))
    chance = disks.draw = random.Random(seed)
    await disks.create("a")
    names: list[str] = []
    for number in range(40):
        what = chance.choice(["write", "zero", "flush", "snapshot", "roll", "delete", "compact", "reopen"])
        if what == "write":
            disks.write("a", 5)
        elif what == "zero":
            start = chance.randrange(SIZE // SECTOR_BYTES) * SECTOR_BYTES
            disks.zero("a", start, chance.choice([SECTOR_BYTES, SIZE - start]))
        elif what == "flush":
            await disks.store.maintenance.flush()
        elif what == "snapshot":
            names.append(f"s{number}")
            await disks.snapshot(names[-1], "a")
        elif what == "roll" and names:
            name = chance.choice(names)
            await disks.store.snapshots.roll_back("a", name, keep=False)
            disks.held["a"] = bytearray(disks.held[f"a@{name}"])
        elif what == "delete" and names:
            name = names.pop(chance.randrange(len(names)))
            await disks.store.snapshots.delete("a", name)
            del disks.held[f"a@{name}"]
        elif what == "compact":
            await disks.store.maintenance.flush()
            await disks.store.maintenance.compact_step(None)
        elif what == "reopen":
            await disks.reopen()
        check(disks)
    await disks.store.close()


async def test_what_was_not_written_did_not_change(place: Place) -> None:
    disks = Disks(place, await place.open(create=True))
    await disks.create("a")
    disks.write("a", 30)
    await disks.snapshot("one", "a")
    device = disks.store.device("a")
    assert said(device, "one") == set()
    device.write(5 * SECTOR_BYTES, b"x" * SECTOR_BYTES)
    device.write(7 * SECTOR_BYTES + 100, b"x")
    for _ in range(2):
        assert said(device, "one") == {5, 7}
        await disks.store.maintenance.flush()
    device.zero(100 * SECTOR_BYTES, SECTOR_BYTES, allocated=False)
    assert said(device, "one") >= {5, 7, 100}
    device.zero(4 * BLOCK_BYTES, 3 * BLOCK_BYTES, allocated=False)
    assert said(device, "one") >= set(range(4 * 64, 7 * 64))
    await disks.store.close()


async def test_what_changed_after_a_newer_snapshot_too(place: Place) -> None:
    disks = Disks(place, await place.open(create=True))
    await disks.create("a")
    device = disks.store.device("a")
    for number in range(4):
        device.write(number * BLOCK_BYTES, b"x" * SECTOR_BYTES)
        await disks.snapshot(f"s{number}", "a")
    assert [said(device, f"s{number}") for number in range(4)] == [{64, 128, 192}, {128, 192}, {192}, set()]
    assert said(disks.store.device("a@s1"), "s3") == {128, 192}
    assert said(disks.store.device("a@s3"), "s1") == {128, 192}
    await disks.store.close()


async def test_of_many_blocks_it_is_said_in_parts(place: Place) -> None:
    disks = Disks(place, await place.open(create=True))
    blocks = 2 * COMPARED_AT_ONCE + 10
    await disks.create("a", blocks * BLOCK_BYTES)
    await disks.snapshot("one", "a")
    device = disks.store.device("a")
    for block in range(blocks):
        device.write(block * BLOCK_BYTES + SECTOR_BYTES, b"x" * SECTOR_BYTES)
    first = device.history.since("one").extents(0, device.size)
    assert sum(length for length, _ in first) == COMPARED_AT_ONCE * BLOCK_BYTES
    want = {block * 64 + 1 for block in range(blocks)}
    for _ in range(2):
        assert said(device, "one") == want
        await disks.store.maintenance.flush()
    await disks.store.close()


async def test_of_many_pages_too(place: Place) -> None:
    store = await place.open(create=True)
    page = PAGE_BLOCKS * BLOCK_BYTES
    await store.create_device("a", 2 * PAGES_COMPARED_AT_ONCE * page)
    device = store.device("a")
    written = [number * page + BLOCK_BYTES for number in range(2 * PAGES_COMPARED_AT_ONCE)]
    for offset in written:
        device.write(offset, b"y" * BLOCK_BYTES)
    await store.snapshots.create(["a"], "one")
    for offset in (*written[::2], written[1]):
        device.write(offset, b"x" * BLOCK_BYTES)
    # Patches of the head alone, of both, and of the snapshot alone.
    device.write(written[3] + SECTOR_BYTES, b"x" * SECTOR_BYTES)
    await store.maintenance.flush()
    await store.snapshots.create(["a"], "two")
    device.write(written[3] + 2 * SECTOR_BYTES, b"x" * SECTOR_BYTES)
    for offset in (written[5], written[-1]):
        device.write(offset, b"x" * BLOCK_BYTES)
    await store.maintenance.flush()
    sectors = [set(range(offset // SECTOR_BYTES, (offset + BLOCK_BYTES) // SECTOR_BYTES)) for offset in written]
    third = written[3] // SECTOR_BYTES
    late = sectors[5] | sectors[-1]
    assert said(device, "two") == late | {third + 2}
    assert said(store.device("a@two"), "one") == set().union(sectors[1], *sectors[::2]) | {third + 1}
    assert said(device, "one") == set().union(sectors[1], late, *sectors[::2]) | {third + 1, third + 2}
    first = device.history.since("one").extents(0, device.size)
    assert sum(length for length, _ in first) == PAGES_COMPARED_AT_ONCE * page
    await store.close()


async def test_pages_that_did_not_change_are_passed_over_in_parts(place: Place) -> None:
    """One answer is bounded work, however large the disk is and however many snapshots lie in between."""
    disks = Disks(place, await place.open(create=True))
    page = PAGE_BLOCKS * BLOCK_BYTES
    await disks.store.create_device("a", 2 * LOOKUPS_AT_ONCE * page)
    device = disks.store.device("a")
    await disks.store.snapshots.create(["a"], "one")
    last = device.size - SECTOR_BYTES
    for count, name in enumerate(("two", "three", None), 1):
        for offset in (0, last):
            device.write(offset, b"x" * SECTOR_BYTES)
        first = device.history.since("one").extents(page, device.size - page)
        assert sum(length for length, _ in first) == -(-LOOKUPS_AT_ONCE // count) * page
        assert said(device, "one") == {0, last // SECTOR_BYTES}
        if name is not None:
            await disks.store.snapshots.create(["a"], name)
    await disks.store.close()


async def test_as_many_blocks_as_are_compared_in_one_call(place: Place) -> None:
    disks = Disks(place, await place.open(create=True))
    await disks.create("a", (COMPARED_AT_ONCE + 1) * BLOCK_BYTES)
    await disks.snapshot("one", "a")
    device = disks.store.device("a")
    for block in range(COMPARED_AT_ONCE):
        device.write(block * BLOCK_BYTES, b"x" * SECTOR_BYTES)
    for _ in range(2):
        assert sum(length for length, _ in device.history.since("one").extents(0, device.size)) == device.size
        assert said(device, "one") == {block * 64 for block in range(COMPARED_AT_ONCE)}
        await disks.store.maintenance.flush()
    await disks.store.close()


async def test_of_zeros_in_memory_each_block_is_asked_for_by_itself(place: Place) -> None:
    """As clients ask who copy a part of a disk."""
    disks = Disks(place, await place.open(create=True))
    await disks.create("a")
    disks.write("a", 10)
    await disks.snapshot("one", "a")
    device = disks.store.device("a")
    device.zero(2 * BLOCK_BYTES, 3 * BLOCK_BYTES, allocated=False)
    changes = device.history.since("one")
    for block in range(1, 6):
        ((length, differs),) = changes.extents(block * BLOCK_BYTES, BLOCK_BYTES)
        assert (length, bool(differs)) == (BLOCK_BYTES, 2 <= block < 5), block
    await disks.store.close()


async def test_other_disks_are_not_looked_at(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: of 1,000 disks with 60 snapshots each, all were gone through for each client that connected."""

    def refuse(_: InodeTable) -> NoReturn:
        raise AssertionError

    disks = Disks(place, await place.open(create=True))
    for name in "ab":
        await disks.create(name)
        for snapshot in ("one", "two", "three"):
            await disks.snapshot(snapshot, name)
    await disks.store.snapshots.delete("a", "two")
    with monkeypatch.context() as patched:
        patched.setattr(InodeTable, "trunks", refuse)
        found = {name: disks.store.device(name).history.snapshots() for name in ("a", "a@one", "a@three", "b@two")}
    assert found == {"a": ["one", "three"], "a@one": ["three"], "a@three": ["one"], "b@two": ["one", "three"]}
    await disks.store.close()


async def test_a_snapshot_that_is_gone_and_another_of_its_name(place: Place) -> None:
    disks = Disks(place, await place.open(create=True))
    await disks.create("a")
    await disks.snapshot("one", "a")
    device = disks.store.device("a")
    since = device.history.since("one")
    device.write(0, b"x" * SECTOR_BYTES)
    await disks.store.snapshots.delete("a", "one")
    await disks.store.snapshots.create(["a"], "one")
    with pytest.raises(NotFound, match="was deleted"):
        since.extents(0, SECTOR_BYTES)
    assert said(device, "one") == set()
    with pytest.raises(NotFound, match="no snapshot named 'two'"):
        device.history.since("two")
    await disks.store.close()
