"""What lies in a store, by use: every object, and every byte."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from storage.check.findings import Kind
from storage.check.subject import Asker
from storage.crypto.keys import KEYS_PREFIX
from storage.crypto.keyslots import keys_name
from storage.crypto.spare_keys import spare_keys_name, spare_keys_number
from storage.env import epoch_of
from storage.errors import Corrupt
from storage.format.names import (
    attached_numbers,
    manifest_number,
    sign_epoch,
    spare_manifest_name,
    spare_manifest_number,
    sst_id,
    sst_name,
    wal_number,
)
from storage.lsm.recovery.completeness import Census, ask_headers, check_census, may_tell
from storage.lsm.wal.log_object import Replay
from storage.objects.base import ObjectInfo


@dataclass(frozen=True, slots=True)
class Listed:
    """What the store lists, by kind."""

    manifests: dict[int, ObjectInfo]
    log: dict[int, ObjectInfo]
    ssts: dict[str, ObjectInfo]
    keys: list[ObjectInfo]
    writers: list[ObjectInfo]
    """Signs of life, and records of who is attached."""
    copies: list[ObjectInfo]
    """Of manifests and keys."""
    others: list[ObjectInfo]
    """Names that are none of ours."""


def sorted_out(infos: Iterable[ObjectInfo]) -> Listed:
    """Objects by what their names say they are."""
    found = Listed({}, {}, {}, [], [], [], [])
    for info in infos:
        if (number := manifest_number(info.name)) is not None:
            found.manifests[number] = info
        elif (number := wal_number(info.name)) is not None:
            found.log[number] = info
        elif (sst := sst_id(info.name)) is not None:
            found.ssts[sst] = info
        elif info.name.startswith(KEYS_PREFIX):
            found.keys.append(info)
        elif sign_epoch(info.name) is not None or attached_numbers(info.name) is not None:
            found.writers.append(info)
        elif spare_manifest_number(info.name) is not None or spare_keys_number(info.name) is not None:
            found.copies.append(info)
        else:
            found.others.append(info)
    return found


def account(asker: Asker, listed: Listed, *, uses: Mapping[str, str], keys: int) -> list[str]:
    """Count every object by its use; `uses` gives that of what is named under `compacted/`. Gives the ids of those that
    nothing names.
    """
    findings, manifests = asker.findings, asker.manifests
    manifest, end = manifests.manifest, manifests.number + 1
    kept = {*range(end - asker.subject.options.manifests_kept, end), *manifest.takeovers}
    for number, info in listed.manifests.items():
        findings.count(
            "manifests" if number in kept or number > manifests.number else "waiting to be deleted", info.size
        )
    for number, info in listed.log.items():
        needed = number >= manifest.replay or number in manifest.fences
        findings.count("log" if needed else "waiting to be deleted", info.size)
    for info in listed.keys:
        findings.count("keys" if info.name == keys_name(keys) else "waiting to be deleted", info.size)
    for info in listed.writers:
        findings.count("signs of its writer", info.size)
    copies = spare_manifest_name(manifests.number), spare_keys_name(keys)
    for info in listed.copies:
        findings.count("copies" if info.name in copies else "waiting to be deleted", info.size)
    for info in listed.others:
        findings.count("of other programs", info.size)
    gone = {ref.id for ref in manifests.gone()}
    unnamed = []
    for sst, info in listed.ssts.items():
        if sst in uses:
            findings.count(uses[sst], info.size)
        elif sst in gone:
            findings.count("waiting to be deleted", info.size)
        else:
            unnamed.append(sst)
    return unnamed


async def judge_unnamed(asker: Asker, unnamed: list[str], listed: Listed, replay: Replay | None) -> None:
    """Whether what nothing names is a leftover, which a later writer sweeps, or proves that something is missing.
    `replay` is the log, if it could be read.
    """
    subject, manifests = asker.subject, asker.manifests
    for sst in unnamed:
        asker.findings.count("left over", listed.ssts[sst].size)
    if subject.moment is not None:
        return  # its own writer may be about to name them
    for sst in unnamed:
        if epoch_of(sst) > manifests.manifest.epoch:
            what = f"it is of epoch {epoch_of(sst)}, and no manifest of that is there"
            asker.findings.add(Kind.INCOMPLETE, sst_name(sst), what)
    if replay is None:
        return
    telling = [sst for sst in unnamed if may_tell(sst, manifests.manifest)]
    census = await ask_headers(subject.store, telling, subject.key.store_id)
    for sst in census.beyond(replay.reach):
        try:
            await check_census(
                Census({sst: census.acknowledged[sst]}),
                replay.reach,
                store=subject.store,
                manifests=manifests,
                store_id=subject.key.store_id,
                index=asker.ciphers.index,
                tree=asker.ciphers.tree,
                checkpoint=asker.ciphers.checkpoint,
            )
        except Corrupt as error:
            asker.findings.corrupt(Kind.INCOMPLETE, error)
