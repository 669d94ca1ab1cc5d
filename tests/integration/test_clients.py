"""Other people's clients, each over TCP, a Unix socket, and both with TLS."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.images import MIB, make_image
from tests.integration.ways import WAYS, Way
from tests.support.certificates import Authority, write_folder
from tests.support.commands import SYSTEM_PYTHON, run
from tests.support.processes import end, listens, until
from tests.support.program import Host, Server
from tests.support.requirements import require

# One server for all, and one place where libnbd looks for certificates.
pytestmark = pytest.mark.xdist_group("clients")

IMAGE_MIB = 24

LIBNBD_PKI = Path("/etc/pki/libnbd")
"""Where libnbd looks for certificates when root runs it and no folder is named."""

REQUESTS = """
import nbd, sys
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(sys.argv[1])
assert h.get_structured_replies_negotiated()
assert bool(h.get_tls_negotiated()) == sys.argv[1].startswith("nbds")
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION) and h.can_multi_conn() and h.can_df() and h.can_fast_zero()
h.trim(h.get_size(), 0)
h.pwrite(b"a" * 70000, 0)
h.pwrite(b"b" * 512, 69632, nbd.CMD_FLAG_FUA)
h.zero(4096, 4096)
h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
h.trim(4096, 16384)
h.cache(65536, 0)
h.flush()
assert h.pread(70000, 0) == b"a" * 4096 + bytes(8192) + b"a" * 4096 + bytes(4096) + b"a" * 49152 + b"b" * 368
seen = []
h.block_status(1 << 20, 0, lambda context, offset, extents, error: seen.extend(extents) or 0)
assert sum(seen[::2]) == 1 << 20 and seen[1] == 0, seen
pending = [(number, buffer := nbd.Buffer(4096), h.aio_pread(buffer, number * 4096 % 65536)) for number in range(200)]
while h.aio_in_flight():
    h.poll(-1)
assert all(h.aio_command_completed(cookie) for _, _, cookie in pending)
h.set_strict_mode(0)
for bad in (lambda: h.pread(1, h.get_size()), lambda: h.pwrite(b"x", h.get_size())):
    try:
        bad()
    except nbd.Error as error:
        assert error.errno in ("EINVAL", "ENOSPC"), error
    else:
        raise SystemExit("a request past the end was not refused")
