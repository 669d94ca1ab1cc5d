"""fio's nbd engine writes with checksums and verifies them, with one connection and with four."""

from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.program import Server
from tests.support.requirements import require


@pytest.mark.parametrize("connections", [1, 4])
def test_random_writes_verify(server: Server, work: Path, connections: int) -> None:
    require("fio")
    area = 128 // connections
    common = [
        "fio", "--name=v", "--ioengine=nbd", f"--uri={server.uri()}", "--rw=randwrite", "--bsrange=512-256k",
        "--iodepth=16", f"--size={area}M", f"--numjobs={connections}", f"--offset_increment={area}M",
        "--verify=crc32c", "--verify_fatal=1", "--randrepeat=1", "--randseed=42", "--serialize_overlap=1",
        "--group_reporting", "--thread",
    ]  # fmt: skip
    run(*common, "--do_verify=1", "--fsync=64", cwd=work)
    assert server.stop() == 0
    server.start()
    run(*common, "--verify_only", cwd=work)


def test_mixed_load_verifies(server: Server, work: Path) -> None:
    require("fio")
    run(
        "fio", "--name=m", "--ioengine=nbd", f"--uri={server.unix_uri()}", "--rw=randrw", "--rwmixread=30",
        "--bs=4k", "--iodepth=32", "--size=64M", "--verify=crc32c", "--verify_fatal=1",
        "--verify_backlog=256", "--fsync=128", cwd=work,
    )  # fmt: skip
