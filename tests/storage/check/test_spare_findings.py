"""What a check says of the copies: a fault that costs no data, as long as of an object and its copy one is sound."""

import asyncio

import pytest

from storage.check.findings import Finding, Kind
from storage.check.subject import Subject
from storage.check.survey import survey
from storage.crypto import keys
from storage.crypto.keys import keys_name
from storage.crypto.keyslots import Cost
from storage.crypto.spare_keys import spare_keys_name
from storage.format.names import manifest_name, spare_manifest_name
from tests.simulation.virtual import in_virtual_time, virtually
from tests.storage.lsm.worlds import Layers, World

COST = Cost.for_tests()


class Place:
    """A store at rest, with keys."""

    async def make(self, age: float = 0.0) -> None:
        """Everything was written so many seconds ago."""
        self.world = World()
        self.world.now = self.world.env.wall_clock() - age
        self.key = await keys.create(self.world.store, b"password", self.world.env, COST)
        engine = await self.world.open(key=self.key)
        await engine.close()
        number = engine.manifests.number
        self.manifest, self.copy = manifest_name(number), spare_manifest_name(number)
        self.keys, self.keys_copy = keys_name(1), spare_keys_name(1)

    async def found(self) -> list[Finding]:
        subject = Subject(self.world.store, self.key, 1, self.world.env, Layers, options=self.world.options)
        return (await survey(subject)).findings.all


@pytest.fixture
async def place() -> Place:
    made = Place()
    await made.make(3600)
    assert await made.found() == []
    return made


@pytest.mark.parametrize("content", [b"damaged", b"", None])
async def test_one_of_the_two_damaged_is_a_fault(place: Place, content: bytes | None) -> None:
    objects = place.world.store.objects
    for name, kind in (
        (place.manifest, Kind.MANIFEST),
        (place.copy, Kind.COPY),
        (place.keys, Kind.KEYS),
        (place.keys_copy, Kind.COPY),
    ):
        sound = objects.pop(name)
        if content is not None:
            objects[name] = content
        found = await place.found()
        assert [(each.kind, each.object, each.fault) for each in found] == [(kind, name, True)], name
        objects[name] = sound


async def test_both_damaged_is_none(place: Place) -> None:
    objects = place.world.store.objects
    for name, copy, kind in (
        (place.manifest, place.copy, Kind.MANIFEST),
        (place.keys, place.keys_copy, Kind.KEYS),
    ):
        sound = objects[name]
        objects[name], objects[copy] = sound[:-1], sound[:-2]
        first = (await place.found())[0]
        assert (first.kind, first.object, first.fault) == (kind, name, False)
        objects[name] = objects[copy] = sound


async def test_every_copy_is_accounted_for(place: Place) -> None:
    objects = place.world.store.objects
    for old in ("spare/00000000000000000001.manifest", "spare/00000000000000000000.keys"):
        objects[old] = b"old"
    subject = Subject(place.world.store, place.key, 1, place.world.env, Layers, options=place.world.options)
    accounts = (await survey(subject)).findings.accounts
    assert accounts["copies"].objects == 2
    assert accounts["copies"].bytes == len(objects[place.copy]) + len(objects[place.keys_copy])
    assert accounts["waiting to be deleted"].objects == 1


@pytest.mark.parametrize(("age", "seconds"), [(0.0, 3.1), (3600.0, 0.1)])
def test_a_copy_is_waited_for_only_where_its_writer_may_just_have_won_the_manifest(age: float, seconds: float) -> None:
    async def case() -> None:
        place = Place()
        await place.make(age)
        del place.world.store.objects[place.copy]
        began = asyncio.get_running_loop().time()
        assert [each.object for each in await place.found()] == [place.copy]
        assert asyncio.get_running_loop().time() - began == pytest.approx(seconds, abs=0.01)

    in_virtual_time(case())


@virtually
async def test_one_that_comes_a_little_later_is_no_fault() -> None:
    place = Place()
    await place.make()
    copy = place.world.store.objects.pop(place.copy)
    looking = asyncio.ensure_future(place.found())
    await asyncio.sleep(2)
    place.world.store.objects[place.copy] = copy
    assert await looking == []
