"""Which devices are served, and how many clients each has."""

import pytest

from nbdserver.exports import Device, Exports
from storage.errors import NotFound
from tests.support.memory_device import MemoryDevice, memory_exports


@pytest.fixture
def devices() -> dict[str, MemoryDevice]:
    return {"disk": MemoryDevice(10 << 30), "tenant-a/vol1": MemoryDevice(512, read_only=True)}


def test_find(devices: dict[str, MemoryDevice]) -> None:
    exports = memory_exports(devices)
    assert exports.names() == ["disk", "tenant-a/vol1"]
    found = exports.find("disk")
    assert found is not None
    assert (found.name, found.size, found.read_only) == ("disk", 10 << 30, False)
    assert found.description == "disk of 10 GiB"
    locked = exports.find("tenant-a/vol1")
    assert locked is not None
    assert locked.read_only
    assert locked.description == "disk of 512 bytes, read-only"
    assert exports.find("nothing") is None


def test_the_default_is_the_only_one(devices: dict[str, MemoryDevice]) -> None:
    assert memory_exports(devices).find("") is None
    assert memory_exports({}).find("") is None
    only = memory_exports(devices, only=["disk"]).find("")
    assert only is not None
    assert only.name == "disk"
    del devices["disk"]
    rest = memory_exports(devices).find("")
    assert rest is not None
    assert rest.name == "tenant-a/vol1"


def test_only_what_is_named_is_served(devices: dict[str, MemoryDevice]) -> None:
    exports = memory_exports(devices, only=["disk", "not made yet"])
    assert exports.names() == ["disk", "not made yet"]
    assert exports.find("tenant-a/vol1") is None
    assert exports.find("not made yet") is None
    assert exports.find("disk") is not None


def test_read_only_holds_for_all(devices: dict[str, MemoryDevice]) -> None:
    found = memory_exports(devices, read_only=True).find("disk")
    assert found is not None
    assert found.read_only


def test_a_size_is_the_size_now(devices: dict[str, MemoryDevice]) -> None:
    found = memory_exports(devices).find("disk")
    assert found is not None
    devices["disk"].size = 1 << 40
    assert found.size == 1 << 40


def test_attachments_belong_to_the_device_under_every_name() -> None:
    """A client that attached `current` keeps `db-2026` from being deleted."""
    device = MemoryDevice(4096)
    names = {"db-2026": device, "current": device, "other": MemoryDevice(4096)}

    def lookup(name: str) -> Device:
        try:
            return names[name]
        except KeyError:
            raise NotFound(f"no device named {name}") from None

    exports = Exports(lookup, lambda: ["db-2026", "other"])
    found = exports.find("current")
    assert found is not None
    exports.attach(found)
    exports.attach(found)
    assert [exports.attached(name) for name in ("db-2026", "current", "other", "none")] == [2, 2, 0, 0]
    exports.detach(found)
    exports.detach(found)
    assert exports.attached("db-2026") == 0
