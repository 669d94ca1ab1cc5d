"""The storage engine: it knows blocks, bytes and buckets, and nothing of NBD."""

from storage.fs.device import Device
from storage.fs.store import DeviceInfo, Store, StoreOptions, open_reader, open_store
from storage.lsm.engine import EngineOptions
from storage.lsm.extents import State
from storage.lsm.gather import Piece
from storage.lsm.pressure import Gate

__all__ = [
    "Device",
    "DeviceInfo",
    "EngineOptions",
    "Gate",
    "Piece",
    "State",
    "Store",
    "StoreOptions",
    "open_reader",
    "open_store",
]
