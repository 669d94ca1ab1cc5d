"""How to draw what is said to several servers, and how to say what class of answer came.

A request has a key such as `TRIM bit15 inside 4096`: its command, flags, place and length in words. That is
what differences are listed by.
"""

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.nbdserver.cases.case import DATA, PAYLOAD_MAX, SIZE, Start
from tests.support import messages as m
from tests.support.answers import Answers

COMMANDS = {
    "READ": m.READ, "WRITE": m.WRITE, "FLUSH": m.FLUSH, "TRIM": m.TRIM, "CACHE": m.CACHE,
    "WRITE_ZEROES": m.WRITE_ZEROES, "BLOCK_STATUS": m.BLOCK_STATUS, "99": 99,
}  # fmt: skip
FLAGS = {
    "plain": 0, "FUA": m.FUA, "NO_HOLE": m.NO_HOLE, "DF": m.DF, "REQ_ONE": m.REQ_ONE, "FAST_ZERO": m.FAST_ZERO,
    "PAYLOAD_LEN": m.PAYLOAD_LEN, "bit15": 1 << 15,
}  # fmt: skip
PLACES = {
    "start": 0, "inside": DATA - 4096, "unaligned": 4095, "last": SIZE - 4096, "end": SIZE, "beyond": SIZE + 4096,
    "2^63": 1 << 63, "2^64-1": (1 << 64) - 1,
}  # fmt: skip
LENGTHS = {"0": 0, "1": 1, "512": 512, "4096": 4096, "8192": 8192, "size": SIZE, "32M+1": PAYLOAD_MAX + 1}

OPTIONS = {
    "LIST": m.option(m.LIST),
    "LIST data": m.option(m.LIST, b"x"),
    "INFO": m.info("disk"),
    "INFO unknown": m.info("nothing"),
    "INFO all": m.info("disk", 0, 1, 2, 3),
    "INFO cut": m.option(m.INFO, b"\0\0"),
    "INFO name too long": m.option(m.INFO, m.text("disk")[:-2]),
    "INFO bytes left over": m.option(m.INFO, m.info_data("disk") + b"x"),
    "GO unknown": m.go("nothing"),
    "STRUCTURED_REPLY": m.option(m.STRUCTURED_REPLY),
    "STRUCTURED_REPLY data": m.option(m.STRUCTURED_REPLY, b"x"),
    "STARTTLS": m.option(m.STARTTLS),
    "STARTTLS data": m.option(m.STARTTLS, b"x"),
    "SET": m.set_contexts("disk", m.BASE),
    "SET unknown namespace": m.set_contexts("disk", "x-no:y"),
    "SET unknown export": m.set_contexts("nothing", m.BASE),
    "SET cut": m.option(m.SET_META_CONTEXT, m.context_data("disk", m.BASE)[:-3]),
    "SET nothing": m.set_contexts("disk"),
    "LIST_META": m.list_contexts("disk"),
    "LIST_META base": m.list_contexts("disk", m.BASE),
    "unknown": m.option(77),
    "unknown data": m.option(77, b"hello"),
    "PEEK_EXPORT": m.option(m.PEEK_EXPORT),
}


@dataclass(frozen=True, slots=True)
class Said:
    """One request or option, with its key."""

    key: str
    data: bytes
    length: int = 0
    """Of the data behind a simple reply, if it is a READ."""


def requests(seed: int, count: int) -> Iterator[Said]:
    """Requests, valid and invalid; half of them have no odd flag, since those say most."""
    chance = random.Random(seed)
    for _ in range(count):
        command = chance.choice(list(COMMANDS))
        flags = chance.choice(["plain", chance.choice(list(FLAGS))])
        place = chance.choice(list(PLACES))
        length = chance.choice(list(LENGTHS))
        if command == "FLUSH":
            place, length = "start", "0"
        elif command == "WRITE" and length == "32M+1":
            length = "size"
        size = LENGTHS[length]
        data = b"w" * size if command == "WRITE" else b""
        request = m.request(COMMANDS[command], PLACES[place], size, data=data, flags=FLAGS[flags])
        yield Said(f"{command} {flags} {place} {length}", request, size if command == "READ" else 0)


def options(seed: int, count: int) -> Iterator[tuple[Said, ...]]:
    """Orders of one to five options."""
    chance = random.Random(seed)
    for _ in range(count):
        keys = chance.choices(list(OPTIONS), k=chance.randint(1, 5))
        yield tuple(Said(key, OPTIONS[key]) for key in keys)


def classes(connect: Callable[[], socket.socket], start: Start, said: Said) -> str:
    """The class of the answer to a request that finds `disk` as every case does; `closed` if there is none.

    Behind it a READ must be answered, or else it says so.
    """
    lay_out = m.request(m.WRITE, 0, data=b"d" * DATA, cookie=2) + m.request(m.WRITE_ZEROES, DATA, SIZE - DATA, cookie=3)
    behind = m.request(m.READ, 0, 1, cookie=4)
    answers = Answers(lengths={1: said.length, 4: 1})
    with connect() as sock:
        _say(sock, start.say)
        _listen(sock, answers, len(start.expect))
        _say(sock, lay_out)
        _listen(sock, answers, len(start.expect) + 2)
        before = len(answers.lines)
        _say(sock, said.data + behind)
        _listen(sock, answers, before + 2)
        _say(sock, m.request(m.DISC))
    lines = [line.replace(":", "") for line in answers.lines[before:]]
    own = [line.split(" ", 1)[1] for line in lines if line.startswith("1 ")]
    after = any(line.startswith("4 read") for line in lines)
    return (own[0].split(" ")[0] if own else "closed") + ("" if after or not own else ", then closed")


def option_classes(connect: Callable[[], socket.socket], said: tuple[Said, ...]) -> list[str]:
    """The class of the answer to each option: ACK, ERR_..., or closed.

    At the end comes ABORT, and behind it what is no request: it ends the connection should a GO have succeeded.
    """
    answers = Answers()
    with connect() as sock:
        _say(sock, m.FIXED_ZEROLESS_FLAGS + b"".join(one.data for one in said) + m.option(m.ABORT) + bytes(28))
        _listen(sock, answers, None)
    kinds = [line.split(" ")[1] for line in answers.lines]
    return [kinds[place] if place < len(kinds) else "closed" for place in range(len(said))]


def _say(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        sock.sendall(data)


def _listen(sock: socket.socket, answers: Answers, count: int | None) -> None:
    while count is None or len(answers.lines) < count:
        try:
            data = sock.recv(1 << 20)
        except ConnectionError:
            return
        if not data:
            return
        answers.feed(data)
