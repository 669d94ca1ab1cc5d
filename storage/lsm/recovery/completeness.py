"""Completeness: whether what lies in a store can be all of it, asked before anything is written there.

A copy that was cut short, a backup restored in part, a folder deleted by hand: what is left of a store may look like an
older one, or like an empty one. Whoever then wrote to it, or swept what its manifest does not name, would destroy what
could still be completed. Three things give an incomplete store away:

- A store's first manifest was there before anything lay under `wal/` or `compacted/`, and is never deleted.
- So was the first manifest of each epoch, and the name of an SST tells the epoch of its writer.
- *An orphan's log is still there.* An SST that nothing names is usually what a crash left behind. Objects of the log go
  only after a manifest that holds what they said; so the log still reaches up to all that was acknowledged when the SST
  was made, and that number stands in its header. If the log that is found ends below it, or the next writer's
  fence stands there, something is missing.

A host whose own writer was the last one, and which has not stopped since, knows more than that: where the log ends, and
that all was there. It asks only for what came after the newest SST that it knows of, and leaves it to the sweep to say
what has gone since. So its start costs no listing of every SST: a terabyte has 65,000, and their names take seconds.

What is left undecided is a store whose rest is, object by object, what a crash at an earlier moment would have left: an
older state that was acknowledged. Only a host that has seen more can tell (the anchor).
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.bucket.listing import list_known_ssts, list_log, list_ssts
from storage.bucket.missing import get_despite_missing
from storage.bucket.named_ssts import NamedSsts, RollCall
from storage.crypto.cipher import AuthenticationError, Cipher
from storage.env import epoch_of
from storage.errors import AccessDenied, Corrupt, NotFound, Unavailable
from storage.format.blocks import SstRef
from storage.format.envelope import FIRST_PART_BYTES, HEADER_BYTES, ObjectKind, check_first_part, decode_header, opener
from storage.format.manifest import Manifest
from storage.format.names import MANIFESTS, sst_name
from storage.format.sizes import TRAILER_BYTES_MAX
from storage.lsm.manifest.manifest_store import Manifests
from storage.objects.base import ANSWER_BYTES_MAX, ObjectStore

HEADERS_IN_FLIGHT = 32

_SST_KINDS = (ObjectKind.DATA, ObjectKind.METADATA, ObjectKind.CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Census:
    """What lies under `compacted/` and the manifest does not name, and what it knows of the log."""

    acknowledged: dict[str, int]
    """By id: the highest WAL number acknowledged when it was made, as its header says."""

    def beyond(self, reach: Callable[[int], int]) -> list[str]:
        """The objects that know of more than their writers' part of the log, below number `reach(epoch)`, holds."""
        return [sst for sst, number in self.acknowledged.items() if number >= reach(epoch_of(sst))]


async def take_census(store: ObjectStore, manifests: Manifests, store_id: bytes, *, seen_whole: bool) -> Census:
    """Corrupt if an object is missing that must be there. Fenced: a newer manifest explains it. `seen_whole`: this host
    knows that all was there that the manifest names.

    The log is to be read *after* this: beside a living writer it grows, and an SST never knows more than there is.
    """
    if not manifests.number:
        await _check_nothing_else(store, manifests)
        return Census({})
    manifest = manifests.manifest
    named = named_by(manifests)
    if seen_whole:
        others = list(await list_ssts(store, above=named.ids[-1].decode() if len(named) else None))
    else:
        found = RollCall(named)
        await list_known_ssts(store, named.ids, found.note)
        for sst, size in found.missing():
            await _check_missing(store, manifests, sst, size)
        for sst, (there, size) in found.resized.items():
            _check_size(sst, there, size)
        others = list(found.others)
    for sst in others:
        if epoch_of(sst) > manifest.epoch:
            await manifests.look_for_newer()
            raise Corrupt(MANIFESTS, f"{sst_name(sst)} is of epoch {epoch_of(sst)}, and no manifest of that is there")
    return await ask_headers(store, [sst for sst in others if may_tell(sst, manifest)], store_id)


async def check_census(
    census: Census,
    reach: Callable[[int], int],
    *,
    store: ObjectStore,
    manifests: Manifests,
    store_id: bytes,
    index: Cipher,
    tree: Cipher,
    checkpoint: Cipher,
) -> None:
    """Corrupt if what lies under `compacted/` proves that the log is not all of it: writers of an epoch can have had
    acknowledged what lies below number `reach(epoch)`.

    `index`, `tree` and `checkpoint` are the keys of what is asked to prove it: a header alone could be anybody's, or
    damaged.
    """
    for sst in census.beyond(reach):
        if await _is_authentic(store, sst, store_id, index=index, tree=tree, checkpoint=checkpoint):
            await manifests.look_for_newer()
            raise Corrupt(
                MANIFESTS,
                f"{sst_name(sst)} was made when the log was acknowledged up to number "
                f"{census.acknowledged[sst]}, and its writer's log ends below that: newer manifests or objects of "
                "the log are missing; restore them, nothing was changed",
            )


