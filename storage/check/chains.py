"""The chains of a store: its manifests, each bound to the one before it, and its log from the replay point on."""

import asyncio
from contextlib import suppress

from storage.bucket.whole import read_whole
from storage.check.findings import Kind
from storage.check.objects import Listed
from storage.check.subject import Asker
from storage.crypto.cipher import FIRST_KEY_ID, Cipher
from storage.crypto.keys import DEFAULT_COST, newest_object
from storage.errors import Corrupt, Fenced, KeyChanged, NotFound, StorageError, Unavailable
from storage.format.envelope import Header, ObjectKind, decode_header, is_retired, open_object
from storage.format.manifest import decode
from storage.format.names import manifest_name, wal_name
from storage.format.sizes import MANIFEST_BYTES_MAX
from storage.lsm.recovery.turn import check_keys, check_older_keys
from storage.lsm.wal.log_object import Replay
from storage.lsm.wal.reader import LogReader

CHAIN_READS_IN_FLIGHT = 16

FENCE_BYTES_MAX = 4096
"""Read of a fence at most: it holds one number, and what is larger is none."""

_KINDS = (ObjectKind.MANIFEST,)


async def read_newest(asker: Asker) -> bool:
    """Read the newest manifest; whether it could be, and there are the keys that it names and that what it lists is
    sealed under. KeyChanged: there are, and they are newer than those that were opened for this check.
    """
    subject, manifests = asker.subject, asker.manifests
    try:
        await manifests.read_newest()
    except Corrupt as error:
        if isinstance(error, KeyChanged) and await _is_known(asker, error.key_id):
            raise
        asker.findings.corrupt(Kind.MANIFEST, error)
        return False
    try:
        await check_keys(subject.store, subject.keys_number, manifests.manifest.keys)
    except Corrupt as error:
        asker.findings.corrupt(Kind.KEYS, error)
    try:
        check_older_keys(manifests, subject.key)
    except Corrupt as error:
        asker.findings.corrupt(Kind.INDEX, error)  # what else there is can be salvaged
    return True


async def _is_known(asker: Asker, key_id: int) -> bool:
    """Whether the keys in force hold this data key by now."""
    with suppress(StorageError):
        return (await newest_object(asker.subject.store, DEFAULT_COST)).key_id >= key_id
    return False


async def check_manifests(asker: Asker, listed: Listed) -> None:
    """Every manifest that must be there opens, and follows the one before it. Older ones bear nothing now: what is
    wrong with them is a fault, but that a stalled writer could commit in the place of one that is gone. What lies in
    the place of one that may be gone is not looked at: it may have landed late, and followed on another.
    """
    number, manifest = asker.manifests.number, asker.manifests.manifest
    kept = asker.subject.options.manifests_kept
    newest = {one for one in range(max(number - kept, 0) + 1, number + 1) if not _may_be_gone(asker, one)}
    wanted = sorted({*newest, *manifest.takeovers})
    room = asyncio.Semaphore(CHAIN_READS_IN_FLIGHT)

    async def read(one: int) -> tuple[Header, bytes] | None:
        async with room:
            size = listed.manifests[one].size if one in listed.manifests else None
            return await _open_manifest(asker, one, size)

    opened = await asyncio.gather(*map(read, wanted))
    found = {one: both for one, both in zip(wanted, opened, strict=True) if both is not None}
    epoch = 0
    for one, (header, tag) in found.items():
        before = found.get(one - 1)
        if before is not None and header.link != before[1]:
            asker.findings.add(Kind.MANIFEST, manifest_name(one), "it does not follow the one before it", fault=True)
        if header.epoch < epoch:
            asker.findings.add(Kind.MANIFEST, manifest_name(one), "it is of an earlier writer than the one before it")
        epoch = header.epoch
        if one == number and tag != asker.manifests.tag:
            asker.findings.add(Kind.MEMORY, manifest_name(one), "it is not the one that the server committed")


