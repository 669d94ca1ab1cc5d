"""A log that nobody reads is not waited for: what is not taken is left out, counted, and said when it is read again."""

import contextlib
import fcntl
import io
import logging
import os
import pty
import select
import socket
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from nbdserver.service.log_outlets import LOST, StandardError, SystemLog, say

LINES = 20_000
"""Far more than any pipe, socket or terminal holds."""


def record(number: int, more: str = "") -> logging.LogRecord:
    return logging.makeLogRecord({"name": "nbdserver", "levelname": "INFO", "msg": f"line {number}{more}"})


@pytest.fixture(params=["pipe", "socket", "terminal"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Where one reads, and standard error."""
    if request.param == "pipe":
        read, written = os.pipe()
    elif request.param == "socket":
        here, there = socket.socketpair()
        read, written = here.detach(), there.detach()
    else:
        read, written = pty.openpty()
        tty.setraw(written)
    yield read, written
    os.close(read)
    os.close(written)


def in_time(work: Callable[[], None]) -> None:
    """It ends: a thread that waits for ever does not."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for a reader"


class Shown(logging.Formatter):
    """The event, and how many lines were lost."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.getMessage()}, {record.count}" if hasattr(record, "count") else record.getMessage()


def formatted(handler: logging.Handler) -> logging.Handler:
    handler.setFormatter(Shown())
    return handler


def emit_all(handler: logging.Handler, count: int, more: str = "") -> None:
    for number in range(count):
        handler.emit(record(number, more))


@pytest.mark.parametrize("more", ["", "x" * 9000], ids=["short", "long"])
def test_standard_error_that_nobody_reads(ends: tuple[int, int], more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, written = ends
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(written), "w"))
    handler = formatted(StandardError())
    flags = fcntl.fcntl(written, fcntl.F_GETFL)
    lines = LINES if not more else 300
    in_time(lambda: emit_all(handler, lines, more))
    assert fcntl.fcntl(written, fcntl.F_GETFL) == flags, "the shell has the same descriptor"
    got = b""
    last = f"line {lines}\n".encode()
    collected = threading.Event()

    def collect() -> None:
        nonlocal got
        while last not in got[-len(last) - 100 :]:
            got += os.read(read, 1 << 16)
        collected.set()

    threading.Thread(target=collect, daemon=True).start()
    for _ in range(1000):
        handler.emit(record(lines))
        if collected.wait(0.06):
            break
    handler.close()
    sys.stderr.close()
    said = got.decode().splitlines()
    lost = sum(int(line.split(", ")[1]) for line in said if line.startswith(LOST))
    whole = [line for line in said if line.startswith("line ")]
    assert lost
    assert len(said) == len(whole) + sum(line.startswith(LOST) for line in said)
    before = [line for line in whole if line != f"line {lines}"]
    taken = [int(line.removesuffix(more)[5:]) for line in before]
    assert taken == list(range(len(taken))), "whole lines, from the first on"
    assert len(taken) + lost >= lines


def test_a_line_for_one_that_is_closed_waits_for_nobody(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may have it while another log takes its place."""
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(ends[1]), "w"))
    handler = formatted(StandardError())
    emit_all(handler, 300, "x" * 9000)
    handler.close()
    in_time(lambda: emit_all(handler, 300, "x" * 9000))
    sys.stderr.close()


def test_what_is_said_beside_the_log_waits_for_no_reader(ends: tuple[int, int]) -> None:
    read, written = ends
    for text in (b"first\n" * LINES, b"second\n"):
        in_time(partial(say, written, text))
    assert os.read(read, 6) == b"first\n"


def test_what_is_said_beside_the_log_comes_whole_to_who_reads(ends: tuple[int, int]) -> None:
    read, written = ends
    text = b"".join(b"line %d\n" % number for number in range(LINES)) + b"x" * 9000 + b"\n"
    got: list[bytes] = []

    def collect() -> None:
        while sum(map(len, got)) < len(text):
            got.append(os.read(read, 1 << 16))

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    in_time(partial(say, written, text, moment=60.0))
    thread.join(60)
    assert b"".join(got) == text


def test_a_stream_without_a_descriptor_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    formatted(StandardError()).emit(record(1))
    assert stream.getvalue() == "line 1\n"


def test_the_systems_log_that_nobody_reads(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(path))
        handler = formatted(SystemLog(str(path)))
        in_time(lambda: emit_all(handler, 1000))
        first = reader.recv(4096)
        assert first == b"<30>nbdserver: line 0\0"
        reader.setblocking(False)
        count = 1
        with contextlib.suppress(BlockingIOError):
            while reader.recv(4096):
                count += 1
        handler.emit(record(1000))
        assert reader.recv(4096) == f"<28>nbdserver: {LOST}, {1000 - count}\0".encode()
        assert reader.recv(4096) == b"<30>nbdserver: line 1000\0"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as anew:
        anew.bind(str(path))
        handler.emit(record(1001))
        assert anew.recv(4096) == b"<30>nbdserver: line 1001\0"
    handler.close()


