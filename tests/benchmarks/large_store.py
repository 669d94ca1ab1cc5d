"""A store as large as it is told, made in minutes: a base under every block of a disk, and patches over some.

The bases do not go through the log: their SSTs are put together by the builder that a flush uses, each with a frame for
64 blocks, as many as data that does not compress has, put into the store, listed by a commit, and installed under the
lock that flushes take. Each frame is sealed by itself, under a nonce and a tag of its own; what is sealed is one block
of 256 KiB that LZ4 makes a kilobyte, compressed once for all of them. So everything that a start reads is as large as
that of data that does not compress, and every block reads back; bulk data alone is small. The patches are written by
the engine, as a client's are, and its maintenance makes checkpoints until it finds nothing to do.
"""

import asyncio
import random
import time
from pathlib import Path
from struct import Struct

import numpy as np
from msgspec import structs

from storage.buffers import Buffer
from storage.crypto.cipher import Cipher, Sealer
from storage.env import RealEnv
from storage.format.blocks import SstEntry, SstRef
from storage.format.columns import Columns
from storage.format.frame import BLOCK_BYTES, FULL_MASK, FrameCodec, FrameKind, compress
from storage.fs.devices.device import Device
from storage.fs.opening import open_store
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.lsm.engine import Engine
from storage.lsm.index.bulk_load import load_bases
from storage.lsm.memtable.gate import RateLimiter
from storage.lsm.options import EngineOptions, MaintenanceOptions
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.sst.upload import SstWriter
from tests.benchmarks.bench import GIB, MIB
from tests.support.inside import engine_of, is_at_rest, jobs_of
from tests.support.waiting import until

BLOCKS_PER_SST = 64
"""What an SST of 16 MiB has of data that does not compress."""

SSTS_AT_ONCE = 4096
"""Listed by one commit."""

UPLOADS = 12

ROUND = 1024
"""Patches between two looks at the gate."""

_FRAME_HEAD = Struct("<BQ")
_WHOLE = (bytes(range(1, 256)) * 1029)[:BLOCK_BYTES]


class OneBlock(FrameCodec):
    """Seals one and the same block again and again, which is compressed once."""

    def __init__(self, cipher: Cipher, store_id: bytes) -> None:
        super().__init__(cipher, store_id)
        codec, payload = compress(_WHOLE)
        self._plain = _FRAME_HEAD.pack(codec, FULL_MASK) + payload

    def encode(self, sealer: Sealer, number: int, *, block: int, kind: FrameKind, mask: int, data: Buffer) -> bytes:
        return sealer.seal(number, self._plain, self._associated(block, kind))


async def generate(location: str, password: bytes, mapped: int, share: float, state_folder: Path) -> int:
    """Fill the disk of a store that nobody has written to; gives the number of patches."""
    # As many SSTs as incompressible data needs: small ones are not packed.
    engine = EngineOptions(
        cache_bytes=64 * MIB,
        memtable_bytes_max=GIB,
        maintenance=MaintenanceOptions(pack_count=1 << 30, rest_seconds=1.0),
    )
    store = await open_store(
        location, password, env=RealEnv(), options=StoreOptions(engine=engine, state_folder=state_folder)
    )
    device = store.device("disk")
    device.write(0, _WHOLE)  # the bases have its sequence
    await engine_of(store).flush_memtable()
    bases = Bases(engine_of(store))
    blocks = mapped // BLOCK_BYTES
    for first in range(0, blocks, SSTS_AT_ONCE * BLOCKS_PER_SST):
        await bases.write(range(first, min(first + SSTS_AT_ONCE * BLOCKS_PER_SST, blocks)))
        print(f"{first * BLOCK_BYTES / GIB:.0f} GiB {time.monotonic():.0f}", flush=True)
    patched = random.sample(range(blocks), int(blocks * share))
    limiter = device.gate.rate_limiter(time.monotonic)
    for first in range(0, len(patched), ROUND):
        await room(device, limiter)
        for block in patched[first : first + ROUND]:
            device.write(block * BLOCK_BYTES + random.randrange(64) * 4096, _WHOLE[:4096])
        await asyncio.sleep(0)
    await store.flush()
    await rest(store)
    await store.close()
    return len(patched)


class Bases:
    """Puts whole blocks into a store past its log, before a client has written there."""

    def __init__(self, engine: Engine) -> None:
        self._context = jobs_of(engine)[0]
        ciphers, store_id = Ciphers.derive(engine.key), engine.key.store_id
        self._ssts = SstWriter(
            store=self._context.store,
            env=self._context.env,
            frames=OneBlock(ciphers.frames, store_id),
            frame_cipher=ciphers.frames,
            index_cipher=ciphers.index,
            tree_cipher=ciphers.tree,
            checkpoint_cipher=ciphers.checkpoint,
            store_id=store_id,
            epoch=engine.epoch,
            acknowledged=lambda: engine.log.position.acknowledged,
            look_for_newer=engine.manifests.look_for_newer,
            pace=self._context.ssts.pace,
            part_bytes=EngineOptions().part_bytes,
        )
        self._room = asyncio.Semaphore(UPLOADS)

    async def write(self, blocks: range) -> None:
        """Upload their SSTs, list them, and point the index of the one disk at them."""
        context = self._context
        (layer, index), *_ = context.heads().items()
        parts = [blocks[at : at + BLOCKS_PER_SST] for at in range(0, len(blocks), BLOCKS_PER_SST)]
        made = await asyncio.gather(*(self._upload(layer, part) for part in parts))

        async def commit() -> None:
            old = context.manifests.manifest
            ssts = [*old.ssts, *(ref for ref, _ in made)]
            await context.manifests.commit(structs.replace(old, takeover=False, closed=False, ssts=ssts))
            for ref, entries in made:
                location = [context.sst_numbers.location(ref.id, entry.offset) for entry in entries]
                load_bases(index, _columns(entries, location))
                await asyncio.sleep(0)

        await context.commit(commit)

    async def _upload(self, layer: int, blocks: range) -> tuple[SstRef, list[SstEntry]]:
        async with self._room:
            builder = self._ssts.builder()
            sequence = self._context.cut()

            def build() -> tuple[SstRef, bytearray]:
                for block in blocks:
                    builder.add_frame(
                        layer=layer, block=block, full=True, mask=FULL_MASK, sequence=sequence, data=_WHOLE
                    )
                return builder.finish()

            ref, content = await self._ssts.encode(build)
            await self._ssts.create(ref.id, content)
            return ref, builder.entries


def _columns(entries: list[SstEntry], location: list[int]) -> Columns:
    return {
        "block": np.array([entry.block for entry in entries], np.uint32),
        "location": np.array(location, np.uint64),
        "length": np.array([entry.length for entry in entries], np.uint32),
        "tag": np.array([entry.tag for entry in entries], np.uint64),
    }


async def room(device: Device, limiter: RateLimiter) -> None:
    """Wait until the gate is open, and for as long as it asks."""
    await asyncio.sleep(limiter.delay(BLOCK_BYTES))
    while device.gate.closed:
        opened = asyncio.Event()
        device.gate.when_open(opened.set, BLOCK_BYTES)
        await opened.wait()


async def rest(store: Store) -> None:
    """Until maintenance has nothing to do."""
    await until(lambda: is_at_rest(engine_of(store)), seconds=3600)
