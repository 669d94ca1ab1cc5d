"""One conversation in three dialects: whichever a client chose, the same requests have the same effect and the same
answer. Requests are written by the client's side of the protocol and answers read by it, so both ends agree."""

import ast
import inspect
import random
import textwrap
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.protocol.agreement import Agreement, Dialect, MetaContext
from nbdserver.protocol.compact import CompactTransmission
from nbdserver.protocol.dialects import replies_in, transmission_in
from nbdserver.protocol.extended import ExtendedTransmission
from nbdserver.protocol.handshake import Handshake
from nbdserver.protocol.replies import ChunkedReplies, Parts, Piece
from nbdserver.protocol.transmission import Payload, Transmission
from tests.nbdserver.protocol.test_handshake import Offer, Offers, hear
from tests.nbdserver.protocol.test_transmission import feed
from tests.support import messages as m
from tests.support.answers import Answers

SIZE = 64 << 10
SECTOR = 512


@dataclass
class Disk:
    """Carries requests out on bytes, and answers them in a dialect."""

    dialect: Dialect
    content: bytearray = field(default_factory=lambda: bytearray(SIZE))
    parts: Parts = field(default_factory=list)

    def __post_init__(self) -> None:
        self.replies = replies_in(self.dialect)

    def read(self, cookie: bytes, offset: int, length: int, *, dont_fragment: bool = False) -> bool:
        pieces: list[Piece] = []
        for start in range(offset, offset + length, SECTOR):
            data = bytes(self.content[start : min(start + SECTOR, offset + length)])
            pieces.append(data if any(data) else len(data))
        self.replies.data(self.parts, cookie, offset, length, pieces, dont_fragment=dont_fragment)
        return True

    def write(self, cookie: bytes, offset: int, data: Payload, *, fua: bool = False) -> bool:
        self.content[offset : offset + len(data)] = data
        return self._done(cookie)

    def zero(self, cookie: bytes, offset: int, length: int, *, command: int, allocated: bool, fua: bool) -> bool:
        self.content[offset : offset + length] = bytes(length)
        return self._done(cookie)

    def flush(self, cookie: bytes) -> bool:
        return self._done(cookie)

    def cache(self, cookie: bytes, offset: int, length: int) -> bool:
        return self._done(cookie)

    def block_status(
        self, cookie: bytes, offset: int, length: int, *, one: bool, only: Collection[int] | None = None
    ) -> bool:
        assert isinstance(self.replies, ChunkedReplies)
        self.parts.append(self.replies.status(cookie, 1, [(SECTOR, 0), (length, 3)], length, one=one))
        return True

    def nothing(self, cookie: bytes, *, read: bool) -> bool:
        if read:
            self.replies.data(self.parts, cookie, 0, 0, ())
            return True
        return self._done(cookie)

    def refuse(self, cookie: bytes, error: int, message: str) -> bool:
        self.parts.append(self.replies.error(cookie, error, message))
        return True

    def disconnect(self) -> None:
        raise AssertionError("nobody said DISC")

    def allocate(self, length: int) -> memoryview | None:
        return memoryview(bytearray(length))

    def _done(self, cookie: bytes) -> bool:
        self.parts.append(self.replies.done(cookie))
        return True


@dataclass(frozen=True)
class Request:
    command: int
    offset: int
    length: int
    flags: int

    def write_down(self, dialect: Dialect, cookie: int) -> bytes:
        speak = m.extended if dialect is Dialect.EXTENDED else m.request
        data = bytes([65 + cookie % 26]) * self.length if self.command == m.WRITE else b""
        return speak(self.command, self.offset, self.length, data=data, flags=self.flags, cookie=cookie)


REQUESTS = st.lists(
    st.builds(
        Request,
        st.sampled_from([m.READ, m.WRITE, m.WRITE, m.TRIM, m.CACHE, 6, 99]),
        st.one_of(st.integers(0, 127).map(lambda sector: sector * SECTOR), st.integers(0, SIZE + 10)),
        st.one_of(st.integers(1, 64).map(lambda sectors: sectors * SECTOR), st.integers(1, 40_000)),
        st.sampled_from([0, 0, 0, 1, m.NO_HOLE, 1 << 15]),
    ),
    min_size=1,
    max_size=20,
)


