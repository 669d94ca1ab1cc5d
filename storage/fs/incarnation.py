"""The incarnation of a store: what a term of its writer is known by, and who this host remembers was attached in it.

A new one begins with every opening by a writer. `is_unbroken_since` says whether all that was answered since another
one began is there (see `Manifest.lineage`, which is where this lies, and decision 19).
"""

from functools import partial

from storage.env import Env
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.recovery.anchor import HostState


class Incarnation:
    """That of an open store."""

    def __init__(self, manifests: Manifests, host: HostState | None, env: Env) -> None:
        self._manifests = manifests
        self._host = host
        self._env = env

    @property
    def id(self) -> str:
        """In hexadecimal digits; nothing: nobody has written this store yet."""
        return self._manifests.incarnation.hex()

    @property
    def is_broken(self) -> bool:
        """Whether something may be lost that was answered before it."""
        return self._manifests.is_broken

    def is_unbroken_since(self, incarnation: str) -> bool:
        """Whether all is there that was answered since that one began, flushed or not. An unknown one: no."""
        try:
            return self._manifests.is_unbroken_since(bytes.fromhex(incarnation))
        except ValueError:
            return False

    async def load_attached(self) -> bytes | None:
        """What the newest writer of this host kept with `keep_attached`; None: nothing, or there is no host."""
        return None if self._host is None else await self._env.run("store", self._host.load_attached)

    async def keep_attached(self, data: bytes) -> None:
        """Keep who is attached, durably on return, for the next writer of this host. A crash leaves this or what was
        kept before. OutOfSpace, AccessDenied.
        """
        if self._host is not None:
            await self._env.run("store", partial(self._host.save_attached, self._manifests.manifest.epoch, data))
