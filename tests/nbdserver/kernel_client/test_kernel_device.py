"""An NBD device by its name, and as sysfs shows it."""

from pathlib import Path

import pytest

from nbdserver.kernel_client.kernel_device import KernelDevice, parse_device
from nbdserver.protocol import wire
from storage.errors import Invalid


@pytest.mark.parametrize("text", ["/dev/nbd12", "nbd12"])
def test_its_name(text: str) -> None:
    assert parse_device(text) == KernelDevice(12)
    assert str(parse_device(text).path) == "/dev/nbd12"


@pytest.mark.parametrize("text", ["/dev/sda", "nbd", "nbd1p1", "/dev/nbd0p1", "12", "nbd-1", "nbd1\n", ""])
def test_what_is_none(text: str) -> None:
    with pytest.raises(Invalid, match="not an NBD device"):
        parse_device(text)


def test_what_is_attached(work: Path) -> None:
    queue = work / "nbd0" / "queue"
    queue.mkdir(parents=True)
    for name, text in {
        "size": "2048", "ro": "0", "pid": "77", "backend": "nbd://h/x", "queue/write_cache": "write back",
        "queue/fua": "1", "queue/discard_max_bytes": "4294966784", "queue/write_zeroes_max_bytes": "0",
        "queue/max_sectors_kb": "128", "queue/read_ahead_kb": "128",
    }.items():  # fmt: skip
        (work / "nbd0" / name).write_text(f"{text}\n")
    device = KernelDevice(0, work)
    assert (device.attached, device.size, device.backend) == (True, 1 << 20, "nbd://h/x")
    assert device.flags == wire.FLAG_SEND_FLUSH | wire.FLAG_SEND_FUA | wire.FLAG_SEND_TRIM
    device.tune()
    assert (queue / "max_sectors_kb").read_text() == "1024\n"


def test_nothing_is_attached_and_nothing_there(work: Path) -> None:
    device = KernelDevice(1, work)
    assert (device.attached, device.size, device.backend, device.flags) == (False, 0, None, 0)
    device.tune()
