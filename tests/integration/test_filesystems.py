"""Real filesystems: this machine's kernel through nbdfuse and loop, and a guest's with its own NBD client."""

from collections.abc import Callable

import pytest

from tests.support.commands import LAB, run
from tests.support.guest import GUEST_SECONDS
from tests.support.program import Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

GUEST_TOOLS = (
    "qemu-system-x86_64", "busybox", "cpio", "depmod", "nbd-client", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs",
    "apt-get",
)  # fmt: skip


@pytest.fixture
def big(store: StoreUnderTest, make_server: Callable[..., Server]) -> Server:
    """A server with a device of 1 GiB: XFS asks for 300 MiB."""
    server = make_server(store, create={"disk": "1GiB"})
    server.start()
    return server


@pytest.mark.slow
@pytest.mark.xdist_group("loop devices")
@pytest.mark.parametrize(
    ("store", "filesystem"), [("minio", "ext4"), ("file", "xfs"), ("minio", "btrfs")], indirect=["store"]
)
def test_filesystem_through_loop(big: Server, filesystem: str) -> None:
    require("root", "/dev/fuse", "/dev/loop-control", "nbdfuse", "fusermount3", "losetup", f"mkfs.{filesystem}")
    run(LAB / "fuse-fs.sh", big.unix_uri(), filesystem, environment={"FUSE_MIB": "64"})
    assert big.stop() == 0


@pytest.mark.slow
@pytest.mark.guest
@pytest.mark.xdist_group("guest")
@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_kernel_client(big: Server) -> None:
    require(*GUEST_TOOLS)
    said = run(
        LAB / "guest-nbd.sh", str(big.port), "disk", "ext4", "xfs", seconds=GUEST_SECONDS + 60,
        environment={"GUEST_MIB": "32", "GUEST_CONNS": "2", "GUEST_TIMEOUT": str(GUEST_SECONDS)},
    )  # fmt: skip
    assert "GUEST PASS" in said
    assert big.stop() == 0


@pytest.mark.slow
@pytest.mark.guest
@pytest.mark.xdist_group("guest")
@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_crash_under_the_kernel_client(
    local_store: StoreUnderTest, make_server: Callable[..., Server], filesystem: str
) -> None:
    require(*GUEST_TOOLS)
    server = make_server(local_store, create={"disk": "1GiB"})
    said = run(
        LAB / "guest-crash.sh", str(server.port), "disk", filesystem, *server.command(), seconds=GUEST_SECONDS + 60,
        environment={**server.host.environment(), "GUEST_TIMEOUT": str(GUEST_SECONDS)},
    )  # fmt: skip
    assert "all promised files are right" in said
