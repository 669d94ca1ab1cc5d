"""Opening: the keys of a store and its place on this host, and then its engine.

A crash anywhere in here leaves a store that opens again: the keys object is made in one request, and the engine takes
over as `storage.lsm.recovery.take_over` says.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from storage.cache.frame_cache import FrameCache
from storage.check.read_run import CheckProgress
from storage.check.read_times import StoredReadTimes
from storage.check.subject import Subject
from storage.check.survey import survey
from storage.crypto import keys
from storage.crypto.cipher import self_test
from storage.crypto.key_rotation import why_no_key
from storage.env import Env
from storage.errors import KeyChanged, StorageError
from storage.fs.check import CheckOptions, CheckReport, check_at_rest, readable_view
from storage.fs.early_unlock import Unlocked
from storage.fs.name_tree import NameTree
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.fs.succession.signs_of_life import SignsOfLife
from storage.fs.succession.standby import Standby
from storage.fs.unlocking import remembered, unlock
from storage.journal.files import FolderFiles, JournalFiles
from storage.lsm.engine import Engine
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.derived_ciphers import Ciphers
from storage.lsm.recovery.take_over import Opener
from storage.lsm.recovery.turn import Force
from storage.lsm.recovery.view import Frames, ViewAhead
from storage.lsm.wiring import Context
from storage.objects.base import ObjectStore
from storage.objects.counting import CountingStore, RequestStats
from storage.objects.locations import open_location
from storage.objects.probe import probe
from storage.objects.retry import RetryingStore


async def open_store(
    location: str,
    password: bytes | bytearray,
    *,
    env: Env,
    create: bool = False,
    take_over: Force = False,
    accept_rollback: bool = False,
    adopt: bool = False,
    options: StoreOptions | None = None,
) -> Store:
    """Open a store as its writer; with `create` an empty place becomes one, and with `adopt` the copy of a store is a
    store of its own from now on (Conflict: it is the one that this host knows there). `take_over`: also if its last
    writer has not closed it, and may live elsewhere (see `Force`).

    NotFound: there is no store. WrongPassword, AccessDenied, Unavailable: as they say. Fenced: another writer holds it.
    RolledBack: it is not what this host remembers. Unsupported: the place cannot do what a store needs.
    """
    terms = _OpenMode(create=create, take_over=take_over, accept_rollback=accept_rollback, adopt=adopt)
    store = await _open_or_say_why(location, password, env, options or StoreOptions(), terms)
    try:
        await store.filling.undo_new()
    except BaseException:
        await store.close()
        raise
    store.keep_up()
    return store


async def open_reader(
    location: str, password: bytes | bytearray, *, env: Env, options: StoreOptions | None = None
) -> Store:
    """Open a store to read its newest durable state; takes nothing from a writer."""
    terms = _OpenMode(create=False, take_over=False, accept_rollback=False, read_only=True)
    return await _open_or_say_why(location, password, env, options or StoreOptions(), terms)


@dataclass(frozen=True, slots=True)
class _OpenMode:
    """What may be done to open a store."""

    create: bool
    take_over: Force
    accept_rollback: bool
    read_only: bool = False
    adopt: bool = False

    def for_engine(self, options: StoreOptions) -> dict[str, Any]:
        """What of it, and of what was read ahead, the engine is told."""
        taken = {"take_over": self.take_over, "accept_rollback": self.accept_rollback, "adopt": self.adopt}
        return {**taken, "read_only": self.read_only, "frames": _frames(options)}


async def _open_or_say_why(
    location: str, password: bytes | bytearray, env: Env, options: StoreOptions, terms: _OpenMode
) -> Store:
    try:
        return await _open(location, password, env, options, terms)
    except KeyChanged as error:
        objects = RetryingStore(open_location(location, env), env, options.store_deadline_seconds)
        try:
            raise await why_no_key(objects, error, options.cost) from None
        finally:
            await objects.close()


async def _open(location: str, password: bytes | bytearray, env: Env, options: StoreOptions, terms: _OpenMode) -> Store:
    self_test()
    place, stats, told, tree = open_location(location, env), RequestStats(), options.opening, NameTree()
    patient = RetryingStore(CountingStore(place, stats, env.monotonic), env, options.patience_seconds)
    opening = patient.with_deadline(options.store_deadline_seconds)
    told.health, told.step = options.unlocked.health if options.unlocked else patient.health, "its keys"
    host = remembered(patient.url, options)
    older: asyncio.Future[list[str]] | None = None
    signs = SignsOfLife(patient.once(), env) if options.signs and not terms.read_only else None
    try:
        if host is not None and terms.accept_rollback:
            await env.run("store", host.forget_damaged)
        to_unlock = partial(unlock, cost=options.cost, early=options.unlocked, create=terms.create)
        key, number, created = await to_unlock(opening, password, env, host, accept_rollback=terms.accept_rollback)
        old_keys: list[str] = []
        if not terms.read_only:
            older = asyncio.ensure_future(keys.replaced(opening, key, number, options.cost))

        async def prepare() -> None:
            """The store is whole, and nothing was written to it yet."""
            if not (created or options.tried):
                await _probe_once(opening, env, host)
            old_keys.extend(await older if older is not None else [])
            await options.last_look()

        told.health, told.step = patient.health, "its log and its indexes"
        engine = await Engine.open(
            store=patient,
            opening_store=opening,
            single_store=patient.once(),
            key=key,
            keys_number=number,
            tree=tree,
            env=env,
            options=msgspec.structs.replace(options.engine, patience_seconds=options.patience_seconds),
            host=host,
            prepare=prepare,
            journal=await env.run("store", _journal, patient.url, options, terms),
            taken=None if signs is None else partial(signs.begin, key),
            **terms.for_engine(options),
        )
        # A password change that was cut short left the slot of the old password behind.
        engine.garbage.add(old_keys)
    except BaseException:
        await _give_up(older, signs)
        await patient.close()
        raise
    return Store(
        objects=patient, stats=stats, engine=engine, tree=tree, env=env, options=options, created=created, signs=signs
    )


async def view_ahead(location: str, unlocked: Unlocked, *, env: Env, options: StoreOptions) -> ViewAhead | None:
    """What opening the store will need of it when its present writer has closed it, for `StoreOptions.ahead`. None: it
    cannot be had now; why that is will be said by who opens the store.
    """
    key, number = await unlocked.result()
    objects = RetryingStore(open_location(location, env), env, options.store_deadline_seconds)
    try:
        frames = Frames(SstNumbers(), FrameCache(options.engine.cache_bytes))
        return await Opener(objects, key, number, env, None, frames, options.engine).view_ahead()
    except StorageError:
        return None
    finally:
        await objects.close()


def _frames(options: StoreOptions) -> Frames | None:
    """By which numbers SSTs are known, if some are already."""
    ahead, cache_bytes = options.ahead, options.engine.cache_bytes
    return None if ahead is None else Frames(ahead.sst_numbers, FrameCache(cache_bytes), ahead)


async def open_standby(location: str, unlocked: Unlocked, *, env: Env, options: StoreOptions) -> Standby:
    """Stand by beside whoever writes a store. NotFound: there is none. Unsupported: the place cannot do what
    a store needs. WrongPassword, AccessDenied, Unavailable.
    """
    self_test()
    key, _ = await unlocked.result()
    objects = RetryingStore(open_location(location, env), env, options.store_deadline_seconds)
    standby = Standby(objects, key, env, remembered(objects.url, options))
    try:
        await standby.rehearse()
    except BaseException:
        await objects.close()
        raise
    return standby


async def check_store(
    location: str,
    password: bytes | bytearray,
    *,
    env: Env,
    check: CheckOptions,
    progress: CheckProgress,
    options: StoreOptions | None = None,
) -> CheckReport:
    """Whether a store at rest, or one that is served elsewhere, is whole. Takes nothing from a writer, and writes
    nothing. What keeps a store from being opened is a finding here, but for its keys: without those nothing can be
    read (Corrupt).
    """
    self_test()
    options = options or StoreOptions()
    objects = RetryingStore(open_location(location, env), env, options.store_deadline_seconds)
    options.opening.health, options.opening.step = objects.health, "its keys"
    try:
        host = remembered(objects.url, options)
        key, number, _ = await unlock(objects, password, env, None, create=False, accept_rollback=False)
        anchor = None if host is None else await env.run("store", host.load)
        options.opening.step = "everything that it refers to"
        subject = Subject(objects, key, number, env, NameTree, anchor, options=options.engine)
        return await check_at_rest(subject, objects, StoredReadTimes(host, env), check, progress)
    finally:
        await objects.close()


async def open_damaged(
    location: str, password: bytes | bytearray, *, env: Env, options: StoreOptions | None = None
) -> Store:
    """Open a store to read what is left of it, where data is missing or damaged. Corrupt: so is what says which data is
    the newest; then what was read could be old, and nothing would tell.
    """
    self_test()
    options = options or StoreOptions()
    stats = RequestStats()
    objects = RetryingStore(
        CountingStore(open_location(location, env), stats, env.monotonic), env, options.store_deadline_seconds
    )
    options.opening.health, options.opening.step = objects.health, "everything that it refers to"
    try:
        host = remembered(objects.url, options)
        key, number, _ = await unlock(objects, password, env, None, create=False, accept_rollback=False)
        anchor = None if host is None else await env.run("store", host.load)
        surveyed = await survey(Subject(objects, key, number, env, NameTree, anchor, options=options.engine))
        opened = readable_view(surveyed, Ciphers.derive(key))
        tree = NameTree()
        if surveyed.tree_image is not None:
            tree.load(surveyed.tree_image)
        engine_options = msgspec.structs.replace(options.engine, patience_seconds=options.patience_seconds)
        cache = FrameCache(engine_options.cache_bytes)
        numbers = surveyed.sst_numbers
        context = Context(opened, objects, objects.once(), key, tree, env, engine_options, None, numbers, cache, True)
        engine = await Engine.on_damaged(context, number)
    except BaseException:
        await objects.close()
        raise
    return Store(objects=objects, stats=stats, engine=engine, tree=tree, env=env, options=options, created=False)


async def _probe_once(store: ObjectStore, env: Env, host: HostState | None) -> None:
    """Try a store that this host does not remember."""
    if host is None or await env.run("store", host.load) is None:
        await probe(store, env)


async def _give_up(task: asyncio.Future[list[str]] | None, signs: SignsOfLife | None) -> None:
    """End what was begun ahead, if anything was, and give no more signs of life."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if signs is not None:
        await signs.stop()


def _journal(url: str, options: StoreOptions, terms: _OpenMode) -> JournalFiles | None:
    """Where a writer of this host has its journal; a store in memory ends with its process, and has none."""
    if options.journal_folder is None or terms.read_only or url == "memory://":
        return None
    return FolderFiles(options.journal_folder, url)
