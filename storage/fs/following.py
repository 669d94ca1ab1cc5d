"""Following: a store that somebody else writes, seen as a row of views, each of which stays as it is.

A view is what the newest manifest and the log behind it say at one moment: a state that the store had, with everything
that was acknowledged before the view was begun. It is a store of its own, opened to be read, and never changes: a
filesystem that is mounted from it would not survive blocks that change under it. When the writer has gone on, another
view is made beside it, and `newest` gives that one from then on; whoever holds a device of an older one keeps it.

A view rests on objects that its writer deletes when nothing of the *newest* state needs them. Nothing keeps them for
readers. What is gone is an error for who reads it (Closed), and never other data: no name of an object is used again.
Nothing is written to the store, so a crash leaves nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable

import msgspec

from storage.cache.frame_cache import FrameCache
from storage.crypto import keys
from storage.crypto.cipher import self_test
from storage.crypto.data_key import DataKey
from storage.crypto.key_rotation import why_no_key, without_retired
from storage.env import Env
from storage.errors import Closed, KeyChanged, NotFound, RolledBack, StorageError
from storage.format.names import manifest_name, spare_manifest_name, wal_name
from storage.fs.name_tree import NameTree
from storage.fs.status import ViewStatus
from storage.fs.store import Store
from storage.fs.store_options import StoreOptions
from storage.fs.unlocking import remembered, unlock
from storage.lsm.background import Background
from storage.lsm.engine import Engine
from storage.lsm.index.sst_numbers import SstNumbers
from storage.lsm.manifest.read_manifest import NewestLook
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.view import Frames
from storage.objects.counting import CountingStore, RequestStats
from storage.objects.locations import open_location
from storage.objects.retry import RetryingStore
from storage.units import MIB

LOADED_BYTES_RATE = MIB
"""What loading views may take of the line on average, bytes a second: the index of a terabyte is 92 MB, so while its
writer goes on a view of that is a minute and a half old."""

LOADING_SHARE = 0.1
"""Of the time, which loading views may take."""

VIEWS_MAX = 4
"""Views in memory at once, each with an index of its own. While clients hold as many, no newer one is made."""

_log = logging.getLogger("nbdserver")


class FollowedView:
    """One moment of a store, as a store that can be read."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self.store = store
        self._engine = engine
        self._look = NewestLook(is_newest=True, deleted=False, copy_deleted=False)

    async def is_newest(self, objects: RetryingStore) -> bool:
        """Whether nothing was committed since, to the manifest or to the log."""
        manifests = self._engine.manifests
        self._look = await manifests.reader().look(manifests.number)
        if not self._look.is_newest:
            return False
        try:
            await objects.head(wal_name(self._engine.log_end))
        except NotFound:
            return True
        return False

    @property
    def moment(self) -> tuple[int, int]:
        """What it is of: the number of the manifest, and where the log ended."""
        return self._engine.manifests.number, self._engine.log_end

    @property
    def missing(self) -> str:
        """What somebody has deleted of what says that it is the newest, as a sentence; else nothing."""
        name, copy = (of(self._engine.manifests.number) for of in (manifest_name, spare_manifest_name))
        match self._look:
            case NewestLook(is_newest=False):
                return ""  # its writer deletes what it replaced
            case NewestLook(deleted=True, copy_deleted=True):
                return (
                    f"{name} and its copy are gone: what is shown is right, and a server that opens the store now "
                    "finds an older state; put one of the two back from a copy of it before anything writes to it"
                )
            case NewestLook(deleted=True):
                return (
                    f"{name} is gone, and its copy {copy} stands in for it: nothing is lost; the server that writes "
                    "the store replaces it within a day, or the next one when it opens it; find out who deleted it"
                )
        return ""

    @property
    def collected(self) -> bool:
        """Whether somebody met a part of it that is gone."""
        return self._engine.collected

    @property
    def bytes_read(self) -> int:
        """What it took to load it, about."""
        manifest = self._engine.manifests.manifest
        refs = [ref for ref in (manifest.tree, manifest.checkpoint) if ref is not None]
        indexes = sum(sst.size - sst.index_offset for sst in manifest.ssts)
        return sum(ref.size for ref in refs) + indexes + self._engine.log.position.logged_bytes


