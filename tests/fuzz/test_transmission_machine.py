"""Requests of every kind in any order, against a model of a disk and of what each must be answered.

A client's connection is driven as in real life but for the network: bytes cut anyhow, a gate that closes and
opens, in simple, structured and extended replies.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.nbdserver.cases import case
from tests.support import messages as m
from tests.support.answers import Answers, runs
from tests.support.memory_device import MemoryDevice, memory_exports
from tests.support.wired import Wire

T = TypeVar("T")

SIZE = 64 << 10
PLACES = st.one_of(
    st.integers(0, SIZE), st.sampled_from([0, 4096, SIZE - 4096, SIZE - 1, SIZE, SIZE + 1, 2**63, 2**64 - 1])
)
LENGTHS = st.one_of(st.integers(0, 9000), st.sampled_from([0, 1, 4096, SIZE, SIZE + 1, 2**32 - 1]))
LETTERS = st.sampled_from(b"abc\0")

ALLOWED = {
    m.READ: m.FUA | m.DF, m.WRITE: m.FUA, m.FLUSH: m.FUA, m.TRIM: m.FUA, m.CACHE: m.FUA,
    m.WRITE_ZEROES: m.FUA | m.NO_HOLE | m.FAST_ZERO, m.BLOCK_STATUS: m.FUA | m.REQ_ONE,
}  # fmt: skip
BEYOND = {m.WRITE: "ENOSPC", m.WRITE_ZEROES: "ENOSPC"}


class TransmissionMachine(RuleBasedStateMachine):
    """One client; `model` is what the disk holds, `held` are writes that wait for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    @initialize(start=st.sampled_from(["simple", "structured", "extended"]), step=st.sampled_from([0, 1, 13, 500]))
    def connect(self, start: str, step: int) -> None:
        self.style = start
        self.step = step
        self.disk = MemoryDevice(SIZE)
        self.model = bytearray(SIZE)
        self.lengths: dict[int, int] = {}
        self.answers = Answers(lengths=self.lengths)
        self.cookie = 0
        self.held: list[tuple[Callable[[], None], str]] = []
        begin = {"simple": case.in_simple, "structured": case.in_structured, "extended": case.in_extended}[start]()
        self.wire = self.run(self.make_wire())
        self.feed(begin.say)
        assert self.answers.lines == list(begin.expect)

    async def make_wire(self) -> Wire:
        return Wire(memory_exports({"disk": self.disk}))

    def run(self, work: "Coroutine[object, object, T]") -> T:
        return self.loop.run_until_complete(work)

    def feed(self, data: bytes) -> None:
        self.run(self.wire.feed(data, step=self.step or None))
        self.answers.feed(bytes(self.wire.output))
        self.wire.output.clear()

    def ask(self, command: int, offset: int, length: int, flags: int, data: bytes, expected: str) -> str:
        """Send a request, which must be answered like this at once; "": not yet. Returns the expectation."""
        self.cookie += 1
        offset %= 1 << 64
        extended = self.style == "extended"
        make = m.extended if extended else m.request
        who = f"{self.cookie}@{offset}:" if extended else f"{self.cookie}{'' if self.style == 'simple' else ':?'}"
        if command == m.READ:
            self.lengths[self.cookie] = length
        before = len(self.answers.lines)
        self.feed(make(command, offset, length, data=data, flags=flags, cookie=self.cookie))
        lines = self.answers.lines[before:]
        if not expected:
            assert lines == []
            return who
        (line,) = lines
        assert re.fullmatch(f"{who} {expected}", line), f"{line} is not {who} {expected}"
        return who

    def wrong(self, command: int, offset: int, length: int, flags: int) -> str:
        """What is wrong with a request by the specification, or nothing."""
        allowed = ALLOWED[command] & ~(m.DF if self.style == "simple" else 0)
        if flags & ~allowed:
            return "EINVAL"
        if length and offset + length > SIZE:
            error = BEYOND.get(command, "EINVAL")
            return f"({error}|EOVERFLOW)" if command in (m.READ, m.CACHE) else error
        return ""

    def change(self, command: int, offset: int, length: int, flags: int, data: bytes, byte: bytes) -> None:
        """A request that writes; it is held while the gate is closed."""
        error = self.wrong(command, offset, length, flags)
        if error or not length or (command == m.WRITE and not data):
            self.ask(command, offset, length, flags, data, error or ".*")
            return

        def apply() -> None:
            self.model[offset : offset + length] = byte * length

        if not self.disk.gate.closed:
            apply()
            self.ask(command, offset, length, flags, data, "ok")
        else:
            self.held.append((apply, self.ask(command, offset, length, flags, data, "")))

    @rule(offset=PLACES, length=st.integers(1, 9000), letter=LETTERS, flags=st.sampled_from([0, 0, m.FUA, m.DF]))
    def write(self, offset: int, length: int, letter: int, flags: int) -> None:
        byte = bytes([letter])
        self.change(m.WRITE, offset, length, flags, byte * length, byte)

    @rule(offset=PLACES, letter=LETTERS)
    def write_long(self, offset: int, letter: int) -> None:
        byte = bytes([letter])
        self.change(m.WRITE, offset, 40_000, 0, byte * 40_000, byte)

    @rule(
        command=st.sampled_from([m.TRIM, m.WRITE_ZEROES]),
        offset=PLACES,
        length=LENGTHS,
        flags=st.sampled_from([0, 0, m.FUA, m.NO_HOLE, m.FAST_ZERO, m.REQ_ONE, 1 << 15]),
    )
    def zero(self, command: int, offset: int, length: int, flags: int) -> None:
        self.change(command, offset, length, flags, b"", b"\0")

    @rule(offset=PLACES, length=LENGTHS, flags=st.sampled_from([0, 0, 0, m.FUA, m.DF, m.NO_HOLE]))
    def read(self, offset: int, length: int, flags: int) -> None:
        expected = self.wrong(m.READ, offset, length, flags)
        if not expected and not length:
            expected = "(ok|EINVAL)"
        elif not expected:
            content = re.escape(runs(bytes(self.model[offset : offset + length])))
            expected = f"read {length} {content}"
            if self.style != "simple":
                kinds = "(data|hole)" if flags & m.DF else ".*"
                expected = rf"read {offset}\+{length} {content} \({kinds}\)"
        self.ask(m.READ, offset, length, flags, b"", expected)

    @rule(flags=st.sampled_from([0, m.FUA, m.DF, m.NO_HOLE]))
    def flush(self, flags: int) -> None:
        self.ask(m.FLUSH, 0, 0, flags, b"", self.wrong(m.FLUSH, 0, 0, flags) or "ok")

    @rule(offset=PLACES, length=LENGTHS, flags=st.sampled_from([0, 0, m.FUA, m.DF]))
    def cache(self, offset: int, length: int, flags: int) -> None:
        expected = self.wrong(m.CACHE, offset, length, flags) or ("ok" if length else "(ok|EINVAL)")
        self.ask(m.CACHE, offset, length, flags, b"", expected)

    @rule(offset=PLACES, length=LENGTHS, flags=st.sampled_from([0, 0, m.REQ_ONE, m.DF]))
    def block_status(self, offset: int, length: int, flags: int) -> None:
        error = self.wrong(m.BLOCK_STATUS, offset, length, flags)
        if error or not length or self.style == "simple":
            self.ask(m.BLOCK_STATUS, offset, length, flags, b"", error or "EINVAL")
            return
        self.ask(m.BLOCK_STATUS, offset, length, flags, b"", "status .*")
        place = offset
        extents = self.answers.lines[-1].split()[3:]
        assert len(extents) == 1 or not flags & m.REQ_ONE
        for extent in extents:
            size, state = map(int, extent.split("/"))
            assert not state & 2 or not any(self.model[place : place + size]), "data are said to be zeros"
            place += size
        assert place == offset + length or flags & m.REQ_ONE

    @rule(command=st.sampled_from([8, 9, 99, 0xFFFF]), offset=PLACES, length=LENGTHS, flags=st.integers(0, 31))
    def unknown(self, command: int, offset: int, length: int, flags: int) -> None:
        self.ask(command, offset, length, flags, b"", "EINVAL")

    @precondition(lambda self: not self.disk.gate.closed)
    @rule()
    def close_gate(self) -> None:
        self.disk.gate.closed = True

    @precondition(lambda self: self.disk.gate.closed)
    @rule()
    def open_gate(self) -> None:
        before = len(self.answers.lines)
        self.disk.gate.open()
        self.feed(b"")
        held, self.held = self.held, []
        for apply, _ in held:
            apply()
        lines = self.answers.lines[before:]
        assert len(lines) == len(held)
        for (_, who), line in zip(held, lines, strict=True):
            assert re.fullmatch(f"{who} ok", line)

    @invariant()
    def the_disk_is_the_model(self) -> None:
        assert self.disk.contents(0, SIZE) == self.model
        self.answers.finish()

    def teardown(self) -> None:
        if hasattr(self, "wire"):
            self.run(self.part())
        self.loop.close()

    async def part(self) -> None:
        self.wire.__exit__(None, None, None)


class TestBriefly(TransmissionMachine.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(max_examples=3)


@pytest.mark.slow
class TestAtLength(TransmissionMachine.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(max_examples=25)