def named_by(manifests: Manifests, logged: Iterable[SstRef] = ()) -> NamedSsts:
    """All that the newest manifest and its checkpoint name under `compacted/`, and what the log names there."""
    manifest = manifests.manifest
    others = [*(ref for ref in (manifest.tree, manifest.checkpoint) if ref is not None), *logged]
    return NamedSsts.of(manifests.listed(), others)


def of_older_keys(manifests: Manifests, newest: int, logged: Iterable[SstRef]) -> dict[str, int]:
    """What is named under `compacted/`, with what the log names there, and sealed under another data key than the
    newest: its id by name. All there will ever be: what this process seals is under the newest.
    """
    listed, manifest = manifests.listed(), manifests.manifest
    others = (manifest.tree, manifest.checkpoint, *logged, *listed.where(listed.key_id != newest))
    return {sst_name(ref.id): ref.key_id for ref in others if ref is not None and ref.key_id != newest}


def may_tell(sst: str, manifest: Manifest) -> bool:
    """Whether an SST that nothing names can know of more acknowledged numbers than the manifest does.

    What a writer commits after its take-over knows of its own fence, which is above all that earlier ones had
    acknowledged.
    """
    return manifest.takeover or epoch_of(sst) == manifest.epoch


async def acknowledged_by(store: ObjectStore, sst: str, store_id: bytes) -> int | None:
    """The WAL number in an SST's header. None: it is gone, or it is nothing that this store's writers made."""
    name = sst_name(sst)
    try:
        raw = await store.get(name, 0, HEADER_BYTES)
        return decode_header(name, raw, store_id=store_id, kinds=_SST_KINDS).acknowledged
    except (NotFound, Corrupt):
        return None


async def ask_headers(store: ObjectStore, ssts: list[str], store_id: bytes) -> Census:
    """What the headers of some objects that nothing names say of the log."""
    room = asyncio.Semaphore(HEADERS_IN_FLIGHT)

    async def ask(sst: str) -> int | None:
        async with room:
            try:
                return await acknowledged_by(store, sst, store_id)
            except (Unavailable, AccessDenied):
                return None  # An object that nothing names and nobody can read proves nothing, and stops nothing.

    numbers = await asyncio.gather(*map(ask, ssts))
    return Census({sst: number for sst, number in zip(ssts, numbers, strict=True) if number is not None})


async def _is_authentic(
    store: ObjectStore, sst: str, store_id: bytes, *, index: Cipher, tree: Cipher, checkpoint: Cipher
) -> bool:
    """Whether a writer of this store made the object, header and all. One that is sealed under a data key which was
    retired proves nothing: all that it knew of was in what is sealed anew before that.
    """
    name = sst_name(sst)
    try:
        raw = await store.get(name, 0, HEADER_BYTES)
        header = decode_header(name, raw, store_id=store_id, kinds=_SST_KINDS)
        if header.kind is ObjectKind.METADATA:
            # Its first part is bound to the header, and enough.
            first = await store.get(name, 0, min(header.size, FIRST_PART_BYTES))
            check_first_part(tree, name, first, header.size, store_id=store_id, kinds=_SST_KINDS)
        elif HEADER_BYTES <= header.index_offset < header.size:
            cipher, limit = index, ANSWER_BYTES_MAX
            if header.kind is ObjectKind.CHECKPOINT:
                cipher, limit = checkpoint, TRAILER_BYTES_MAX
            end = await store.get(name, header.index_offset, header.size - header.index_offset, limit=limit)
            opener(cipher, name, header.key_id).open(memoryview(end)[HEADER_BYTES:], raw)
        else:
            return False
    except (NotFound, Corrupt, AuthenticationError):
        return False
    return True


async def _check_nothing_else(store: ObjectStore, manifests: Manifests) -> None:
    """There is no manifest: then nothing was ever written behind one."""
    log, ssts = await list_log(store), await list_ssts(store)
    for info in (*log.values(), *ssts.values()):
        await manifests.look_for_newer()
        raise Corrupt(
            MANIFESTS,
            f"there is no manifest, but {info.name} is there: this is a part of a store; restore the rest of it",
        )


async def _check_missing(store: ObjectStore, manifests: Manifests, sst: str, size: int) -> None:
    """The listing does not show what the manifest names: the name itself is asked."""
    name = sst_name(sst)
    try:
        found = await get_despite_missing(store, lambda: store.head(name), on_missing=manifests.look_for_newer)
    except NotFound:
        raise Corrupt(name, "it is missing, though the manifest names it") from None
    _check_size(sst, found.size, size)


def _check_size(sst: str, there: int, named: int) -> None:
    if there != named:
        raise Corrupt(sst_name(sst), f"it has {there} bytes, and the manifest names one of {named}")