async def _open_manifest(asker: Asker, number: int, size: int | None) -> tuple[Header, bytes] | None:
    """Header and tag of a manifest. None: a finding, or it stays for its name alone."""
    name = manifest_name(number)
    subject = asker.subject
    newest = number == asker.manifests.number
    if newest and asker.manifests.from_copy is not None:
        return None  # see `copies`
    try:
        if size is None:
            size = (await subject.store.head(name)).size
        cipher, store_id = asker.ciphers.manifest, subject.key.store_id
        raw = await read_whole(
            subject.store,
            name,
            size,
            limit=MANIFEST_BYTES_MAX,
            cipher=cipher,
            store_id=store_id,
            kinds=_KINDS,
            number=number,
            env=subject.env,
        )

        def open_it() -> tuple[Header, bytes] | None:
            if not newest and _is_tombstone(cipher, name, raw, store_id, _KINDS):
                return None
            header, body, tag = open_object(cipher, name, raw, store_id=store_id, kinds=_KINDS, number=number)
            decode(name, body)
            return header, tag

        return await subject.env.run("codec", open_it)
    except NotFound:
        await asker.manifests.look_for_newer()
        if _may_be_gone(asker, number):
            return None
        asker.findings.add(Kind.MANIFEST, name, "it is missing, and manifests like it are kept", fault=not newest)
    except Corrupt as error:
        asker.findings.corrupt(Kind.MANIFEST, error, fault=not newest)
    return None


def _may_be_gone(asker: Asker, number: int) -> bool:
    """A rotation of the data key lets no manifest stay from before its writer but take-overs."""
    takeovers = asker.manifests.manifest.takeovers
    is_rotated = asker.subject.key.key_id != FIRST_KEY_ID
    return is_rotated and number not in takeovers and number < max(takeovers, default=0)


def _is_tombstone(cipher: Cipher, name: str, raw: bytes, store_id: bytes, kinds: tuple[ObjectKind, ...]) -> bool:
    """Whether a data key sealed it that was retired: nobody can open it any more, and only its name counts."""
    return is_retired(cipher, decode_header(name, raw, store_id=store_id, kinds=kinds).key_id)


async def check_fences(asker: Asker) -> None:
    """Every fence below the replay point is there and opens. Without one a stalled writer could have writes
    acknowledged that nobody will read; that is a fault, since nothing is lost by it now.
    """
    subject = asker.subject
    cipher, store_id = asker.ciphers.wal, subject.key.store_id
    room = asyncio.Semaphore(CHAIN_READS_IN_FLIGHT)

    async def look(number: int) -> None:
        name = wal_name(number)
        async with room:
            raw = await asker.ask(
                name, lambda: subject.store.get(name, limit=FENCE_BYTES_MAX), "the manifest", fault=True
            )
        try:
            if raw is not None and not _is_tombstone(cipher, name, raw, store_id, (ObjectKind.FENCE,)):
                open_object(cipher, name, raw, store_id=store_id, kinds=(ObjectKind.FENCE,), number=number)
        except Corrupt as error:
            asker.findings.corrupt(Kind.LOG, error, fault=True)

    await asyncio.gather(*map(look, asker.manifests.manifest.fences))


async def read_log(asker: Asker) -> Replay | None:
    """The log from the replay point to its end; None: it is not whole, which is a finding. Fenced: a newer manifest
    explains it.
    """
    subject = asker.subject
    log = LogReader(
        store=subject.store,
        cipher=asker.ciphers.wal,
        store_id=subject.key.store_id,
        env=subject.env,
        manifests=asker.manifests,
        options=subject.options,
    )
    try:
        replay = await log.read_to_gap()
        if subject.anchor is not None:
            await log.check_known(replay, subject.anchor.wal_number)
    except Corrupt as error:
        if subject.moment is not None:
            # Beside its writer a number may be read before it lands, and a higher one after it.
            raise Fenced from error
        asker.findings.corrupt(Kind.LOG, error)
        return None
    except Unavailable:
        if subject.moment is None:
            raise
        raise Fenced from None
    return replay
