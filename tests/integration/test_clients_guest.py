"""The kernel's client in a guest: of the Debian that is and of its newest kernel, with one connection and four."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_filesystems import GUEST_TOOLS
from tests.support.certificates import Authority, write_folder
from tests.support.commands import LAB, run
from tests.support.guest import GUEST_SECONDS
from tests.support.program import Server
from tests.support.requirements import require
from tests.support.stores import StoreUnderTest

KERNELS = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
"""Packages of Debian 12 and its updates; the newer one sends WRITE_ZEROES."""


SCRIPT = """
say "kernel $(uname -r)"
for CONNS in 1 4; do
    attach; describe
    make_fs ext4; mount_fs ext4
    fill; sync
    rm -f /mnt/dir/sub/f1; sed -i -e '/\\/f1$/d' /tmp/sums; sync; fstrim /mnt
    umount /mnt; detach
    attach; check_fs ext4; mount_fs ext4; verify
    umount /mnt; detach
    say "$CONNS connection(s): ok"
done
"""


SECURED_SCRIPT = """
PKI=/setup/folder
for CONNS in 1 4; do
    attach -enable-tls -tlshostname localhost -cacertfile $PKI/ca-cert.pem \\
        -certfile $PKI/client-cert.pem -keyfile $PKI/client-key.pem
    make_fs ext4; mount_fs ext4
    fill; sync
    umount /mnt; check_fs ext4; mount_fs ext4; verify
    umount /mnt; detach
    say "$CONNS connection(s): ok"
done
"""


@pytest.mark.slow
@pytest.mark.guest
@pytest.mark.xdist_group("guest")
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_client(
    local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path, kernel: str
) -> None:
    require(*GUEST_TOOLS, "xz")
    server = make_server(local_store, create={"disk": "128MiB"})
    server.start()
    script = work / "script"
    script.write_text(SCRIPT)
    said = run(
        LAB / "guest-nbd.sh", str(server.port), "disk", "ext4", seconds=GUEST_SECONDS + 60,
        environment={
            "GUEST_KERNEL": KERNELS[kernel], "GUEST_SCRIPT": str(script), "GUEST_MIB": "4",
            "GUEST_TIMEOUT": str(GUEST_SECONDS),
        },
    )  # fmt: skip
    assert "GUEST PASS" in said
    assert f"kernel {kernel}." in said
    for connections in (1, 4):
        assert f"{connections} connection(s): ok" in said
    assert "ro 0, logical block 512, cache 'write back', fua 1, discard max" in said, said
    assert ("zeroes max 0" in said) == (kernel == "6.1"), said
    assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.guest
@pytest.mark.xdist_group("guest")
def test_kernel_client_inside_tls(local_store: StoreUnderTest, make_server: Callable[..., Server], work: Path) -> None:
    """nbd-client stands between the kernel and the server, and holds the keys."""
    require(*GUEST_TOOLS)
    write_folder(work / "pki", Authority())
    arguments = ["--tls", "require", "--tls-certificates", str(work / "pki"), "--tls-verify-peer"]
    server = make_server(local_store, create={"disk": "128MiB"}, arguments=arguments)
    server.start()
    script = work / "script"
    script.write_text(SECURED_SCRIPT)
    said = run(
        LAB / "guest-nbd.sh", str(server.port), "disk", "ext4", seconds=GUEST_SECONDS + 60,
        environment={
            "GUEST_FOLDER": str(work / "pki"), "GUEST_SCRIPT": str(script), "GUEST_MIB": "2",
            "GUEST_TIMEOUT": str(GUEST_SECONDS),
        },
    )  # fmt: skip
    assert "GUEST PASS" in said
    for connections in (1, 4):
        assert f"{connections} connection(s): ok" in said
    assert server.stop() == 0
