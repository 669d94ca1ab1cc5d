"""On what terms a writer takes a store; whose turn it is instead, as a sentence for who does not get it; and whether it
is older than this host knows, or another one. What follows from that is decided in `take_over`.
"""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from storage.crypto.data_key import DataKey
from storage.crypto.keys import newest_number
from storage.errors import Corrupt, NotFound
from storage.format.names import sst_name
from storage.lsm.manifest.manifest_store import Manifests
from storage.lsm.recovery.anchor import Anchor
from storage.lsm.recovery.locks import LockHolder
from storage.objects.base import ObjectStore
from storage.trusted_files import user_name

Force = bool | bytes
"""Whether a store is taken from a writer that has not closed it: from whoever has it, or from the writer of the
manifest with this tag as long as that is the newest one."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a writer takes a store: `forced`, from a writer that has not closed it; `keys`: the number of the keys in
    force; `rolled_back`: somebody has agreed
    that it is older than this host remembers; `adopted`: it is a copy, and is a store of its own from now on."""

    forced: Force
    keys: int
    rolled_back: bool = False
    adopted: bool = False

    def forces(self, tag: bytes) -> bool:
        """Whether it is taken from the writer of the newest manifest, which has this tag, closed or not."""
        return self.forced == tag if isinstance(self.forced, bytes) else self.forced

    @property
    def breaks(self) -> bool:
        """Whether clients that were attached may miss what they were answered, however the last writer ended."""
        return self.rolled_back or self.adopted


def held_by(url: str, holder: LockHolder, *, adopted: bool = False) -> str:
    """Why a store cannot be had now, or not be adopted as the copy of one, and what to do."""
    whose = "" if holder.uid is None else f" of {user_name(holder.uid)}"
    if holder.state == "held":
        return f"another server of this host (process {holder.pid}{whose}) holds {url}: stop it first"
    if adopted:
        return (
            f"{url} was not closed, and looks as if its server ran elsewhere: "
            "if this is a complete copy of a running store, say so with --take-over"
        )
    if holder.state == "left":
        return (
            f"{url} was not closed, and its last server was a process{whose} on this host that is gone: "
            "start it again as that user, or open the store with --take-over"
        )
    return (
        f"{url} was not closed, and its last server ran elsewhere: "
        "if that one is gone for good, open it with --take-over"
    )


def rolled_back(anchor: Anchor, store_id: bytes, manifests: Manifests) -> str | None:
    """Why the store cannot be the one this host remembers, or None if it can."""
    if anchor.store_id != store_id:
        return "holds another store than the one this host remembers there"
    if anchor.identity != manifests.manifest.identity:
        return "is a copy that was adopted, or what one was adopted from: not the store that this host remembers there"
    if manifests.number < anchor.manifest_number:
        return f"is older than this host remembers (manifest {manifests.number} instead of {anchor.manifest_number})"
    if manifests.number == anchor.manifest_number and manifests.tag != anchor.manifest_tag:
        return f"has another manifest {manifests.number} than this host remembers"
    if manifests.key_id < anchor.key_id:
        return (
            f"has a newest manifest under data key {manifests.key_id}, and this host remembers key {anchor.key_id}: it "
            "was made by somebody who has an older key, or is of a backup from before the rotation"
        )
    return None


async def check_keys(store: ObjectStore, opened: int, number: int) -> None:
    """The manifest names keys object `number`, and `opened` was opened. If that is older, all is well if the other is
    there: it was changed since, perhaps to a data key that nobody here can vouch for. Corrupt: it is not.
    """
    if opened >= number:
        return
    with suppress(NotFound):
        if await newest_number(store) >= number:
            return
    raise Corrupt(
        "keys/",
        f"keys object {number} is missing: an older password was put back; a copy that was begun before the keys were "
        "changed is to be made again, keys/ first",
    )


def check_older_keys(manifests: Manifests, key: DataKey) -> None:
    """Corrupt: something that the newest manifest lists is sealed under a data key which was retired. A rotation ends
    when there is none, so the keys are of a later moment than the rest; else that would be found at the first read.
    """
    manifest, listed = manifests.manifest, manifests.listed()
    opened = [key.key_id, *(older.key_id for older in key.older)]
    others = (manifest.tree, manifest.checkpoint, *listed.where(~np.isin(listed.key_id, opened)))
    for ref in others:
        if ref is not None and ref.key_id < key.key_id and ref.key_id not in opened:
            raise Corrupt(
                sst_name(ref.id),
                f"it is sealed under data key {ref.key_id}, which keys/ holds no more: that is of a later moment than "
                "the rest of the store; put keys/ and spare/ back from the same copy as the rest",
            )
