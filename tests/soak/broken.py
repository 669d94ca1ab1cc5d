"""Servers with a mistake, each of which a soak must find:  python -m tests.soak.broken MISTAKE serve ..."""

import sys
from collections.abc import Callable

from nbdserver.cli import main
from nbdserver.server.operation_trace import OperationTrace
from nbdserver.server.session import Session
from storage.buffers import Buffer
from storage.fs.devices.device import Device
from storage.lsm.layer import Layer

LATE_SECONDS = 2.0
BUFFER_BYTES = 4 << 20


def flush_is_answered_before_it_is_durable() -> None:
    def answer(self: Session, cookie: bytes, sequence: int, trace: OperationTrace) -> None:
        self._device.want_durable(sequence)
        self.outbox.parts.append(self._replies.done(cookie))

    Session._answer_when_durable = answer  # type: ignore[method-assign]


def a_flush_that_takes_long_drops_its_client() -> None:
    right = Session._answer_when_durable

    def answer(self: Session, cookie: bytes, sequence: int, trace: OperationTrace) -> None:
        right(self, cookie, sequence, trace)

        def look() -> None:
            if any(waiting == sequence for waiting, *_ in self._durability._waiting):
                self._owner.fail()

        self._loop.call_later(LATE_SECONDS, look)

    Session._answer_when_durable = answer  # type: ignore[method-assign]


def discards_are_rounded_outward() -> None:
    right = Device.zero

    def zero(self: Device, offset: int, length: int, *, allocated: bool) -> int:
        end = min(-(-(offset + length) // 4096) * 4096, self.size)
        offset -= offset % 4096
        return right(self, offset, end - offset, allocated=allocated)

    Device.zero = zero  # type: ignore[method-assign]


def a_flush_in_twenty_is_not_answered() -> None:
    right = Session.flush
    asked = 0

    def flush(self: Session, cookie: bytes) -> bool:
        nonlocal asked
        asked += 1
        return asked % 20 == 0 or right(self, cookie)

    Session.flush = flush  # type: ignore[method-assign]


def each_write_keeps_the_buffer_it_came_in() -> None:
    right = Layer.write
    kept = []

    def write(self: Layer, offset: int, data: Buffer) -> int:
        kept.append(b"x" * BUFFER_BYTES)
        return right(self, offset, data)

    Layer.write = write  # type: ignore[method-assign]


MISTAKES: dict[str, Callable[[], None]] = {
    made.__name__: made
    for made in (
        flush_is_answered_before_it_is_durable,
        a_flush_that_takes_long_drops_its_client,
        discards_are_rounded_outward,
        a_flush_in_twenty_is_not_answered,
        each_write_keeps_the_buffer_it_came_in,
    )
}

if __name__ == "__main__":
    MISTAKES[sys.argv.pop(1)]()
    main()
