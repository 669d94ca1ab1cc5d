"""The storage engine: it knows blocks, bytes and buckets, and nothing of NBD.

The names below are imported when they are first used: a command that only needs `storage.errors` must not
wait a third of a second for an engine.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.fs.check import CheckOptions, CheckReport
    from storage.fs.devices.device import Device
    from storage.fs.following import Follower, open_follower
    from storage.fs.opening import check_store, open_damaged, open_reader, open_standby, open_store, view_ahead
    from storage.fs.status import DeviceInfo, StoreStatus
    from storage.fs.store import Store
    from storage.fs.store_options import Opening, StoreOptions
    from storage.lsm.memtable.gate import Gate
    from storage.lsm.options import EngineOptions
    from storage.lsm.read.assemble import Piece
    from storage.lsm.read.extents import ExtentState

__all__ = [
    "CheckOptions",
    "CheckReport",
    "Device",
    "DeviceInfo",
    "EngineOptions",
    "ExtentState",
    "Follower",
    "Gate",
    "Opening",
    "Piece",
    "Store",
    "StoreOptions",
    "StoreStatus",
    "check_store",
    "open_damaged",
    "open_follower",
    "open_reader",
    "open_standby",
    "open_store",
    "view_ahead",
]

_PLACES = {
    "CheckOptions": "storage.fs.check",
    "CheckReport": "storage.fs.check",
    "Device": "storage.fs.devices.device",
    "DeviceInfo": "storage.fs.status",
    "EngineOptions": "storage.lsm.options",
    "Follower": "storage.fs.following",
    "Gate": "storage.lsm.memtable.gate",
    "Opening": "storage.fs.store_options",
    "Piece": "storage.lsm.read.assemble",
    "ExtentState": "storage.lsm.read.extents",
    "Store": "storage.fs.store",
    "StoreOptions": "storage.fs.store_options",
    "StoreStatus": "storage.fs.status",
    "check_store": "storage.fs.opening",
    "open_damaged": "storage.fs.opening",
    "open_follower": "storage.fs.following",
    "open_reader": "storage.fs.opening",
    "open_standby": "storage.fs.opening",
    "open_store": "storage.fs.opening",
    "view_ahead": "storage.fs.opening",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'storage' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
