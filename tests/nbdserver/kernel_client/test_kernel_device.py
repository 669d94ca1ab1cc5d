"""An NBD device by its name, and as sysfs shows it."""

import errno
import os
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


@pytest.mark.parametrize(("error", "claimed"), [(errno.EBUSY, True), (errno.EACCES, False), (None, False)])
def test_whether_somebody_has_it_for_himself(
    work: Path, monkeypatch: pytest.MonkeyPatch, error: int | None, claimed: bool
) -> None:
    """The kernel refuses it (EBUSY) to who asks to be alone with what is mounted, or in use as swap."""

    def opened(path: Path, flags: int) -> int:
        assert (path, bool(flags & os.O_EXCL)) == (Path("/dev/nbd12"), True)
        if error is not None:
            raise OSError(error, os.strerror(error))
        return real("/dev/null", os.O_RDONLY)

    real = os.open
    monkeypatch.setattr(os, "open", opened)
    assert KernelDevice(12, work).claimed is claimed
