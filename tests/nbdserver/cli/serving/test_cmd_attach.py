"""`nbdserver attach`, `detach` and `attached` where there is nothing to attach to: one sentence each."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.program import COMMAND, REPOSITORY, Host
from tests.support.requirements import require

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["attach", "vol1", "/dev/sda"], "'/dev/sda' is not an NBD device: write /dev/nbd0"),
        (["detach", "nbd0p1"], "'nbd0p1' is not an NBD device"),
        (["attach", "nbds://h/vol1"], "the kernel's NBD client speaks no TLS: let the server listen on a Unix socket"),
        (["attach", "nbd://h/vol1", "--port", "1"], "the URI says where the server is: leave out --port"),
        (["attach", "vol1", "--unix", "/s", "--host", "h"], "--unix and --host exclude each other"),
        (["attach", "vol1", "--connections", "0"], "0 is not in the range 1<=x<=16"),
        (["attach"], "Missing argument 'EXPORT'"),
    ],
)
def test_what_makes_no_sense(host: Host, arguments: list[str], sentence: str) -> None:
    assert sentence in host.run(*arguments, status=2).stderr


@pytest.mark.skipif(Path("/sys/module/nbd").exists(), reason="this kernel has the module")
def test_a_kernel_without_the_module(host: Host) -> None:
    require("root")
    for arguments in (["attach", "vol1", "--log-file", "log"], ["detach", "nbd0"], ["attached"]):
        assert host.run(*arguments, status=14).stderr == (
            "nbdserver: the kernel's NBD client is not loaded: run modprobe nbd\n"
        )


def test_not_root(host: Host) -> None:
    require("root", "setpriv")
    for arguments in (["attach", "vol1"], ["detach", "nbd0"]):
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--clear-groups", *COMMAND, *arguments],
            env={**host.environment(), "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )
        if "Permission denied" in done.stderr and "python" in done.stderr:
            pytest.skip("the interpreter lies where only root can read")
        assert (done.returncode, done.stderr) == (
            13,
            "nbdserver: only root attaches and detaches disks: run it as root\n",
        ), os.getcwd()


def test_an_output_that_takes_nothing_does_not_end_who_keeps_a_disk(work: Path) -> None:
    """Its name can be asked for (`attached`); that it has a keeper cannot wait. With a stand-in for who attaches it."""
    require("root")
    script = """
import os, types
from pathlib import Path
from nbdserver.cli.serving.cmd_attach import attach
from nbdserver.kernel_client import staying

async def stay(settings, attached, reload):
    device = types.SimpleNamespace(path=Path("/dev/nbd0"), size=512)
    attached(device)
    return device, staying.Ending.DETACHED

staying.stay = stay
os._exit(100 + attach.main(["vol1", "--log-file", "log"], standalone_mode=False))
"""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND[:1], "-c", script],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            cwd=work,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (100, "")