def test_a_reader_who_is_behind_in_a_burst_has_a_moment(
    ends: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here one as long as it takes him, for a machine may be busy: nothing is lost."""
    read, written = ends
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(written), "w"))
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(str(tmp_path / "log"))
    handlers = [formatted(StandardError(moment=60.0)), formatted(SystemLog(str(tmp_path / "log"), moment=60.0))]
    more = "x" * 1000
    got: list[list[str]] = [[], []]

    def collect() -> None:
        said = b""
        while said.count(b"\n") < 300:
            said += os.read(read, 1 << 16)
        got[0] = said.decode().splitlines()

    def collect_messages() -> None:
        got[1] = [reader.recv(4096).decode().removeprefix("<30>nbdserver: ").strip("\0") for _ in range(300)]

    readers = [threading.Thread(target=work, daemon=True) for work in (collect, collect_messages)]
    for handler, thread in zip(handlers, readers, strict=True):
        thread.start()
        in_time(partial(emit_all, handler, 300, more))
        thread.join(60)
        handler.close()
    assert got == [[f"line {number}{more}" for number in range(300)]] * 2
    reader.close()
    sys.stderr.close()


def test_what_the_systems_log_does_not_hear_while_it_is_down_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = formatted(SystemLog(str(path)))
    emit_all(handler, 3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(path))
        reader.setblocking(False)
        handler.emit(record(3))
        assert reader.recv(4096) == f"<28>nbdserver: {LOST}, 3\0".encode()
        assert reader.recv(4096) == b"<30>nbdserver: line 3\0"
    handler.close()


def test_standard_error_whose_reader_dies_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one hears what still lies there, to the end of its line, and how many were lost."""
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(sys, "stderr", path.open("w"))
    handler = formatted(StandardError())
    for more, left in (("", ""), ("x" * (1 << 17), "line 0" + "x" * (1 << 17) + "\n")):
        if more:
            handler.emit(record(0, more))
        os.close(reader)
        emit_all(handler, 3)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        got = b""
        while b"line 3" not in got:
            with contextlib.suppress(BlockingIOError):
                got += os.read(reader, 1 << 17)
            if not got.endswith(b"line 3\n"):
                handler.emit(record(3))
        told = got.decode().removeprefix(left)
        assert told.startswith(f"{LOST}, ")
        assert int(told.splitlines()[0].split(", ")[1]) >= 3
    os.close(reader)
    handler.close()
    sys.stderr.close()


def test_a_line_of_which_the_systems_log_took_a_part_is_not_joined_to_the_next(tmp_path: Path) -> None:
    """One that takes streams: a connection of which a part of a line went ends with it."""
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(64)
        handler = formatted(SystemLog(str(path)))
        in_time(lambda: emit_all(handler, 30, "x" * 50_000))
        listening.setblocking(False)
        with contextlib.ExitStack() as stack:
            heard: dict[socket.socket, bytes] = {}
            hear(listening, heard, stack)
            handler.emit(record(30))
            hear(listening, heard, stack)
            handler.close()
        said = [got.split(b"\0") for got in heard.values()]
    assert any(lines[-1] for lines in said), "a buffer holds no whole number of lines"
    whole = [line for lines in said for line in lines[:-1]]
    lost = sum(int(line.split(b", ")[1]) for line in whole if LOST.encode() in line)
    taken = [line for line in whole if b"xxx" in line]
    assert all(line.startswith(b"<30>nbdserver: line ") and len(line) < 50_030 for line in taken)
    assert len(taken) + lost == 30


def hear(listening: socket.socket, heard: dict[socket.socket, bytes], stack: contextlib.ExitStack) -> None:
    """Add what lies there to what was heard over each connection, all of which stay."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock = stack.enter_context(listening.accept()[0])
            sock.setblocking(False)
            heard[sock] = b""
    for sock in heard:
        with contextlib.suppress(BlockingIOError):
            while part := sock.recv(1 << 17):
                heard[sock] += part


def test_a_pipe_that_another_fills_after_the_look_for_room_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of `--run` has the same one. Here each look finds room, and each time it is gone with the write."""
    read, written = os.pipe()
    stream = os.fdopen(written, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    handler = formatted(StandardError())
    another = os.open(f"/proc/self/fd/{written}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(another, b"x" * select.PIPE_BUF)
    monkeypatch.setattr(select, "poll", RoomAlways)
    in_time(lambda: emit_all(handler, 3))
    monkeypatch.undo()
    os.read(read, 1 << 20)
    handler.emit(record(3))
    assert os.read(read, 1 << 20) == f"{LOST}, 3\nline 3\n".encode()
    handler.close()
    stream.close()
    os.close(another)
    os.close(read)


class RoomAlways:
    """A look for room that finds some."""

    def register(self, descriptor: int, events: int) -> None:
        pass

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        return [(0, select.POLLOUT)]
