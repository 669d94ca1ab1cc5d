"""The state of an open store, taken now: what its parts say of themselves, in the structures of `status`."""

from collections.abc import Callable
from functools import partial

import msgspec

from storage.crypto.keyslots import keys_name
from storage.env import Env
from storage.format.frame import BLOCK_BYTES
from storage.format.names import manifest_name
from storage.fs.check import device_names
from storage.fs.metadata.inodes import Inode
from storage.fs.metadata.namespace import Namespace
from storage.fs.name_tree import NameTree
from storage.fs.status import (
    DeviceUsage,
    FailingRequest,
    GarbageStatus,
    StoreFailure,
    StoreStatus,
    UncopiedObject,
    ViewStatus,
    unreadable,
)
from storage.fs.store_passwords import StorePasswords
from storage.lsm.compaction.usage import LayerUsage
from storage.lsm.engine import Engine
from storage.lsm.gc.garbage import Garbage
from storage.lsm.read.extents import allocated_bytes
from storage.objects.counting import RequestStats
from storage.objects.retry import RetryingStore
from storage.prices import Costs, PriceList, costs
from storage.request_budget import Outlook
from storage.stats import EngineNumbers


def current_status(
    engine: Engine,
    tree: NameTree,
    objects: RetryingStore,
    requests: RequestStats,
    env: Env,
    *,
    view: ViewStatus | None,
    opened_at: float,
    damaged: list[str],
    passwords: StorePasswords,
    prices: PriceList | None,
    budget: Outlook | None,
) -> StoreStatus:
    """All of it, with that of a view; `opened_at` by the monotonic clock."""
    namespace, moment = tree.namespace, partial(_moment, env)
    devices, report, uptime = namespace.devices(), engine.report(), round(env.monotonic() - opened_at, 3)
    return StoreStatus(
        url=objects.url,
        store_id=engine.store_id.hex(),
        epoch=engine.epoch,
        read_only=engine.read_only,
        view=view,
        devices=len(devices),
        logical_bytes=sum(namespace.size(inode) for _, inode in devices),
        allocated_bytes=sum(device_usage(engine, namespace, inode).allocated_bytes for _, inode in devices),
        space_amplification=_ratio(report.numbers.stored_bytes, report.numbers.live_bytes),
        write_amplification=_ratio(requests.bytes_up, report.numbers.written_bytes),
        garbage_objects=len(engine.garbage),
        uptime_seconds=uptime,
        sole_writer_at=_sole_writer_at(engine, moment),
        failing=None if (away := objects.health.failing) is None else StoreFailure(moment(away.since), away.reason),
        failing_requests=_failing(objects, moment),
        **msgspec.structs.asdict(report.numbers),
        unreadable=[unreadable(one, device_names(tree), moment) for one in report.suspects],
        damaged=damaged,
        lost=report.lost,
        uncopied=_uncopied(engine, passwords, moment),
        unkept=_unkept(engine),
        garbage=_garbage(engine.garbage, moment),
        maintenance=report.maintenance_job,
        flushing=report.flushing,
        closing=engine.closing,
        requests=dict(requests.requests),
        request_errors=requests.errors,
        bytes_up=requests.bytes_up,
        bytes_down=requests.bytes_down,
        costs=None if prices is None else _costs(prices, requests, report.numbers, uptime),
        budget=budget,
    )


def device_usage(engine: Engine, namespace: Namespace, inode: Inode) -> DeviceUsage:
    """What a device uses, as last counted."""
    layer, size = engine.layers[inode.layer], namespace.size(inode)
    used = engine.meter.usage.layers.get(inode.layer, LayerUsage(0, 0, 0))
    # A block that was written as one frame reaches beyond the end of the device.
    behind = allocated_bytes(layer.extents(size, -size % BLOCK_BYTES)) if size % BLOCK_BYTES else 0
    return DeviceUsage(
        logical_bytes=size,
        allocated_bytes=max(used.allocated - behind, 0),
        live_bytes=used.live,
        memtable_bytes=used.memtable,
        unlogged_bytes=layer.queue.unlogged_bytes,
        written_bytes=layer.written_bytes,
    )


def _moment(env: Env, monotonic: float) -> float:
    """The wall clock's time of a moment of the monotonic clock."""
    return round(env.wall_clock() - (env.monotonic() - monotonic), 3)


def _costs(prices: PriceList, requests: RequestStats, numbers: EngineNumbers, uptime: float) -> Costs:
    return costs(
        prices,
        requests=requests.requests,
        bytes_down=requests.bytes_down,
        bytes_kept=numbers.stored_bytes + numbers.wal_bytes,
        uptime_seconds=uptime,
    )


def _sole_writer_at(engine: Engine, moment: Callable[[float], float]) -> float | None:
    looked = None if engine.read_only else engine.manifests.sole_at
    return None if looked is None else moment(looked)


def _failing(objects: RetryingStore, moment: Callable[[float], float]) -> list[FailingRequest]:
    alone = objects.health.failing_alone()
    return [FailingRequest(each.request, each.name, moment(each.since), each.reason) for each in alone]


def _unkept(engine: Engine) -> list[str]:
    """A state folder, or a folder of the journal, that takes nothing."""
    found = []
    if engine.host is not None and (sentence := engine.host.unsaved.sentence()) is not None:
        found.append(sentence)
    if (failure := engine.journal.failure) is not None:
        found.append(
            f"the journal is off, and what is answered is lost until it is flushed if the server is killed: {failure} "
            "(make room in its folder, let this user write there, or name another one with --journal)"
        )
    return found


def _uncopied(engine: Engine, passwords: StorePasswords, moment: Callable[[float], float]) -> list[UncopiedObject]:
    found = []
    for name, of in (
        (manifest_name(engine.manifests.number), engine.copies),
        (keys_name(engine.keys_number), passwords),
    ):
        if of.failing is not None:
            found.append(UncopiedObject(name, moment(of.failing_since), of.failing))
    return found


def _garbage(garbage: Garbage, moment: Callable[[float], float]) -> GarbageStatus:
    failing = garbage.failing
    if failing is None:
        return GarbageStatus(len(garbage), None, "")
    return GarbageStatus(len(garbage), moment(failing.since), failing.reason)


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 3) if whole else 0.0
