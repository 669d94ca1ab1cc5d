"""The admin socket of a server that stands by: who it is, beside whom, and how to end it.

It is another socket than that of a server that serves, since both may be on one host. Nothing else is answered: what is
asked of a store is for whoever has it.
"""

import os
from collections.abc import Callable
from typing import Any

from nbdserver import __version__
from nbdserver.admin.api import Admin, Handler
from nbdserver.admin.asked import Answer
from storage import Store
from storage.errors import Unavailable


def standby_admin(
    status: Callable[[], Answer], process: Callable[[], Answer], stop: Callable[[], None], metrics: Handler
) -> Admin:
    """One that is to be started at `socket_path(..., standby=True)`."""
    about: dict[str, Any] = {"version": __version__, "pid": os.getpid()}
    return Admin(_no_store, dict, process=process, stop=stop, metrics=metrics, describe=lambda: {**about, **status()})


def _no_store() -> Store:
    raise Unavailable("this server stands by: ask the one that has the store")
