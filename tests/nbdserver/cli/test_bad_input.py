"""What a user types wrongly or closes by mistake: one sentence, a documented status, never a traceback."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.nbdserver.cli.shared.test_terminal import on_a_terminal
from tests.support.processes import until
from tests.support.program import COMMAND, Host, Server, without_waits
from tests.support.stores import StoreUnderTest

pytestmark = pytest.mark.integration

MIB = 1 << 20
NOT_TEXT = b"\xff\xfe"


@pytest.fixture(scope="module")
def served() -> Iterator[Host]:
    """A host whose NBDSERVER_STORE is served and has a device `d` of 1 MiB: nearly all needs no password then."""
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    host = Host(folder, {"NBDSERVER_STORE": f"file://{folder}/store"})
    server = Server(host, f"file://{folder}/store", create={"d": "1MiB"}, tcp=False)
    server.start()
    yield host
    server.close()
    shutil.rmtree(folder)


def run_raw(
    host: Host, arguments: Sequence[str | bytes], *, shell: str = "", variables: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command through a shell, which may close and redirect; its outputs as bytes."""
    words = b" ".join(
        shlex.quote(os.fsdecode(word)).encode(errors="surrogateescape") for word in (*COMMAND, *arguments)
    )
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", words + b" " + shell.encode()],
        env={**host.environment(), **(variables or {})},
        cwd=host.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )


def said(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Standard error, which holds no traceback and no confession."""
    text = without_waits(done.stderr.decode(errors="replace"))
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    assert "a mistake in this program" not in text
    return text


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["device", "create", "x", "0"], 2, "512 bytes"),
        (["device", "create", "x", "-1"], 2, "-1"),
        (["device", "create", "x", "10XB"], 2, "not a size"),
        (["device", "create", "x", ""], 2, "not a size"),
        (["device", "create", "x", "9999999P"], 2, "1 PiB"),
        (["device", "create", "x", "0.3"], 2, "whole number"),
        (["device", "create", "", "1M"], 2, "no name"),
        (["device", "create", "..", "1M"], 2, "no name"),
        (["device", "create", "/a", "1M"], 2, "no name"),
        (["device", "create", "a/", "1M"], 2, "no name"),
        (["device", "create", "a//b", "1M"], 2, "no name"),
        (["device", "create", "x" * 256, "1M"], 2, "255"),
        (["device", "create", NOT_TEXT, "1M"], 2, "UTF-8"),
        (["device", "rename", "d", NOT_TEXT], 2, "UTF-8"),
        (["device", "rename", "d", "d"], 15, "there is a 'd' already"),
        (["device", "resize", "d", "512"], 16, "--shrink"),
        (["device", "show", NOT_TEXT], 2, "UTF-8"),
        (["device", "show", "../d"], 10, "no device named"),
        (["device", "import", "x", "/"], 1, "directory"),
        (["device", "import", NOT_TEXT, "/dev/zero"], 2, "UTF-8"),
        (["device", "export", "d", "/"], 1, "/: Is a directory"),
        (["device", "export", "d", "/nonexistent/x"], 1, "No such file"),
        (["device", "export", "d", b"/nonexistent/" + NOT_TEXT], 1, "No such file"),
        (["client", "list", "--store", "other"], 10, "no server of"),
        (["client", "disconnect", "0"], 2, "0"),
        (["client", "disconnect", "1"], 10, "no client 1"),
        (["serve", "--create", b"\xff=1M"], 2, "UTF-8"),
        (["serve", "--create", "x"], 2, "NAME=SIZE"),
        (["serve", "--create", "x=1XB"], 2, "not a size"),
        (["serve", "--export", NOT_TEXT], 2, "UTF-8"),
        (["serve", "--bind", NOT_TEXT], 2, "no address that can be"),
        (["serve", "--bind", "192.0.2.1", "--allow-plaintext"], 16, "cannot be listened on"),
        (["serve", "--bind", "fe80::1%nosuch", "--allow-plaintext"], 2, "cannot be listened on"),
        (["serve", "--port", "70000"], 2, "70000"),
        (["serve", "--unix", "/nonexistent/socket"], 2, "cannot be listened on"),
        (["serve", "--store", "p", "--run", "true", "--pid-file", "/nonexistent/pid"], 1, "/nonexistent: No such"),
        (["serve", "--read-only", "--create", "x=1M"], 2, "exclude each other"),
        (["serve", "--cache-size", "-5"], 2, "not a size"),
        (["status", "--store", "s3:bucket/x"], 2, "s3://bucket/x"),
        (["status", "--store", b"s3://bucket/\xff"], 2, "UTF-8"),
        (["status", "--store", "nowhere"], 10, "nbdserver init"),
        (["init"], 15, "already"),
        (["init", "memory:"], 2, "memory://"),
    ],
    ids=lambda value: ascii(value)[:60] if isinstance(value, list) else "",
)
def test_one_sentence_and_a_status(served: Host, arguments: list[str | bytes], status: int, sentence: str) -> None:
    done = run_raw(served, arguments)
    text = said(done)
    assert done.returncode == status, text
    assert sentence in text
    assert text.count("nbdserver: ") == 1, text


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PASSWORD": ""}, "no password"),
        ({"PASSWORD": "x", "PASSWORD_FILE": "/dev/null"}, "given twice"),
        ({"PASSWORD_FILE": "/nonexistent"}, "cannot be read"),
        ({"PASSWORD_FILE": "/"}, "cannot be read"),
        ({"PASSWORD_FILE": "/dev/null"}, "is empty"),
        ({"PASSWORD_COMMAND": "/nonexistent"}, "cannot be run"),
        ({"PASSWORD_COMMAND": ""}, "no password"),
        ({"PASSWORD_COMMAND": "'"}, "cannot be run"),
        ({"PASSWORD_COMMAND": "false"}, "ended with status 1"),
        ({}, "no password"),
    ],
    ids=str,
)
def test_a_password_that_cannot_be_had(served: Host, variables: dict[str, str], sentence: str) -> None:
    environment = {**served.environment(), **{f"NBDSERVER_{name}": value for name, value in variables.items()}}
    if "PASSWORD" not in variables:
        del environment["NBDSERVER_PASSWORD"]
    done = subprocess.run(
        [*COMMAND, "device", "list", "--store", "other"],
        env=environment,
        cwd=served.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode in (1, 2)
    assert sentence in said(done)


@pytest.mark.parametrize("words", [(), ("device",), ("client",), ("password",)])
def test_help_is_printed_once(served: Host, words: tuple[str, ...]) -> None:
    done = served.run(*words, status=2)
    assert done.stderr.count("Usage:") == 1
    assert "Commands:" in done.stderr
    assert done.stdout == ""


RESULTS = (
    ["status"],
    ["device", "list"],
    ["device", "show", "d"],
    ["--help"],
    ["--version"],
    ["device", "list", "--json"],
)


@pytest.mark.parametrize("arguments", RESULTS, ids=" ".join)
@pytest.mark.parametrize("shell", [">&-", "> /dev/full"])
def test_a_result_that_cannot_be_written_is_said(served: Host, arguments: list[str], shell: str) -> None:
    done = run_raw(served, arguments, shell=shell)
    assert done.returncode == 1
    reason = "Bad file descriptor" if shell == ">&-" else "No space left on device"
    assert said(done).splitlines()[0] == f"nbdserver: standard output: {reason}"
    assert said(done).count("nbdserver: ") == 1


@pytest.mark.parametrize("arguments", [*RESULTS, ["device", "export", "d", "-"]], ids=" ".join)
def test_whoever_reads_may_leave(served: Host, arguments: list[str]) -> None:
    """`head` with nothing to read is gone before the command prints."""
    done = run_raw(served, arguments, shell="| (exec <&-; sleep 1)")
    assert said(done) in ("", "nbdserver: the pipe: Broken pipe\n")
    assert done.returncode == 1


@pytest.mark.parametrize("arguments", [*RESULTS, ["device", "show", "nope"]], ids=" ".join)
@pytest.mark.parametrize("shell", ["2>&-", "<&- 2>&-", "2> /dev/full"])
def test_other_streams_may_be_closed(served: Host, arguments: list[str], shell: str) -> None:
    done = run_raw(served, arguments, shell=shell)
    said(done)
    assert done.returncode == (10 if "nope" in arguments else 0)
    assert bool(done.stdout) == ("nope" not in arguments)


def test_a_server_without_streams_serves(served: Host) -> None:
    done = run_raw(served, ["serve", "--store", "n", "--run", 'test -S "$unixsocket"'], shell="<&- >&- 2>&-")
    assert done.returncode == 0
    done = run_raw(
        served,
        ["serve", "--store", "n", "--unix", "s", "--fork", "--pid-file", "pid", "--log-file", "log"],
        shell=">&-",
    )
    assert done.returncode == 0, done
    pid = int((served.folder / "pid").read_text())
    os.kill(pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{pid}").exists(), seconds=60, what="the end of the server")


def test_the_disk_alone_goes_to_standard_output(served: Host, work: Path) -> None:
    for name in ("-", "/dev/stdout", "/proc/self/fd/1"):
        done = run_raw(served, ["device", "export", "d", name], shell="| wc -c")
        assert done.stdout.strip() == b"1048576", name
        assert "exported" in said(done)
        done = run_raw(served, ["device", "export", "d", name, "--json"], shell=f"> {work}/out")
        assert (work / "out").read_bytes() == bytes(MIB), name
        assert b"summary" in done.stderr


def test_a_disk_is_not_for_a_terminal(served: Host) -> None:
    status, shown = on_a_terminal(served, "device", "export", "d", "-", typing=[])
    assert status == 1
    assert "a disk is not for a terminal" in shown


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (b"QFI\xfb\0\0\0\3", "is a qcow2 image, not a raw disk"),
        (b"KDMV\1\0\0\0", "is a VMDK image"),
        (b"vhdxfile", "is a VHDX image"),
        (b"conectix", "is a VHD image"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe", "is a VDI image"),
        (b"\x1f\x8b\x08\0", "compressed by gzip"),
        (b"\xfd7zXZ\0", "compressed by xz"),
    ],
)
def test_an_image_that_is_not_raw_is_no_disk(served: Host, work: Path, head: bytes, sentence: str) -> None:
    image = work / "image"
    image.write_bytes(head + bytes(192 * 1024 - len(head)))
    done = run_raw(served, ["device", "import", "d", str(image)])
    assert done.returncode == 1
    assert sentence in said(done)
    assert "--format raw" in said(done)
    done = run_raw(served, ["device", "import", "d", "-"], shell=f"< {image}")
    assert sentence in said(done)
    done = run_raw(served, ["device", "import", "d", "-"], shell=f"< <(cat {image})")
    assert sentence in said(done)
    assert served.run("device", "export", "d", "-").stdout == "\0" * MIB, "nothing of it was written"


def test_the_bytes_of_an_image_can_be_meant(served: Host, work: Path) -> None:
    image = work / "image"
    image.write_bytes(bytes(MIB - 512) + b"conectix" + bytes(504))
    assert "VHD" in served.run("device", "import", "e", str(image), status=1).stderr
    served.run("device", "import", "e", str(image), "--format", "raw")
    done = run_raw(served, ["device", "export", "e", "-"])
    assert done.stdout == image.read_bytes()
    served.run("device", "delete", "e")


def test_a_pipe_that_is_too_long_is_said_so(served: Host) -> None:
    done = run_raw(served, ["device", "import", "d", "-", "--overwrite"], shell="< <(head -c 1048577 /dev/urandom)")
    assert done.returncode == 16
    assert "more to write than the 1048576 bytes of the device" in said(done)


def test_reading_only_makes_nothing(served: Host, work: Path) -> None:
    done = served.run("serve", "--store", str(work / "new"), "--read-only", "--run", "true", status=10)
    assert "nbdserver init" in done.stderr
    assert not (work / "new").exists()


def test_a_deletion_on_a_terminal_is_asked_for(host: Host, local_store: StoreUnderTest) -> None:
    host.store_environment = {"NBDSERVER_STORE": local_store.location}
    host.prepare(local_store.location)
    host.run("serve", "--create", "a=1M", "--create", "b=1M", "--run", "true")
    status, shown = on_a_terminal(host, "device", "delete", "a", typing=["n", host.password])
    assert status == 1
    assert "a was left as it is" in shown
    status, _ = on_a_terminal(host, "device", "delete", "a", typing=["y", host.password])
    assert status == 0
    status, shown = on_a_terminal(host, "device", "delete", "b", "--yes", typing=[host.password])
    assert status == 0
    assert host.run("device", "list").stdout == ""
