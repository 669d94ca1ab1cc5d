"""The fence: the object of the log that closes it to every earlier writer.

The order of steps is the promise. The take-over manifest stops the old writer's next commit; the fence, put into the
lowest free number of the log, stops its next acknowledgement, and everything it still has in flight lands in numbers
nobody reads (up to fence + 16). Only then is the log known to end, and only if no newer manifest exists *after* all
was read is it ours to serve. See decision 2.
"""

import asyncio
from dataclasses import dataclass

from storage.bucket.create_once import Taken, create_once, pauses
from storage.crypto.cipher import PREFIX_BYTES, Cipher
from storage.env import Env
from storage.errors import Unavailable
from storage.format.envelope import Header, ObjectKind, seal_object
from storage.format.names import wal_name
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.wal.log_object import Replay
from storage.lsm.wal.reader import RESUME, LogReader
from storage.objects.base import ObjectStore

FENCE_TRIES_MAX = 12
"""Times that an object of the old writer may land first: more than half a minute, of which it needs 10 s to notice."""


@dataclass(frozen=True, slots=True)
class Fence:
    """What a writer that takes a store over puts behind the log of the one before it."""

    store: ObjectStore
    cipher: Cipher
    store_id: bytes
    env: Env
    manifests: Manifests

    async def put(self, log: LogReader, replay: Replay, epoch: int) -> Replay:
        """Close the log to every earlier writer. Gives the log as it ends at our fence. Fenced: a newer writer was
        there. Unavailable: the old one goes on writing; it cannot for longer than it takes to notice.
        """
        for pause in pauses(FENCE_TRIES_MAX):
            await asyncio.sleep(pause)
            number = replay.end
            header = Header(
                kind=ObjectKind.FENCE,
                epoch=epoch,
                store_id=self.store_id,
                nonce=self.env.random_bytes(PREFIX_BYTES),
                number=number,
            )
            content, _ = seal_object(self.cipher, header, (number + RESUME).to_bytes(8, "little"))
            try:
                await create_once(self.store, wal_name(number), content, on_gone=self.manifests.look_for_newer)
            except Taken:
                # An object of the old writer landed first: it counts, and the fence goes behind it.
                replay = await log.read_to_gap()
                continue
            replay.fences.append(number)
            self.manifests.fenced_at(number)
            return replay
        raise Unavailable("the old writer has not noticed that it lost the store, and goes on writing its log")
