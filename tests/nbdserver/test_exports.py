"""Which devices are served, and how many clients each has."""

import pytest

from nbdserver.access import AccessList, Grant, Identity, Mode
from nbdserver.block_device import BlockDevice
from nbdserver.exports import Exports
from nbdserver.traffic import Traffic
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
    assert list(exports.names()) == ["disk", "not made yet"]
    assert exports.find("tenant-a/vol1") is None
    assert exports.find("not made yet") is None
    assert exports.find("disk") is not None


def test_read_only_holds_for_all(devices: dict[str, MemoryDevice]) -> None:
    found = memory_exports(devices, read_only=True).find("disk")
    assert found is not None
    assert found.read_only


def test_a_client_goes_by_the_size_it_was_told(devices: dict[str, MemoryDevice]) -> None:
    exports = memory_exports(devices)
    before = exports.find("disk")
    size = devices["disk"].size
    devices["disk"].size = 1 << 40
    after = exports.find("disk")
    assert before is not None
    assert after is not None
    assert (before.size, after.size) == (size, 1 << 40)


def test_attachments_belong_to_the_device_under_every_name() -> None:
    """A client that attached `current` keeps `db-2026` from being deleted."""
    device = MemoryDevice(4096)
    names = {"db-2026": device, "current": device, "other": MemoryDevice(4096)}

    def lookup(name: str) -> BlockDevice:
        try:
            return names[name]
        except KeyError:
            raise NotFound(f"no device named {name}") from None

    exports = Exports(lookup, lambda: ["db-2026", "other"])
    found = exports.find("current")
    assert found is not None
    exports.attach(found, "one")
    exports.attach(found, "two")
    assert exports.clients_of("db-2026") == ["one", "two"]
    assert [len(exports.clients_of(name)) for name in ("db-2026", "current", "other", "none")] == [2, 2, 0, 0]
    exports.detach(found, "one", Traffic())
    assert exports.clients_of("current") == ["two"]
    exports.detach(found, "two", Traffic())
    assert not exports.clients_of("db-2026")
    assert exports.clients_of("none") == []


# The default export


def test_no_name_means_the_default_export(devices: dict[str, MemoryDevice]) -> None:
    devices["other"] = MemoryDevice(4096)
    found = memory_exports(devices, default="other").find("")
    assert found is not None
    assert found.name == "other"
    assert memory_exports(devices, default="gone").find("") is None
    assert memory_exports(devices, default="other", only=["disk"]).find("") is None


# Exclusive


def test_an_exclusive_device_has_one_client(devices: dict[str, MemoryDevice]) -> None:
    exports = memory_exports(devices, exclusive=True)
    found = exports.find("disk")
    assert found is not None
    assert found.exclusive
    assert exports.refusal(found) is None
    exports.attach(found, "client 1 (10.0.0.1:4000)")
    assert exports.refusal(found) == (
        "disk is attached by client 1 (10.0.0.1:4000), and this server lets only one client have a device"
    )
    exports.detach(found, "client 1 (10.0.0.1:4000)", Traffic())
    assert exports.refusal(found) is None


def test_shared_is_the_default(devices: dict[str, MemoryDevice]) -> None:
    exports = memory_exports(devices)
    found = exports.find("disk")
    assert found is not None
    exports.attach(found, "one")
    assert exports.refusal(found) is None


def test_nobody_attaches_what_something_else_has(devices: dict[str, MemoryDevice]) -> None:
    """A disk that an import is half through would be mounted as it is."""
    exports = memory_exports(devices)
    found = exports.find("disk")
    assert found is not None
    devices["disk"].exclusive_user = "an import"
    assert exports.refusal(found) == "disk is in use by an import: attach when that is done"
    devices["disk"].exclusive_user = None
    assert exports.refusal(found) is None


# Who may see what

ACCESS = AccessList(
    (
        Grant(frozenset({"backup"}), frozenset(), ("disk",), Mode.READ_ONLY),
        Grant(frozenset(), frozenset({1000}), ("tenant/*",), Mode.READ_WRITE),
        Grant(frozenset({"admin"}), frozenset(), ("*",), Mode.READ_WRITE),
    )
)


@pytest.mark.parametrize(
    ("identity", "names", "default"),
    [
        (Identity(), [], None),
        (Identity(uid=1001, names=("stranger",)), [], None),
        (Identity(names=("backup",)), ["disk"], "disk"),
        (Identity(uid=1000), ["tenant/a", "tenant/b"], None),
        (Identity(names=("admin",)), ["disk", "tenant/a", "tenant/b"], None),
        (Identity(uid=1000, names=("backup",)), ["disk", "tenant/a", "tenant/b"], None),
    ],
)
def test_a_client_sees_what_it_may_use(identity: Identity, names: list[str], default: str | None) -> None:
    devices = {name: MemoryDevice(4096) for name in ("disk", "tenant/a", "tenant/b")}
    seen = memory_exports(devices, access=ACCESS).seen_by(identity)
    assert list(seen.names()) == names
    assert [name for name in devices if seen.find(name) is not None] == names
    found = seen.find("")
    assert (found.name if found else None) == default


