"""The incarnation of a store: what a term of its writer is known by, and who this host remembers was attached in it.

A new one begins with every opening by a writer. `is_unbroken_since` says whether all that was answered since another
one began is there (see `Manifest.lineage`, which is where this lies, and decision 19).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from storage.env import Env
from storage.fs.succession.stored_attachments import StoredAttachments
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.recovery.anchor import HostState


@dataclass(frozen=True, slots=True)
class KeptAttached:
    """Who was attached, as former writers kept it."""

    newest: list[bytes]
    """By the last one, of this host or elsewhere: on its host, in the store, or in both, of which one may have failed
    it. Who stands in either counts."""
    own: bytes | None
    """By this host's last one, if one elsewhere came after it: that knows nothing of clients of this machine."""


class Incarnation:
    """That of an open store."""

    def __init__(
        self,
        manifests: Manifests,
        host: HostState | None,
        env: Env,
        stored: StoredAttachments | None,
        look_for_newer: Callable[[], Awaitable[None]],
    ) -> None:
        """`stored` is the record in the store, of a writer that others stand by for. `look_for_newer` raises Fenced,
        and ends this writer, if there is a newer one."""
        self._manifests = manifests
        self._host = host
        self._env = env
        self._stored = stored
        self._look_for_newer = look_for_newer

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

    async def load_attached(self) -> KeptAttached:
        """What was kept with `keep_attached` before: to be asked behind the take-over, see there."""
        own = None if self._host is None else await self._env.run("store", self._host.load_attached)
        stored = None if self._stored is None else await self._stored.load()
        found = [record for record in (own, stored) if record is not None]
        last = max((epoch for epoch, _ in found), default=0)
        older = own[1] if own is not None and own[0] < last else None
        return KeptAttached([raw for epoch, raw in found if epoch == last], older)

    async def keep_attached(self, data: bytes) -> None:
        """Keep who is attached, durably on return, for the next writer of this host, and for one that stands by. A
        crash leaves this or what was kept before. A host that cannot keep it says so in its `unsaved`. Fenced: it may
        have come too late for the one that stands by, which has the store already.
        """
        epoch = self._manifests.manifest.epoch
        if self._host is not None:
            await self._host.unsaved.attempt(self._env, "attached", partial(self._host.save_attached, epoch, data))
        if self._stored is not None:
            await self._stored.keep(epoch, data)
            # Without a newer manifest now, whoever makes one finds the record, for which it looks behind that.
            await self._look_for_newer()

    def keep_here(self) -> None:
        """The store is closed: what is kept from now on is for this host alone."""
        self._stored = None