class Follower:
    """The views of one store. Owned by the event loop."""

    def __init__(
        self,
        objects: RetryingStore,
        stats: RequestStats,
        key: DataKey,
        env: Env,
        host: HostState | None,
        options: StoreOptions,
    ) -> None:
        self._objects = objects
        self._impatient = objects.with_deadline(options.store_deadline_seconds)
        self._stats = stats
        self._key = key
        self._env = env
        self._host = host
        self._options = options
        self._frames = Frames(SstNumbers(), FrameCache(options.engine.cache_bytes))
        self._views: list[FollowedView] = []
        """Those that are held, and the newest, which is the last."""
        self._opened_at = env.monotonic()
        self._known_at = self._elapsed()
        """When the newest one was last known to be what is committed."""
        self._pause = options.look_seconds
        self._reason = ""
        self._background = Background()
        self.failed: asyncio.Future[StorageError] = asyncio.get_running_loop().create_future()
        """Resolves when it can go on no more."""
        self.is_held: Callable[[Store], bool] = lambda store: False
        """Whether a client has a device of this view; set by the server."""
        self.clients_of: Callable[[str], list[str]] = lambda name: []
        """As that of a store; set by the server."""

    @property
    def newest(self) -> Store:
        """The newest view. It may be asked anything that a store that was opened to be read may."""
        return self._views[-1].store

    async def load(self) -> None:
        """Make a view of what is committed now, the newest from then on. StorageError: it cannot be had now, and all is
        as it was."""
        began, known_at = self._env.monotonic(), self._elapsed()
        tree = NameTree()
        options = msgspec.structs.replace(
            self._options.engine, patience_seconds=self._options.patience_seconds, manifests_kept=1
        )
        engine = await Engine.open(
            store=self._objects,
            opening_store=self._impatient,
            single_store=self._objects.once(),
            key=self._key,
            keys_number=await keys.newest_number(self._impatient),
            tree=tree,
            env=self._env,
            options=options,
            host=self._host,
            read_only=True,
            frames=self._frames,
        )
        # Behind the manifest: of keys that leave after this look there will be a newer one, and so a newer view.
        self._key = engine.key = await without_retired(self._impatient, self._key, self._options.cost)
        if self._views and (engine.manifests.number, engine.log_end) < self._views[-1].moment:
            raise RolledBack(
                f"{self._objects.url} shows an older state than it did: put back what was deleted there, or start this "
                "server again if it was set back on purpose"
            )
        store = Store(
            objects=self._objects,
            stats=self._stats,
            engine=engine,
            tree=tree,
            env=self._env,
            options=self._options,
            created=False,
        )
        store.view, store.open_devices.clients_of = self.status, self.clients_of
        store.opened_at = self._opened_at  # counters of requests go on from one view to the next
        view = FollowedView(store, engine)
        self._views.append(view)
        self._known_at, self._reason = known_at, ""
        took = self._env.monotonic() - began
        self._pause = max(self._options.look_seconds, took / LOADING_SHARE, view.bytes_read / LOADED_BYTES_RATE)
        _log.info("view_loaded", extra={"manifest": engine.manifests.number, "seconds": round(took, 3)})

    def start(self) -> None:
        """From now on a newer view is made when there is anything newer."""
        self._background.start("following of the writer", self._follow, on_failure=self._fail)

    async def close(self) -> None:
        """Give everything back. Whoever still reads a view is refused."""
        self._fail(Closed("the store was closed"))
        await self._background.stop()
        for view in self._views:
            await view.store.end(Closed("the store was closed"))
        await self._objects.close()

    def status(self) -> ViewStatus:
        """How old the newest view is, and what became of the others."""
        age = self._elapsed() - self._known_at
        shown = [view for view in self._views if view is self._views[-1] or self.is_held(view.store)]
        return ViewStatus(
            as_of=self._env.wall_clock() - age,
            age_seconds=round(age, 3),
            older=len(shown) - 1,
            collected=sum(view.collected for view in shown),
            reason=self._reason,
            missing=self._views[-1].missing,
        )

    def _elapsed(self) -> float:
        """Seconds on a clock that goes on while the machine is suspended: a view grows old then as well."""
        return self._env.monotonic() + self._env.suspended()

    async def _follow(self) -> None:
        while True:
            pause, self._pause = self._pause, self._options.look_seconds
            while pause > 0:
                await asyncio.sleep(min(pause, self._options.look_seconds))
                pause = 0.0 if self._views[-1].collected else pause - self._options.look_seconds
            try:
                await self._look()
            except KeyChanged as error:
                # No newer view can be read with the key that was asked for at the start.
                raise await why_no_key(self._impatient, error, self._options.cost) from None
            except StorageError as error:
                if str(error) != self._reason:
                    _log.warning("view_not_loaded", extra={"reason": str(error)})
                self._reason = str(error)

    async def _look(self) -> None:
        began = self._elapsed()
        self._forget_unheld()
        if await self._views[-1].is_newest(self._objects):
            self._known_at, self._reason = began, ""
            return
        if len(self._views) >= VIEWS_MAX:
            self._reason = (
                f"clients hold {len(self._views)} older views: a newer one is made when one of them is let go"
            )
            return
        await self.load()

    def _forget_unheld(self) -> None:
        """Views that no client has are forgotten, but for the newest."""
        held = [view for view in self._views[:-1] if self.is_held(view.store)]
        if len(held) < len(self._views) - 1:
            self._views = [*held, self._views[-1]]
            gc.collect()  # an engine is a circle, and its index is large

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            if not isinstance(error, StorageError):
                _log.error("following_failed", exc_info=error)
                error = Closed(f"an internal error stopped the following of this store ({type(error).__name__})")
            self.failed.set_result(error)


async def open_follower(
    location: str, password: bytes | bytearray, *, env: Env, options: StoreOptions | None = None
) -> Follower:
    """Open a store to read it, and go on following whoever writes it; takes nothing from a writer. NotFound: there is
    no store. WrongPassword, AccessDenied, Unavailable, Corrupt, RolledBack: as for `open_reader`.
    """
    self_test()
    options = options or StoreOptions()
    stats = RequestStats()
    counted = CountingStore(open_location(location, env), stats, env.monotonic)
    objects = RetryingStore(counted, env, options.patience_seconds)
    told = options.opening
    told.health, told.step = options.unlocked.health if options.unlocked else objects.health, "its keys"
    host = remembered(objects.url, options)
    try:
        impatient = objects.with_deadline(options.store_deadline_seconds)
        key, _, _ = await unlock(
            impatient,
            password,
            env,
            host,
            create=False,
            accept_rollback=False,
            cost=options.cost,
            early=options.unlocked,
        )
        told.health, told.step = objects.health, "its log and its indexes"
        follower = Follower(objects, stats, key, env, host, options)
        await follower.load()
    except KeyChanged as error:
        try:
            raise await why_no_key(impatient, error, options.cost) from None
        finally:
            await objects.close()
    except BaseException:
        await objects.close()
        raise
    follower.start()
    return follower