def test_read_only_is_read_only_for_that_client(devices: dict[str, MemoryDevice]) -> None:
    exports = memory_exports(devices, access=ACCESS)
    backup = exports.seen_by(Identity(names=("backup",))).find("disk")
    admin = exports.seen_by(Identity(names=("admin",))).find("disk")
    assert backup is not None
    assert admin is not None
    assert (backup.read_only, admin.read_only) == (True, False)


def test_a_default_that_may_not_be_seen_is_none(devices: dict[str, MemoryDevice]) -> None:
    devices["tenant/a"] = MemoryDevice(4096)
    exports = memory_exports(devices, access=ACCESS, default="disk")
    assert exports.seen_by(Identity(uid=1000)).find("") is None
    assert exports.seen_by(Identity(names=("backup",))).find("") is not None


def test_rights_are_those_of_the_moment(devices: dict[str, MemoryDevice]) -> None:
    """Also for a client that has greeted before the list was read again, and waits with what it says."""
    exports = memory_exports(devices, access=ACCESS)
    seen = exports.seen_by(Identity(names=("admin",)))
    before = seen.find("disk")
    assert before is not None
    exports.use_access_list(AccessList((Grant(frozenset({"admin"}), frozenset(), ("disk",), Mode.READ_ONLY),)))
    after = seen.find("disk")
    assert after is not None
    assert (before.read_only, after.read_only) == (False, True)
    assert list(seen.names()) == ["disk"]
    exports.use_access_list(AccessList())
    assert seen.find("disk") is None
    assert list(seen.names()) == []


def test_exclusive_holds_whatever_the_rights(devices: dict[str, MemoryDevice]) -> None:
    exports = memory_exports(devices, access=ACCESS, exclusive=True)
    seen = exports.seen_by(Identity(names=("backup",)))
    found = seen.find("disk")
    assert found is not None
    assert seen.refusal(found) is None
    exports.attach(found, "client 1 (10.0.0.1:4000, admin)")
    assert seen.refusal(found) == "disk is in use, and cannot be attached now"


def test_a_name_means_one_disk_to_all_connections_of_a_place() -> None:
    """A client with several connections would write to two disks otherwise."""
    first, second = MemoryDevice(4096), MemoryDevice(4096)
    second.identity = "another disk"
    names = {"current": first}
    exports = Exports(lambda name: names[name], lambda: list(names))
    everybody, elsewhere = exports.seen_by(Identity()), exports.seen_by(Identity(), "10.0.0.5")
    before = everybody.find("current")
    assert before is not None
    exports.attach(before, "one")
    exports.attach(before, "two")
    names["current"] = second
    after = everybody.find("current")
    assert after is not None
    assert elsewhere.refusal(after) is None
    for client in ("one", "two"):
        assert "another disk" in str(everybody.refusal(after))
        exports.detach(before, client, Traffic())
    assert everybody.refusal(after) is None


def test_what_a_client_did_to_its_disk_makes_it_no_other() -> None:
    """Its content was rolled back, say, so that it has another identity; or this is another object of it."""
    device, later = MemoryDevice(4096), MemoryDevice(4096)
    names = {"disk": device}
    exports = Exports(lambda name: names[name], lambda: list(names))
    before = exports.find("disk")
    assert before is not None
    exports.attach(before, "one")
    device.identity = "rolled back"
    assert exports.seen_by(Identity()).refusal(before) is None
    device.identity = "disk"
    names["disk"] = later
    seen = exports.find("disk")
    assert seen is not None
    assert exports.seen_by(Identity()).refusal(seen) is None


def test_another_moment_of_a_store_that_is_followed_is_no_other_disk() -> None:
    """Whoever attaches gets the newest one, whatever others of its address have: a view promises no two connections
    the same."""
    earlier, later = MemoryDevice(4096), MemoryDevice(4096)
    earlier.is_view = later.is_view = True
    later.identity = "disk.another-moment"
    names = {"disk": earlier}
    exports = Exports(lambda name: names[name], lambda: list(names))
    before = exports.find("disk")
    assert before is not None
    exports.attach(before, "one")
    names["disk"] = later
    after = exports.find("disk")
    assert after is not None
    assert exports.seen_by(Identity()).refusal(after) is None


def test_what_was_counted_goes_with_the_export(devices: dict[str, MemoryDevice]) -> None:
    """A server lives for months, and who saves snapshots attaches ever new ones."""
    exports = memory_exports(devices)

    def visit(name: str) -> None:
        found = exports.find(name)
        assert found is not None
        exports.attach(found, "a client")
        exports.detach(found, "a client", Traffic(received=1))

    visit("disk")
    for number in range(100):
        devices[f"disk@{number}"] = MemoryDevice(512, read_only=True)
        visit(f"disk@{number}")
        if number:
            del devices[f"disk@{number - 1}"]
    visit("disk")
    assert {name: of_one.received for name, of_one in exports.past.items()} == {"disk": 2, "disk@98": 1, "disk@99": 1}
