"""Data SSTs and images of the tree on their way into the store: a name with our epoch, encoding in a thread, one PUT.

Either is invisible until a manifest or a locator in the log names it, so a crash between here and there leaves an
orphan that a later writer sweeps, and nothing else.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ulid import ULID

from storage.bucket.create_once import Taken, create_once
from storage.bucket.pace import Pace
from storage.crypto.cipher import PREFIX_BYTES, Cipher
from storage.env import Env, object_id
from storage.errors import Corrupt
from storage.format.blocks import SstRef
from storage.format.checkpoint import CheckpointBuilder
from storage.format.envelope import Header, ObjectKind, seal_object
from storage.format.frame import FrameCodec
from storage.format.names import sst_name
from storage.format.sst import SstBuilder
from storage.objects.base import ObjectStore

T = TypeVar("T")


class SstWriter:
    """Builds and uploads SSTs, images of the tree and checkpoints for one writer."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        env: Env,
        frames: FrameCodec,
        frame_cipher: Cipher,
        index_cipher: Cipher,
        tree_cipher: Cipher,
        checkpoint_cipher: Cipher,
        store_id: bytes,
        epoch: int,
        acknowledged: Callable[[], int],
        look_for_newer: Callable[[], Awaitable[None]],
        pace: Pace,
        part_bytes: int,
    ) -> None:
        self._store = store
        self._env = env
        self._frames = frames
        self._frame_cipher = frame_cipher
        self.index_cipher = index_cipher
        self._tree_cipher = tree_cipher
        self._checkpoint_cipher = checkpoint_cipher
        self.store_id = store_id
        self.key_id = index_cipher.key_id
        """Of the data key that all of it is sealed under."""
        self._epoch = epoch
        self.acknowledged = acknowledged
        """The highest number up to which all of the log is known to be in the store."""
        self._look_for_newer = look_for_newer
        self.pace = pace
        self._part_bytes = part_bytes

    def builder(self) -> SstBuilder:
        """A builder for a new SST, with a name and a nonce of its own."""
        sst_id, header = self._draw(ObjectKind.DATA)
        return SstBuilder(self._frames, self._frame_cipher, self.index_cipher, header, sst_id)

    def checkpoint_builder(self) -> CheckpointBuilder:
        """A builder for a new checkpoint, with a name and a nonce of its own."""
        sst_id, header = self._draw(ObjectKind.CHECKPOINT)
        return CheckpointBuilder.begin(self._checkpoint_cipher, header, sst_id)

    def _draw(self, kind: ObjectKind) -> tuple[str, Header]:
        """A name and a nonce that nothing else has ever had, and how far the log was acknowledged: whoever finds this
        object with nothing that names it can tell an orphan from what is left of a store (see `completeness`).
        """
        sst_id = object_id(self._env, self._epoch)
        header = Header(
            kind=kind,
            epoch=self._epoch,
            store_id=self.store_id,
            nonce=self._env.random_bytes(PREFIX_BYTES),
            link=ULID.from_str(sst_id).bytes,
            acknowledged=self.acknowledged(),
        )
        return sst_id, header

    async def encode(self, build: Callable[[], T]) -> T:
        """What `build` gives, run in a codec thread: it may touch nothing that the event loop changes."""
        return await self._env.run("codec", build)

    async def create(self, sst_id: str, content: bytes | bytearray) -> None:
        """Put an object whose name only we can have drawn. Fenced: it was there, of an earlier attempt, and is gone
        again, so a newer writer has swept it.
        """
        name = sst_name(sst_id)
        try:
            await create_once(self._store, name, content, on_gone=self._look_for_newer)
        except Taken:
            raise Corrupt(name, "other bytes are there than those put under this new name") from None

    async def upload(self, sst: SstRef, content: bytearray, size: int) -> None:
        """Put the SST, with `size` bytes of block data in it; returns when it is confirmed, however long that takes."""
        self.pace.sent(size)
        try:
            await self.create(sst.id, content)
        except BaseException:
            self.pace.given_up(size)
            raise
        self.pace.confirmed(size)

    async def write_tree(self, image: bytes) -> SstRef:
        """Put an image of the tree of names; returns when it is confirmed."""
        sst_id, header = self._draw(ObjectKind.METADATA)
        content, tag = seal_object(self._tree_cipher, header, image, self._part_bytes)
        await self.create(sst_id, content)
        return SstRef(sst_id, len(content), 0, tag, 0, self._tree_cipher.key_id)
