"""Filling: a device takes a whole content from somewhere, held by who fills it, wholly or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from storage.env import Env
from storage.errors import StorageError
from storage.fs.device import Device
from storage.fs.name_tree import NameTree
from storage.lsm.engine import Engine


class Filling:
    """Of one open store. Owned by the event loop."""

    def __init__(
        self,
        engine: Engine,
        tree: NameTree,
        env: Env,
        device: Callable[[str], Device],
        delete: Callable[[str], Awaitable[None]],
    ) -> None:
        """`device` gives the device of a name; `delete` takes one away now, and what it gives says when that is
        durable.
        """
        self._engine = engine
        self._tree = tree
        self._env = env
        self._device = device
        self._delete = delete

    @asynccontextmanager
    async def new(self, name: str, size: int, user: str) -> AsyncIterator[Device]:
        """A new device, held from its first moment, and gone again if what is done with it fails."""
        created = self._engine.change_tree(self._tree.namespace.plan_create_device(name, size, self._env.wall_clock()))
        device = self._device(name)
        device.exclusive_user = user
        try:
            await created
            yield device
        except BaseException:
            # Deleted in this very turn, so that nobody gets it between its user and the end.
            with suppress(StorageError):
                await asyncio.shield(self._delete(name))
            raise
        finally:
            device.exclusive_user = None
