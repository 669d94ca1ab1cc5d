"""The data key of a store: with it an opening begins. What this host remembers says whether a place without keys is an
empty one.
"""

import os

from storage.bucket.listing import list_log, list_manifests_and_copies, list_ssts
from storage.crypto import keys
from storage.crypto.data_key import DataKey
from storage.crypto.keys import Cost
from storage.env import Env
from storage.errors import AlreadyExists, Corrupt, NotFound, RolledBack
from storage.fs.early_unlock import Unlocked
from storage.fs.store_options import StoreOptions
from storage.lsm.recovery.anchor import HostState
from storage.lsm.recovery.state_folder import default_state_folder
from storage.objects.base import ObjectStore
from storage.objects.probe import probe


def remembered(url: str, options: StoreOptions) -> HostState | None:
    """What this host remembers of a store; a store in memory has no host."""
    if url == "memory://":
        return None
    return HostState(options.state_folder or default_state_folder(os.environ), url, options.admin_socket)


async def unlock(
    store: ObjectStore,
    password: bytes | bytearray,
    env: Env,
    host: HostState | None,
    *,
    create: bool,
    accept_rollback: bool,
    cost: Cost = keys.DEFAULT_COST,
    early: Unlocked | None = None,
) -> tuple[DataKey, int, bool]:
    """The data key, the number of its keys object, and whether it was drawn just now, which needs `create` and a place
    where nothing is. `early` has begun to open it. Corrupt: a store is there without its keys. RolledBack: this host
    remembers one.
    """
    anchor = None if host is None else await env.run("store", host.load)
    try:
        key, number = await (keys.load(store, password, env, cost) if early is None else early.result())
    except NotFound:
        manifests, log, ssts = await list_manifests_and_copies(store), await list_log(store), await list_ssts(store)
        for found in (*manifests[0].values(), *manifests[1].values(), *log.values(), *ssts.values()):
            try:
                # They come before all else: a store that was made between the two looks has them by now.
                return *(await keys.load(store, password, env, cost)), False
            except NotFound:
                raise Corrupt(
                    keys.KEYS_PREFIX,
                    f"it is empty, but {found.name} is there: restore the keys, without them nothing can be read",
                ) from None
        if anchor is not None and not accept_rollback:
            raise RolledBack(
                f"{store.url} is empty, but this host remembers a store there: "
                "restore it, or open it with --accept-rollback"
            ) from None
        if not create:
            raise NotFound(f"there is no store at {store.url}; make one with: nbdserver init {store.url}") from None
    else:
        return key, number, False
    if host is not None and anchor is not None:
        await env.run("store", host.forget)
    await probe(store, env)
    try:
        return await keys.create(store, password, env, cost), 1, True
    except AlreadyExists:
        key, number = await keys.load(store, password, env, cost)
        return key, number, False
