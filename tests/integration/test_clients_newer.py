"""The next Debian's clients, which speak extended headers: libnbd 1.22, QEMU 10, fio 3.39, nbd-client 3.26.

They live in a folder that is made once (tests/lab/newer-clients.sh, about a minute) and changed into; it
shares this machine's network and, under its /tmp, Unix sockets and files.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.images import MIB, make_image
from tests.integration.ways import WAYS, Way
from tests.support.certificates import Authority, write_folder
from tests.support.commands import LAB, run
from tests.support.program import Host, Server
from tests.support.requirements import require

pytestmark = pytest.mark.xdist_group("newer clients")

ROOT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbdserver" / "newer"
IMAGE_MIB = 24

EXTENDED = """
import nbd, sys
h = nbd.NBD()
h.set_uri_allow_local_file(True)
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(sys.argv[1])
assert h.get_extended_headers_negotiated()
assert h.can_block_status_payload()
size = h.get_size()
assert size == 8 << 40
h.zero(size, 0, nbd.CMD_FLAG_FAST_ZERO)
h.trim(size, 0)
h.cache(64 << 20, 0)
h.pwrite(b"e" * (1 << 20), 6 << 40, nbd.CMD_FLAG_FUA)
assert h.pread(4096, (6 << 40) - 2048) == bytes(2048) + b"e" * 2048
seen = []
while (place := sum(length for length, _ in seen)) < size:
    h.block_status_64(size - place, place, lambda context, offset, extents, error: seen.extend(extents) or 0)
assert max(length for length, _ in seen) > 1 << 32, seen
assert [extent for extent in seen if extent[1] != 3] == [(1 << 20, 0)], seen
seen.clear()
note = lambda context, offset, extents, error: seen.append((context, extents)) or 0
h.block_status_filter(1 << 40, 0, [nbd.CONTEXT_BASE_ALLOCATION], note)
assert seen == [(nbd.CONTEXT_BASE_ALLOCATION, [(1 << 40, 3)])], seen
h.set_strict_mode(0)
for bad in (lambda: h.pread(1, size), lambda: h.zero(size, 1), lambda: h.trim(1 << 63, 0)):
    try:
        bad()
    except nbd.Error as error:
        assert error.errno in ("EINVAL", "ENOSPC"), error
    else:
        raise SystemExit("a request past the end was not refused")
h.zero(8 << 30, 6 << 40)
h.flush()
assert h.pread(4096, 6 << 40) == bytes(4096)
h.shutdown()
"""


def newer(*command: str | Path) -> str:
    """Run one of them; paths under ROOT are what it knows them by."""
    return run("chroot", ROOT, *(str(word).replace(str(ROOT), "") for word in command))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The real program with TLS on offer; all of its files lie where both sides find them."""
    require("root", "chroot", "apt-get")
    run(LAB / "newer-clients.sh", ROOT, seconds=600)
    with tempfile.TemporaryDirectory(prefix="nbd-", dir=ROOT / "tmp") as folder:
        write_folder(Path(folder, "pki"), Authority())
        running = Server(
            Host(Path(folder)),
            f"{folder}/store",
            create={"disk": f"{IMAGE_MIB}MiB", "huge": "8TiB"},
            arguments=["--tls", "on", "--tls-certificates", f"{folder}/pki"],
        )
        running.start()
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.said(), running.said()


@pytest.fixture(params=WAYS)
def way(server: Server, request: pytest.FixtureRequest) -> Way:
    return Way(request.param, server, server.host.folder / "pki")


@pytest.fixture(scope="module")
def image(server: Server) -> Path:
    path = server.host.folder / "image.raw"
    make_image(path, IMAGE_MIB)
    return path


def test_libnbd_with_extended_headers(way: Way) -> None:
    """64-bit requests and extents, contexts chosen by payload, errors."""
    newer("python3", "-c", EXTENDED, way.uri("huge"))


def test_nbdinfo(way: Way) -> None:
    newer("nbdinfo", "--has", "extended-headers", way.uri())
    report: dict[str, Any] = json.loads(newer("nbdinfo", "--json", way.uri()))
    assert report["TLS"] is way.is_tls
    (export,) = report["exports"]
    assert export["export-size"] == IMAGE_MIB * MIB
    allocation, incarnation = export["contexts"]
    assert allocation == "base:allocation"
    assert incarnation.startswith("x-nbdserver:incarnation:")
    newer("nbdinfo", "--map", "--totals", way.uri("huge"))


@pytest.mark.parametrize("connections", [1, 4, 16])
def test_nbdcopy(way: Way, image: Path, connections: int) -> None:
    back = image.with_name("back.raw")
    newer("nbdcopy", "--flush", f"--connections={connections}", image, way.uri())
    newer("nbdcopy", f"--connections={connections}", way.uri(), back)
    assert back.read_bytes() == image.read_bytes()


def test_qemu_img(way: Way, image: Path) -> None:
    source = f"driver=raw,file.driver=file,file.filename={image}"
    common = [*way.qemu_object, "--image-opts"]
    newer("qemu-img", "convert", *common, "-n", "-W", "-m", "8", "--target-image-opts", source, way.qemu_image())
    newer("qemu-img", "compare", *common, source, way.qemu_image())
    mapped = json.loads(newer("qemu-img", "map", *common, "--output=json", way.qemu_image("huge")))
    assert sum(part["length"] for part in mapped) == 8 << 40


@pytest.mark.parametrize("secure", ["clear", "tls"])
def test_nbd_client_lists(server: Server, secure: str) -> None:
    pki = server.host.folder / "pki"
    tls = ["-cacertfile", str(pki / "ca-cert.pem"), "-tlshostname", "localhost"] if secure == "tls" else []
    assert {"disk", "huge"} <= set(newer("nbd-client", "-l", "127.0.0.1", str(server.port), *tls).split())


def test_fio(server: Server) -> None:
    """It has a folder of the system for certificates, so it goes in clear."""
    newer(
        "fio", "--name=v", "--ioengine=nbd", f"--uri={server.unix_uri()}", "--rw=randwrite", "--bsrange=512-64k",
        "--iodepth=16", "--size=16M", "--verify=crc32c", "--verify_fatal=1", "--serialize_overlap=1",
    )  # fmt: skip
