"""What a check says of a store, with the names of its devices: the report that commands print; and the scrub of one
that is open.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from storage.check.findings import Account, Finding, Kind
from storage.check.read_data import DataReader
from storage.check.read_run import CheckProgress, ReadRun
from storage.check.read_times import StoredReadTimes
from storage.check.running import held
from storage.check.running import reader as running_reader
from storage.check.scrub import Scrub
from storage.check.subject import Subject, is_changed
from storage.check.survey import Surveyed, survey
from storage.errors import Corrupt
from storage.format.frame import FrameCodec
from storage.format.names import MANIFESTS, manifest_name
from storage.fs.name_tree import NameTree
from storage.fs.status import DiskRange
from storage.lsm.engine import Engine
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.recovery.take_over import Opened
from storage.lsm.tree_state import TreeState
from storage.objects.retry import RetryingStore
from storage.units import MIB

READ_RATE = 50 * MIB
"""Bytes a second that a check reads, unless it is told otherwise: clients share the link."""


class CheckFinding(msgspec.Struct, frozen=True):
    """One thing that is wrong; see `storage.check.findings` for the kinds."""

    kind: str
    object: str
    sentence: str
    fault: bool
    """No data is lost by it, and the store opens."""
    ranges: list[DiskRange]
    """Where devices show it; empty also where nobody can know."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What is to be checked beside all that refers to something."""

    read_data: bool = False
    """Open every frame."""
    rate: float = READ_RATE
    """Bytes a second of that; 0: as fast as it goes."""
    resume: bool = False
    """Pass over what the last run read, if that was cut short."""


class CheckReport(msgspec.Struct, frozen=True):
    """All that a check found."""

    url: str
    manifest: int
    """The number of the manifest that was checked."""
    findings: list[CheckFinding]
    accounts: dict[str, Account]
    """By use: objects and bytes of all that lies in the store."""


async def check_running(
    engine: Engine,
    tree: NameTree,
    objects: RetryingStore,
    read_times: StoredReadTimes,
    options: CheckOptions,
    progress: CheckProgress,
) -> CheckReport:
    """Check the store of an engine that writes it. Its clients go on; nothing is deleted while references are checked.
    `objects` gives up after a while.
    """
    context, env = engine.compactor.context, engine.compactor.context.env
    async with held(context) as moment:
        subject = Subject(objects, engine.key, engine.keys_number, env, NameTree, moment=moment, options=engine.options)
        surveyed = await survey(subject)
    if options.read_data:
        run = ReadRun(_reader(engine, objects), await read_times.load(), env, rate=options.rate, save=read_times.save)
        listed = context.manifests.listed()
        surveyed.findings.all += await run.run(listed, progress, resume=options.resume)
    return report(objects.url, surveyed, tree)


def start_scrub(
    engine: Engine, objects: RetryingStore, read_times: StoredReadTimes, period_seconds: float
) -> asyncio.Task[None]:
    """From now on all data of the store is read once in a period, until the engine ends, or this task."""
    context = engine.compactor.context
    return Scrub(
        period_seconds=period_seconds,
        read_times=read_times,
        reader=_reader(engine, objects),
        listed=context.manifests.listed,
        env=context.env,
        slowdown=lambda: engine.compactor.slowdown,
    ).start(engine)


def _reader(engine: Engine, objects: RetryingStore) -> DataReader:
    context = engine.compactor.context
    return running_reader(context, lambda: objects.get(manifest_name(context.manifests.number), 0, 1))


async def check_at_rest(
    subject: Subject,
    objects: RetryingStore,
    read_times: StoredReadTimes,
    options: CheckOptions,
    progress: CheckProgress,
) -> CheckReport:
    """Check a store that no engine of this process writes. `objects` gives up after a while."""
    surveyed = await survey(subject)
    manifests, env, number = surveyed.manifests, subject.env, surveyed.manifests.number
    if options.read_data and number:

        async def is_listed(sst: str) -> bool:
            """A writer elsewhere may have taken it off the list."""
            if await is_changed(manifests):
                await manifests.read_newest()
            return manifests.listed().has(sst)

        ciphers = Ciphers.derive(subject.key)
        reader = DataReader(
            store=objects.once(),
            witness=lambda: objects.get(manifest_name(manifests.number), 0, 1),
            index_cipher=ciphers.index,
            codec=FrameCodec(ciphers.frames, subject.key.store_id),
            store_id=subject.key.store_id,
            env=env,
            sst_numbers=surveyed.sst_numbers,
            forest=lambda: surveyed.forest,
            is_listed=is_listed,
        )
        run = ReadRun(reader, await read_times.load(), env, rate=options.rate, save=read_times.save)
        listed = manifests.listed()
        surveyed.findings.all += await run.run(listed, progress, resume=options.resume)
    return report(objects.url, surveyed, surveyed.tree)


def report(url: str, surveyed: Surveyed, tree: TreeState) -> CheckReport:
    """What a survey found, in the names that `tree` gives."""
    names = device_names(tree) if isinstance(tree, NameTree) else {}
    findings = [named(finding, names) for finding in surveyed.findings.all]
    return CheckReport(url, surveyed.manifests.number, findings, surveyed.findings.accounts)


def device_names(tree: NameTree) -> dict[int, str]:
    """The name of the device or snapshot whose layer it is, by layer."""
    names = tree.namespace
    return {
        layer.number: f"{name}@{layer.name}" if layer.frozen else name
        for name, inode in names.devices()
        for layer in names.table.trunk(inode.layer)
    }


def named(finding: Finding, names: Mapping[int, str]) -> CheckFinding:
    """A finding with devices in place of layers; what is of no device is left out, since nobody sees it."""
    ranges = [DiskRange(names[r.layer], r.offset, r.length) for r in finding.ranges if r.layer in names]
    return CheckFinding(finding.kind.value, finding.object, finding.sentence, finding.fault, ranges)


def readable_view(surveyed: Surveyed, ciphers: Ciphers) -> Opened:
    """What an engine reads from, where all that is damaged is data. Corrupt: something is that says which data is the
    newest.
    """
    for finding in surveyed.findings.all:
        if not finding.fault and finding.kind in _HIDE_WHAT_IS_NEWEST:
            raise Corrupt(finding.object, f"{finding.sentence}; without it nobody can tell old data from new")
    if surveyed.replay is None or not surveyed.complete or not surveyed.manifests.number:
        first = next((finding for finding in surveyed.findings.all if not finding.fault), None)
        name, sentence = (MANIFESTS, "there is none") if first is None else (first.object, first.sentence)
        raise Corrupt(name, f"{sentence}; without it nobody can tell old data from new")
    manifests = surveyed.manifests
    return Opened(manifests, ciphers, surveyed.replay, surveyed.forest, manifests.manifest.epoch, None)


_HIDE_WHAT_IS_NEWEST = frozenset(
    {Kind.KEYS, Kind.ROLLED_BACK, Kind.INCOMPLETE, Kind.MANIFEST, Kind.LOG, Kind.STALE, Kind.MEMORY}
)
