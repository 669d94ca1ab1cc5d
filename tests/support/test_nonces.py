"""That a repeated nonce is noticed, wherever in an object it stands."""

import pytest

from storage.crypto.cipher import Cipher, Sealer
from storage.env import RealEnv
from storage.format.envelope import Header, ObjectKind, seal_object
from storage.format.frame import BLOCK_BYTES, FULL_MASK, SECTOR_BYTES, FrameCodec
from storage.format.sst import SstBuilder
from tests.storage.lsm.worlds import KEY, World, durable
from tests.support.nonces import NonceRepeated, Nonces

ULID = "01K1JW549K0H0MV3FH28CKBWTY"


def manifest(body: bytes, *, nonce: bytes = bytes(16)) -> bytes:
    header = Header(kind=ObjectKind.MANIFEST, epoch=1, store_id=KEY.store_id, nonce=nonce, number=1)
    return seal_object(Cipher(KEY.purpose("manifest")), header, body)[0]


def builder() -> SstBuilder:
    header = Header(kind=ObjectKind.DATA, epoch=1, store_id=KEY.store_id, nonce=bytes(range(16)))
    frames = Cipher(KEY.purpose("frames"))
    return SstBuilder(FrameCodec(frames, KEY.store_id), frames, Cipher(KEY.purpose("index")), header, ULID)


def test_an_object_may_be_sent_again_and_another_with_its_nonce_may_not() -> None:
    nonces = Nonces(KEY)
    for _ in range(2):
        nonces.sent("manifest/1", manifest(b"one"))
    nonces.sent("manifest/2", manifest(b"two", nonce=b"another nonce 16"))
    with pytest.raises(NonceRepeated, match="used before, for manifest/1"):
        nonces.sent("manifest/1", manifest(b"three"))


def test_the_same_bytes_under_another_name_are_a_repeat() -> None:
    nonces = Nonces(KEY)
    nonces.sent("manifest/1", manifest(b"one"))
    with pytest.raises(NonceRepeated):
        nonces.sent("manifest/2", manifest(b"one"))


def test_two_frames_of_one_table_with_one_nonce_are_a_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    table = builder()
    for block in range(2):
        table.add_frame(layer=1, block=block, full=True, mask=FULL_MASK, sequence=1, data=bytes([block]) * BLOCK_BYTES)
    Nonces(KEY).sent(f"compacted/{ULID}.sst", bytes(table.finish()[1]))
    seal = Sealer.seal

    def always_first(self: Sealer, number: int, plaintext: bytes, associated: bytes) -> bytes:
        self._sealed.clear()
        return seal(self, 0, plaintext, associated)

    monkeypatch.setattr(Sealer, "seal", always_first)
    table = builder()
    for block in range(2):
        table.add_frame(layer=1, block=block, full=True, mask=FULL_MASK, sequence=1, data=bytes([block]) * BLOCK_BYTES)
    with pytest.raises(NonceRepeated):
        Nonces(KEY).sent(f"compacted/{ULID}.sst", bytes(table.finish()[1]))


async def test_an_engine_that_draws_its_nonces_once_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of the engine look for that, since the store they use does."""
    world = World()
    monkeypatch.setattr(RealEnv, "random_bytes", lambda self, count: bytes(count))
    with pytest.raises(NonceRepeated):
        await world.open()


async def test_a_store_in_memory_is_sent_no_nonce_twice() -> None:
    world = World()
    engine, layer = await world.start()
    for number in range(3):
        layer.write(number * SECTOR_BYTES, bytes([number]) * SECTOR_BYTES)
        await durable(engine, layer)
        layer.write(0, bytes(range(256)) * (8 * BLOCK_BYTES // 256 * (number + 1)))
        await engine.flush_memtable()
    engine, _ = await world.reopen(engine)
    await engine.close()
    assert len(world.store.nonces) > 2 * len(world.store.objects)
