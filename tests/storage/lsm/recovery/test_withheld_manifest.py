"""The newest manifest, or the keys, cannot be read though they are there (archived, denied, a bad sector): their copy
stands in for them, as where they are damaged; and for a manifest that may be gone nothing does.
"""

import asyncio

import pytest

from storage.errors import AccessDenied, StorageError, Unavailable
from storage.format.names import SPARES, manifest_name
from tests.simulation.virtual import virtually
from tests.storage.lsm.recovery.sample_store import Sample, make, shown
from tests.storage.lsm.worlds import World, durable

DATA = b"acknowledged" * 100


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return asyncio.run(make(tmp_path_factory.mktemp("state"), compacted=False))


@pytest.mark.parametrize("error", [AccessDenied("it is archived"), Unavailable("a sector is bad")])
@pytest.mark.parametrize("part", ["keys/", "manifest/"])
@virtually
async def test_what_is_withheld_is_read_from_its_copy(sample: Sample, part: str, error: StorageError) -> None:
    """And nothing older where that is withheld too: then it is refused, for what the store says of the object."""
    name = max(name for name in sample.objects if name.startswith(part))
    copy = SPARES + name.partition("/")[2]
    for writer in (False, True):
        world = World()
        world.store.objects.update(sample.objects | sample.copies)
        world.store.deny("get", name, error)
        assert await shown(world, writer=writer) == sample.truth
    for denied in (AccessDenied("the copy"), Unavailable("the copy"), None):
        world = World()
        world.store.objects.update(sample.objects | sample.copies)
        world.store.deny("get", name, error)
        if denied is None:
            del world.store.objects[copy]
        else:
            world.store.deny("get", copy, denied)
        with pytest.raises(type(error), match=str(error)):
            await shown(world, writer=False)


@virtually
async def test_a_manifest_that_may_be_gone_is_not_taken_for_withheld() -> None:
    """It is denied, and not listed: whether its number is free nobody knows, so nothing may rest on its copy."""
    world = World()
    engine, layer = await world.start()
    layer.write(0, DATA)
    await durable(engine, layer)
    await engine.copies.settled()
    name = manifest_name(engine.manifests.number)
    await world.crash(engine)
    del world.store.objects[name]
    world.store.deny("get", name, AccessDenied("no"))
    world.store.deny("head", name, AccessDenied("no"))
    with pytest.raises(AccessDenied):
        await world.open()
