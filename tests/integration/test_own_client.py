"""The tests' own NBD client against nbdkit, so that what it says of our server can be believed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.messages import FUA
from tests.support.nbd import Client, NbdError
from tests.support.processes import end, listens, until
from tests.support.requirements import require

EINVAL = 22


@pytest.fixture
def nbdkit(work: Path) -> Iterator[Path]:
    require("nbdkit")
    socket = work / "nbdkit"
    process = subprocess.Popen(["nbdkit", "--foreground", "--unix", str(socket), "memory", "64M"])
    until(lambda: listens(socket), seconds=60, what="nbdkit's socket")
    yield socket
    end(process)


@pytest.mark.parametrize("structured", [True, False])
def test_what_is_written_is_read(nbdkit: Path, structured: bool) -> None:
    with Client(nbdkit, structured=structured) as client:
        assert client.size == 64 << 20
        data = bytes(range(256)) * 5000
        client.write(3 << 20, data, flags=FUA)
        client.flush()
        assert client.read((3 << 20) - 512, len(data) + 1024) == bytes(512) + data + bytes(512)
        client.trim(3 << 20, 1 << 20)
        client.zero(4 << 20, 1 << 20)
        assert not any(client.read(3 << 20, 2 << 20))
        if structured:
            assert client.extents(0, 64 << 20) == [(64 << 20, 3)]


def test_an_error_reply_is_raised_and_the_connection_goes_on(nbdkit: Path) -> None:
    with Client(nbdkit) as client:
        with pytest.raises(NbdError) as refused:
            client.read(64 << 20, 512)
        assert refused.value.errno == EINVAL
        assert client.read(0, 512) == bytes(512)