def hold(requests: list[Request], dialect: Dialect, chance: random.Random) -> tuple[bytes, dict[int, str]]:
    """The disk after a conversation, and what each request was answered, without what only one dialect says."""
    disk = Disk(dialect)
    agreement = Agreement(Offer("disk", size=SIZE), dialect)
    said = b"".join(request.write_down(dialect, cookie) for cookie, request in enumerate(requests))
    feed(transmission_in(agreement, disk), said, lambda: chance.randint(1, 5000))
    lengths = {cookie: request.length for cookie, request in enumerate(requests) if request.command == m.READ}
    answers = Answers(lengths=lengths, greeted=True)
    answers.feed(b"".join(disk.parts))
    answers.finish()
    told = {}
    for line in answers.lines:
        who, what = line.split(" ", 1)
        cookie, _, offset = who.removesuffix(":").partition("@")
        assert not offset or int(offset) == requests[int(cookie)].offset
        if what.startswith("read"):
            _, place, content = what.split(" ", 2)
            what = f"read {place.partition('+')[2] or place} {content.partition(' (')[0]}"
        told[int(cookie)] = what
    assert sorted(told) == list(range(len(requests)))
    return bytes(disk.content), told


@given(REQUESTS, st.integers(0, 2**32))
def test_dialects_agree(requests: list[Request], seed: int) -> None:
    simple = hold(requests, Dialect.SIMPLE, random.Random(seed))
    for dialect in (Dialect.STRUCTURED, Dialect.EXTENDED):
        assert hold(requests, dialect, random.Random(seed)) == simple


def converse(stream: bytes, chance: random.Random | None) -> tuple[list[str], bytes]:
    """A connection from the client's flags on: what is answered, and the disk in the end."""
    handshake = Handshake(Offers("disk"))
    output = handshake.take_output()
    place = 0
    while handshake.agreement is None:
        count = len(stream) if chance is None else chance.randint(1, 100)
        hear(handshake, stream[place : place + count])
        output += handshake.take_output()
        place += count
    agreement = handshake.agreement
    disk = Disk(agreement.dialect, bytearray(agreement.export.size))
    rest = handshake.take_rest() + stream[place:]
    feed(transmission_in(agreement, disk), rest, lambda: 1 << 20 if chance is None else chance.randint(1, 5000))
    answers = Answers()
    answers.feed(b"".join([*output, *disk.parts]))
    answers.finish()
    return answers.lines, bytes(disk.content)


@given(REQUESTS, st.sampled_from([m.structured(), m.extended_headers()]), st.integers(0, 2**32))
def test_a_whole_connection_joined_and_cut(requests: list[Request], start: bytes, seed: int) -> None:
    """Where the handshake ends and the requests begin, too, cutting makes no difference."""
    dialect = Dialect.EXTENDED if start == m.extended_headers() else Dialect.STRUCTURED
    said = b"".join(request.write_down(dialect, cookie) for cookie, request in enumerate(requests))
    assert converse(start + said, random.Random(seed)) == converse(start + said, None)


@pytest.mark.parametrize(
    ("dialect", "lines"),
    [
        (Dialect.SIMPLE, ["1 EINVAL"]),
        (Dialect.STRUCTURED, ["1: status 1 512/0 3584/3"]),
        (Dialect.EXTENDED, ["1@0: status 1 512/0 3584/3"]),
    ],
)
def test_status(dialect: Dialect, lines: list[str]) -> None:
    disk = Disk(dialect)
    agreement = Agreement(
        Offer("disk"), dialect, () if dialect is Dialect.SIMPLE else (MetaContext("base:allocation"),)
    )
    feed(
        transmission_in(agreement, disk),
        Request(m.BLOCK_STATUS, 0, 4096, 0).write_down(dialect, 1),
    )
    answers = Answers(greeted=True)
    answers.feed(b"".join(disk.parts))
    answers.finish()
    assert answers.lines == lines


def loop_of(transmission: type[Transmission], *, header_statements: int) -> str:
    """What its loop does with requests, without the statements that read a header, in the words of the compact one."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(transmission.resume)))
    (loop,) = (node for node in ast.walk(tree) if isinstance(node, ast.While))
    del loop.body[1 : 1 + header_statements]
    found = ast.unparse(loop)
    return found.replace("_EXTENDED_", "_COMPACT_").replace("head in plain_writes", "head == plain_write")


def test_the_two_loops_over_requests_are_the_same() -> None:
    """They are written twice for speed, and what is mended in one is to be mended in both."""
    compact = loop_of(CompactTransmission, header_statements=1)
    assert compact == loop_of(ExtendedTransmission, header_statements=2)
