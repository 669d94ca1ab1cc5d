"""A pipe between two threads: whatever becomes of one, the other ends too."""

import threading
from collections.abc import Callable, Iterator

import pytest

from nbdserver.cli.snapshots.pipe import PIPE_BYTES, Pipe
from nbdserver.cli.snapshots.replication import carry

PARTS = [bytes([n]) * (PIPE_BYTES // 8) for n in range(40)]


def test_all_comes_in_its_order() -> None:
    got: list[bytes] = []
    told: list[int] = []

    def export(take: Callable[[bytes], None]) -> None:
        for part in PARTS:
            take(part)

    assert carry(export, got.extend, told.append) == sum(map(len, PARTS))
    assert got == PARTS
    assert told == sorted(told)


def test_one_that_fails_ends_the_other() -> None:
    others = set(threading.enumerate())

    def export(take: Callable[[bytes], None]) -> None:
        while True:
            take(PARTS[0])

    def fill(parts: Iterator[bytes]) -> None:
        next(parts)
        raise ValueError("the second one failed")

    with pytest.raises(ValueError, match="the second one failed"):
        carry(export, fill, lambda _: None)

    def short(take: Callable[[bytes], None]) -> None:
        take(PARTS[0])
        raise ValueError("the first one failed")

    got: list[bytes] = []
    with pytest.raises(ValueError, match="the first one failed"):
        carry(short, got.extend, lambda _: None)
    assert set(threading.enumerate()) <= others


def test_it_is_bounded() -> None:
    pipe = Pipe()
    ahead = []

    def put() -> None:
        for part in PARTS:
            pipe.put(part)
            ahead.append(part)
        pipe.finish()

    thread = threading.Thread(target=put)
    thread.start()
    for count, _ in enumerate(pipe):
        assert len(ahead) <= count + 10
    thread.join(20)
    assert len(ahead) == len(PARTS)
