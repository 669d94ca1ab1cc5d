"""An engine opened and looked at: what it shows of each layer, by both ways to ask."""

import asyncio
import random
import re
from collections.abc import Iterable

from storage.cache.frame_cache import FrameCache
from storage.check.findings import Kind
from storage.check.running import held
from storage.check.subject import Subject
from storage.check.survey import Surveyed, survey
from storage.crypto import keys
from storage.errors import StorageError
from storage.fs.devices.device import Device
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.engine import Engine
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.recovery.take_over import Opener
from storage.lsm.recovery.view import Frames, ViewAhead
from storage.objects.base import ObjectStore
from storage.objects.counting import RequestStats
from storage.objects.retry import RetryingStore
from tests.simulation.actors import check_extents
from tests.simulation.attached import joined
from tests.simulation.damage import WAIT_SECONDS, Damage
from tests.simulation.disk_history import BLOCK_BYTES, Image, Violation
from tests.simulation.env import SimEnv
from tests.simulation.host import HostView, SimFiles
from tests.simulation.keyring import COST, KEY, PASSWORD
from tests.simulation.oracle import Oracle, View
from tests.simulation.profile import Profile
from tests.simulation.tree import Tree
from tests.support.inside import engine_of, env_of, objects_of

OPEN_SECONDS = 30.0
RUN_BLOCKS = 4

LACKS_COPY = re.compile("has no copy|it is missing: without it damage to keys/")


async def open_engine(
    client: ObjectStore,
    env: SimEnv,
    profile: Profile,
    *,
    host: HostView | None = None,
    take_over: bool = False,
    read_only: bool = False,
    journal: SimFiles | None = None,
    ahead: ViewAhead | None = None,
) -> tuple[Store, Tree]:
    """Open the store as `storage.fs.opening._open` does; with the key given, where that is never rotated."""
    cache = FrameCache(profile.options.cache_bytes)
    patient = RetryingStore(client, env, None, hedge_seconds_min=profile.hedge_seconds_min)
    opening = patient.with_deadline(OPEN_SECONDS)
    key, number, old_keys = KEY, 1, list[str]()
    if profile.rotations:
        key, number = await keys.load(opening, PASSWORD, env, COST)
        old_keys = [] if read_only else await keys.replaced(opening, key, number, COST)
    tree = Tree()
    engine = await Engine.open(
        store=patient,
        opening_store=opening,
        single_store=patient.once(),
        key=key,
        keys_number=number,
        tree=tree,
        env=env,
        options=profile.options,
        host=host,  # type: ignore[arg-type]
        take_over=take_over,
        read_only=read_only,
        journal=journal,
        frames=None if ahead is None else Frames(ahead.sst_numbers, cache, ahead),
    )
    engine.garbage.add(old_keys)
    store = Store(
        objects=patient,
        stats=RequestStats(),
        engine=engine,
        tree=tree,
        env=env,
        options=StoreOptions(engine=profile.options, cost=COST),
        created=False,
    )
    return store, tree


async def read_ahead(client: ObjectStore, env: SimEnv, profile: Profile) -> ViewAhead | None:
    """What a store says now, as `storage.fs.opening.view_ahead` reads it while somebody else writes it; None: it cannot
    be had.
    """
    objects = RetryingStore(client, env, OPEN_SECONDS, hedge_seconds_min=profile.hedge_seconds_min)
    frames = Frames(SstNumbers(), FrameCache(profile.options.cache_bytes))
    try:
        key, number = await keys.load(objects, PASSWORD, env, COST) if profile.rotations else (KEY, 1)
        return await Opener(objects, key, number, env, None, frames, profile.options).view_ahead()
    except StorageError:
        return None


def complain(where: str, found: Surveyed) -> None:
    """Violation: a check found something, though nothing is damaged. A crash right behind a commit leaves a manifest,
    or keys, without a copy.
    """
    wrong = [each for each in found.findings.all if each.kind is not Kind.COPY or not LACKS_COPY.search(each.sentence)]
    if wrong:
        first = wrong[0]
        raise Violation(f"a check of {where} finds {first.kind}: {first.object}: {first.sentence} {first.ranges[:3]}")


async def check_memory(store: Store, profile: Profile) -> None:
    """Violation: what a writer has in memory is not what its store says, or that is not whole."""
    engine = engine_of(store)
    async with held(engine.compactor.context) as moment:
        objects = objects_of(store).with_deadline(OPEN_SECONDS)
        key, number = engine.key, engine.keys_number
        found = await survey(Subject(objects, key, number, env_of(store), Tree, moment=moment, options=profile.options))
    complain("a running writer", found)


async def look(store: Store, tree: Tree, oracle: Oracle, chance: random.Random, damage: Damage | None = None) -> View:
    """Everything a store shows: the tree, and every block that anybody ever wrote, and some others."""
    devices = tree.shape()
    contents = {}
    lost: dict[int, set[int]] = {}
    for name, (layer, size) in devices.items():
        blocks: set[int] = set()
        for session in oracle.sessions:
            if layer in session.disks:
                blocks |= session.disks[layer].blocks()
        blocks |= {0, 7, 4096, (size - 1) // BLOCK_BYTES}
        found = await _read_blocks(store.device(name), layer, sorted(blocks), damage)
        contents[layer] = {block: data for block, data in found.items() if data is not None}
        lost[layer] = {block for block, data in found.items() if data is None}
        if chance.random() < 0.3:
            _check_extents(store, name, contents[layer])
    return View(devices, contents, {layer: blocks for layer, blocks in lost.items() if blocks})


async def _read_blocks(device: Device, layer: int, blocks: list[int], damage: Damage | None) -> dict[int, bytes | None]:
    """The content of each block; None for one that cannot be read, and need not be."""

    async def read(first: int, count: int) -> dict[int, bytes | None]:
        waits = WAIT_SECONDS if damage is not None and damage.touches(layer, first, first + count) else None
        try:
            async with asyncio.timeout(waits):
                data = joined(await device.read(first * BLOCK_BYTES, count * BLOCK_BYTES))
        except (StorageError, TimeoutError) as error:
            if damage is None or not damage.excuses_read(error, layer, first, first + count):
                raise
            if count == 1:
                return {first: None}
            return {block: data for at in range(count) for block, data in (await read(first + at, 1)).items()}
        if len(data) != count * BLOCK_BYTES:
            raise Violation(f"a read of {count} blocks at {first} of layer {layer} gave {len(data)} bytes")
        return {first + i: data[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES] for i in range(count)}

    parts = await asyncio.gather(*(read(first, count) for first, count in runs(blocks)))
    return {block: data for part in parts for block, data in part.items()}


def runs(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Neighbouring blocks together, a few at most."""
    found: list[tuple[int, int]] = []
    for block in blocks:
        if found and found[-1][0] + found[-1][1] == block and found[-1][1] < RUN_BLOCKS:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((block, 1))
    return found


def _check_extents(store: Store, name: str, seen: dict[int, bytes]) -> None:
    image = Image(dict(seen))

    def violate(message: str) -> None:
        raise Violation(message)

    for block in seen:
        offset = block * BLOCK_BYTES
        check_extents(store.device(name).extents(offset, BLOCK_BYTES), offset, BLOCK_BYTES, image, violate)
