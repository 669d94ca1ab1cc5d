"""What is left of a store whose data is missing: all that can be read is right, and where the newest is not known,
nothing is read.
"""

import pytest

from storage.cache.frame_cache import FrameCache
from storage.check.survey import survey
from storage.errors import Corrupt, StorageError
from storage.fs.check import readable_view
from storage.lsm.engine import Engine
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.wiring import Context
from tests.storage.check.damaged import checkpoint_of, log_needed, maintained, tables, unmerged_in
from tests.storage.check.test_damage import sectors_of
from tests.storage.check.test_survey import subject
from tests.storage.lsm.compaction.test_jobs import SECTOR, SIZE
from tests.storage.lsm.worlds import KEY, Layers, World, read


async def left(world: World) -> tuple[dict[int, bytes], set[int]]:
    """The sectors of layer 1 that can be read, and those that a check says cannot be."""
    surveyed = await survey(subject(world))
    opened = readable_view(surveyed, Ciphers.derive(KEY))
    tree = Layers()
    if surveyed.tree_image is not None:
        tree.load(surveyed.tree_image)
    context = Context(
        opened,
        world.store,
        world.store,
        KEY,
        tree,
        world.env,
        world.options,
        None,
        surveyed.sst_numbers,
        FrameCache(world.options.cache_bytes),
        True,
    )
    engine = await Engine.on_damaged(context, 1)
    found = {}
    for sector in range(SIZE // SECTOR):
        try:
            found[sector] = await read(engine.layers[1], sector * SECTOR, SECTOR)
        except StorageError:
            continue
    return found, sectors_of(surveyed.findings.all)


async def test_what_is_left_is_right_and_the_rest_is_said() -> None:
    world = await maintained()
    whole, bad = await left(world)
    assert len(whole) == SIZE // SECTOR
    assert not bad
    lost = 0
    others = await unmerged_in(world) | {await checkpoint_of(world)}
    reader = await world.open(read_only=True)
    listed = {f"compacted/{ref.id}.sst" for ref in reader.manifests.listed()}
    for name in sorted(listed - others):
        kept = world.store.objects.pop(name)
        found, bad = await left(world)
        assert all(whole[sector] == data for sector, data in found.items())
        # What the log has written over it can be read all the same.
        assert set(whole) - set(found) <= bad
        lost += len(whole) - len(found)
        world.store.objects[name] = kept
    assert lost


async def test_where_the_newest_is_not_known_nothing_is_read() -> None:
    world = await maintained()
    unmerged = await unmerged_in(world)
    assert unmerged
    newest = max(name for name in tables_and_manifests(world) if name.startswith("manifest/"))
    first_of_log = min(await log_needed(world) - fences(world))
    del world.store.objects[newest.replace("manifest/", "spare/")]
    for name in (*unmerged, await checkpoint_of(world), newest, first_of_log):
        kept = world.store.objects[name]
        world.store.objects[name] = kept[:-1] + bytes([kept[-1] ^ 1])
        with pytest.raises(Corrupt, match="nobody can tell old data from new"):
            await left(world)
        world.store.objects[name] = kept


def tables_and_manifests(world: World) -> list[str]:
    return tables(world.store.objects) + world.store.names("manifest/")


def fences(world: World) -> set[str]:
    return {name for name in world.store.names("wal/") if world.store.objects[name][10] == 4}