assert h.pread(1, 0) == b"a"
h.shutdown()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The real program with TLS on offer, and certificates beside it."""
    with tempfile.TemporaryDirectory(prefix="nbd-") as folder:
        write_folder(Path(folder, "pki"), Authority())
        running = Server(
            Host(Path(folder)),
            f"{folder}/store",
            create={"disk": f"{IMAGE_MIB}MiB", "other": f"{IMAGE_MIB}MiB"},
            arguments=["--tls", "on", "--tls-certificates", f"{folder}/pki"],
        )
        running.start()
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.said(), running.said()


@pytest.fixture(params=WAYS)
def way(server: Server, request: pytest.FixtureRequest) -> Way:
    return Way(request.param, server, server.host.folder / "pki")


@pytest.fixture
def libnbd_pki(way: Way) -> Iterator[None]:
    """The certificates where libnbd looks for them by itself, for clients that cannot be told."""
    if not way.is_tls:
        yield
        return
    require("root")
    LIBNBD_PKI.parent.mkdir(exist_ok=True)
    if LIBNBD_PKI.is_symlink() and not LIBNBD_PKI.exists():
        LIBNBD_PKI.unlink()  # of a run that was killed
    LIBNBD_PKI.symlink_to(way.pki)
    yield
    LIBNBD_PKI.unlink()


@pytest.fixture(scope="module")
def image(server: Server) -> Path:
    path = server.host.folder / "image.raw"
    make_image(path, IMAGE_MIB)
    return path


def test_libnbd(way: Way) -> None:
    require(SYSTEM_PYTHON, "/usr/lib/python3/dist-packages/nbd.py")
    run(SYSTEM_PYTHON, "-c", REQUESTS, way.uri())


def test_nbdsh(way: Way) -> None:
    require("nbdsh")
    said = run(
        SYSTEM_PYTHON, "-m", "nbd", "--opt-mode", "-c", "h.set_uri_allow_local_file(True)",
        "-c", f"h.connect_uri({way.uri('')!r})", "-c", "h.opt_list(lambda name, description: print(name))",
        "-c", "h.set_export_name('disk')", "-c", "h.opt_info(); print(h.get_size())", "-c", "h.opt_abort()",
    )  # fmt: skip
    assert said.split() == ["disk", "other", str(IMAGE_MIB * MIB)]


def test_nbdinfo(way: Way) -> None:
    require("nbdinfo")
    report: dict[str, Any] = json.loads(run("nbdinfo", "--json", way.uri()))
    assert report["TLS"] is way.is_tls
    assert report["exports"][0]["export-size"] == IMAGE_MIB * MIB
    listed: dict[str, Any] = json.loads(run("nbdinfo", "--json", "--list", way.uri("")))
    assert [export["export-name"] for export in listed["exports"]] == ["disk", "other"]
    run("nbdinfo", "--can", "multi-conn", way.uri())
    assert run("nbdinfo", "--map", way.uri())


@pytest.mark.parametrize("connections", [1, 4, 16])
def test_nbdcopy(way: Way, image: Path, work: Path, connections: int) -> None:
    require("nbdcopy")
    count = f"--connections={connections}"
    run("nbdcopy", "--flush", count, "--request-size=65536", image, way.uri())
    run("nbdcopy", count, way.uri(), work / "back.raw")
    assert (work / "back.raw").read_bytes() == image.read_bytes()


def test_nbdcopy_from_export_to_export(way: Way, image: Path) -> None:
    require("nbdcopy", "qemu-img")
    run("nbdcopy", image, way.uri("disk"))
    run("nbdcopy", "--flush", "--connections=4", way.uri("disk"), way.uri("other"))
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, way.server.unix_uri("other"))


def test_nbdfuse(way: Way, work: Path, libnbd_pki: None) -> None:
    require("root", "/dev/fuse", "nbdfuse", "fusermount3")
    folder = work / "mount"
    folder.mkdir()
    uri = way.uri(certificates=False)
    process = subprocess.Popen(["nbdfuse", "-C", "4", "-P", str(work / "pid"), str(folder), uri])
    try:
        until(lambda: process.poll() is not None or (work / "pid").exists(), seconds=60, what="the mount")
        disk = os.open(folder / "nbd", os.O_RDWR)
        try:
            assert os.fstat(disk).st_size == IMAGE_MIB * MIB
            assert os.pwrite(disk, b"through fuse" * 10_000, 12_345) == 120_000
            os.fsync(disk)
            assert os.pread(disk, 120_000, 12_345) == b"through fuse" * 10_000
        finally:
            os.close(disk)
    finally:
        subprocess.run(["fusermount3", "-u", str(folder)], check=False)
        end(process)
    with way.server.connect() as client:
        assert client.read(12_345, 120_000) == b"through fuse" * 10_000


def test_qemu_img(way: Way, image: Path, work: Path) -> None:
    require("qemu-img")
    source = f"driver=raw,file.driver=file,file.filename={image}"
    common = [*way.qemu_object, "--image-opts"]
    run("qemu-img", "convert", *common, "-n", "-W", "-m", "8", "--target-image-opts", source, way.qemu_image())
    run("qemu-img", "compare", *common, source, way.qemu_image())
    report = json.loads(run("qemu-img", "info", *common, "--output=json", way.qemu_image()))
    assert report["virtual-size"] == IMAGE_MIB * MIB
    run("qemu-img", "convert", *common, "-O", "qcow2", way.qemu_image(), work / "out.qcow2")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", work / "out.qcow2", image)


def test_qemu_io(way: Way) -> None:
    require("qemu-io")
    steps = (
        "write -f -P 0x66 64k 4k", "write -P 0x67 1000448 12800", "write -z -u 2M 64k", "discard 3M 64k",
        "aio_write -P 0x11 4M 1M", "aio_write -P 0x12 6M 64k", "aio_flush", "flush",
        "read -P 0x66 64k 4k", "read -P 0x67 1000448 12800", "read -P 0 2M 64k", "read -P 0 3M 64k",
        "read -P 0x11 4M 1M", "read -P 0x12 6M 64k",
    )  # fmt: skip
    said = run(
        "qemu-io", *way.qemu_object, "--image-opts", *(word for step in steps for word in ("-c", step)),
        way.qemu_image(),
    )  # fmt: skip
    assert "failed" not in said, said


def test_qemu_nbd_as_a_client(way: Way, image: Path, work: Path) -> None:
    """It serves our export again, from a connection of its own to us."""
    require("qemu-nbd", "nbdcopy")
    again = f"nbd+unix:///again?socket={work / 'again'}"
    process = subprocess.Popen(
        ["qemu-nbd", "-t", "-x", "again", "-e", "4", "-k", str(work / "again"), *way.qemu_object, "--image-opts",
         way.qemu_image()]
    )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or listens(work / "again"), seconds=60, what="qemu-nbd's socket")
        run("nbdcopy", "--flush", image, again)
        run("nbdcopy", again, work / "back.raw")
    finally:
        end(process)
    assert (work / "back.raw").read_bytes() == image.read_bytes()
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, way.server.unix_uri())


def test_qemu_storage_daemon(way: Way, image: Path, work: Path) -> None:
    require("qemu-storage-daemon", "nbdcopy")
    again = f"nbd+unix:///again?socket={work / 'again'}"
    process = subprocess.Popen(
        ["qemu-storage-daemon", *way.qemu_object, "--blockdev", f"node-name=ours,{way.qemu_node()}",
         "--nbd-server", f"addr.type=unix,addr.path={work / 'again'}",
         "--export", "type=nbd,id=e,node-name=ours,name=again,writable=on", "--pidfile", str(work / "pid")]
    )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or (work / "pid").exists(), seconds=60, what="the daemon")
        run("nbdcopy", "--flush", "--connections=4", image, again)
        run("nbdcopy", again, work / "back.raw")
    finally:
        end(process)
    assert (work / "back.raw").read_bytes() == image.read_bytes()
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, way.server.unix_uri())


def test_fio(way: Way, work: Path, libnbd_pki: None) -> None:
    require("fio")
    run(
        "fio", "--name=v", "--ioengine=nbd", f"--uri={way.uri(certificates=False)}", "--rw=randwrite",
        "--bsrange=512-64k", "--iodepth=16", "--size=4M", "--numjobs=4", "--offset_increment=4M", "--thread",
        "--verify=crc32c", "--verify_fatal=1", "--serialize_overlap=1", "--group_reporting", "--fsync=64", cwd=work,
    )  # fmt: skip


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_nbd_client_lists(server: Server, tls: bool) -> None:
    """All that nbd-client does without the kernel's part; the guest does the rest."""
    require("nbd-client")
    pki = server.host.folder / "pki"
    secure = ["-cacertfile", str(pki / "ca-cert.pem"), "-tlshostname", "localhost"] if tls else []
    assert {"disk", "other"} <= set(run("nbd-client", "-l", "127.0.0.1", str(server.port), *secure).split())
