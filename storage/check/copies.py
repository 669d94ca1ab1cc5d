"""The copies of the newest manifest and of the keys. Of each object and its copy one may be damaged, without a loss."""

import asyncio

from storage.bucket.create_once import pauses
from storage.check.findings import Kind
from storage.check.objects import Listed
from storage.check.subject import Asker
from storage.crypto.keys import newest_number
from storage.crypto.keyslots import KEYS_BYTES_MAX, decode, keys_name, seal_fits
from storage.crypto.spare_keys import spare_keys_name
from storage.errors import Corrupt, NotFound, Unsupported
from storage.format.names import manifest_name, spare_manifest_name
from storage.format.sizes import MANIFEST_BYTES_MAX

COPY_TRIES = 6
"""With the pauses of `pauses` three seconds: a copy comes a little later than its manifest."""

COPY_TRIES_OLD = 2
"""Of one whose manifest has been there for long: its writer has written it, or does not."""

MANIFEST_YOUNG_SECONDS = 60.0
"""So old is a manifest whose copy is not waited for, if the clocks of this host and the store agree. Where they do not,
a copy that was on its way may be missed, and is there at the next check."""


async def check_copies(asker: Asker, listed: Listed) -> None:
    """Both are there, and are what they are copies of."""
    await asyncio.gather(_manifest(asker, listed), _keys(asker, listed))


async def _manifest(asker: Asker, listed: Listed) -> None:
    number, subject = asker.manifests.number, asker.subject
    if not number:
        return
    name, copy = manifest_name(number), spare_manifest_name(number)
    if asker.manifests.from_copy is not None:
        sentence = f"{asker.manifests.from_copy.reason}; its copy {copy} is sound, and stands in for it"
        asker.findings.add(Kind.MANIFEST, name, sentence, fault=True)
        return
    for pause in pauses(_tries(asker, listed)):
        await asyncio.sleep(pause)
        try:
            own, other = await asyncio.gather(
                *(subject.store.get(each, limit=MANIFEST_BYTES_MAX) for each in (name, copy))
            )
        except NotFound:
            continue
        except Corrupt as error:
            asker.findings.corrupt(Kind.COPY, error, fault=True)
            return
        if own != other:
            asker.findings.add(Kind.COPY, copy, "it is not what the manifest of that number says", fault=True)
        return
    if subject.moment is None:
        await asker.manifests.look_for_newer()
        asker.findings.add(Kind.COPY, copy, "the newest manifest has no copy", fault=True)


def _tries(asker: Asker, listed: Listed) -> int:
    """How often to look for the copy of the newest manifest."""
    info = listed.manifests.get(asker.manifests.number)
    if info is None or info.modified is None:
        return COPY_TRIES
    return COPY_TRIES_OLD if asker.subject.env.wall_clock() - info.modified > MANIFEST_YOUNG_SECONDS else COPY_TRIES


async def _keys(asker: Asker, listed: Listed) -> None:
    number, key = asker.subject.keys_number, asker.subject.key
    names = keys_name(number), spare_keys_name(number)
    if not {info.name for info in (*listed.keys, *listed.copies)} & set(names):
        return  # passwords are being changed

    async def look(name: str) -> str | None:
        """What is wrong with it."""
        try:
            raw = await asker.subject.store.get(name, limit=KEYS_BYTES_MAX)
            content = decode(raw, number, 0)
        except NotFound:
            return "it is missing"
        except Corrupt as error:
            return error.detail
        except Unsupported as error:
            return str(error)
        if content.key_id > key.key_id:
            return None  # the data key was rotated under this process, which knows of it no more than its checksum
        return None if seal_fits(content, key) else "it was altered since it was written"

    own, other = await asyncio.gather(*map(look, names))
    if (own or other) is not None and await newest_number(asker.subject.store) > number:
        return  # they were changed while they were looked at
    if own is not None:
        sentence = f"{own}; its copy {names[1]} is sound, and stands in for it"
        asker.findings.add(Kind.KEYS, names[0], own if other is not None else sentence, fault=other is None)
    if other is not None:
        asker.findings.add(Kind.COPY, names[1], f"{other}: without it damage to {names[0]} loses all data", fault=True)
