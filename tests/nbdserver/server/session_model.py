"""Two sessions on one device, driven through every order of events within small bounds, beside an oracle.

The sessions and the gate are the real ones; device, event loop and clock are the model's, so that one event is one
step: a request, a change of the gate, one more write durable, time, a pass of the loop, a client that goes. The oracle
knows the rules only from what the protocol and docs/durability.md promise:

- a write is carried out once, when there is room, in the order of its connection, and not after its client has gone;
- it is answered once, after it was carried out and after the delay that the gate asked for then; with FUA when it is
  durable, and for nothing else;
- no reply goes out before the journal has all that was carried out before it, for whichever connection;
- a FLUSH is answered when all that was carried out before it, for whichever connection, is durable;
- once the gate is open, all is durable and time has passed, every request of a client that is there is answered.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from nbdserver.protocol.replies import Parts, SimpleReplies
from nbdserver.server.block_status import BlockStatus
from nbdserver.server.limits import Budget, Limits
from nbdserver.server.operation_trace import Tracing
from nbdserver.server.outbox import Outbox
from nbdserver.server.session import Session
from nbdserver.slow_operations import SlowOperations
from nbdserver.traffic import Waits
from storage.lsm.memtable.gate import Gate
from tests.support.memory_device import MemoryJournal

DELAY = 0.05
CONNECTIONS = 2
REQUESTS_MAX = 3
"""Of one connection."""

Event = tuple[str, int]


class Violation(AssertionError):
    """The oracle does not agree."""


class Loop:
    """The event loop, as far as a session uses it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._soon: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self._later: list[tuple[float, Callable[..., object], tuple[object, ...]]] = []

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self._soon.append((callback, arguments))

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> None:
        self._later.append((self.now + delay, callback, arguments))

    @property
    def is_due(self) -> bool:
        return bool(self._soon)

    @property
    def waits(self) -> bool:
        return bool(self._later)

    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        due, self._soon = self._soon, []
        for callback, arguments in due:
            callback(*arguments)

    def wait(self) -> None:
        """Until the next call that is due later."""
        self.now = min(when for when, _, _ in self._later)
        due = [each for each in self._later if each[0] <= self.now]
        self._later = [each for each in self._later if each[0] > self.now]
        for _, callback, arguments in due:
            self.call_soon(callback, *arguments)


@dataclass
class Request:
    """What the oracle knows of one request."""

    kind: str
    covers: int = 0
    """Of a FLUSH: the newest write when it came."""
    sequence: int = 0
    """Of a write: its place, when it is carried out."""
    not_before: float = 0.0
    answered: bool = False


@dataclass
class Client:
    """One connection."""

    requests: list[Request] = field(default_factory=list)
    here: bool = True


class World:
    """Device, gate, sessions and oracle."""

    def __init__(self, current: list["World"]) -> None:
        """`current` is where the sessions find their loop."""
        self.loop = Loop()
        current.append(self)
        self.gate = Gate(self.loop.call_soon)
        self.journal = MemoryJournal()
        self.state = "open"
        self.first: Violation | None = None
        self.last_sequence = 0
        self.durable_sequence = 0
        self.clients = [Client() for _ in range(CONNECTIONS)]
        self.devices = [_Device(self, number) for number in range(CONNECTIONS)]
        tracer = Tracing(Waits(), SlowOperations(), self.loop.time, self.loop.time).of(1, "a client", "disk")
        shared = SimpleReplies(), Limits(), Budget(1 << 20), tracer, BlockStatus({})
        self.sessions = [
            Session(_Owner(), _Transport(self, number), self.devices[number], *shared)  # type: ignore[arg-type]
            for number in range(CONNECTIONS)
        ]

    # Events

    def events(self) -> Iterator[Event]:
        """What can happen now."""
        for number, client in enumerate(self.clients):
            # Nothing tells the connections apart before the first request.
            if number and not any(each.requests for each in self.clients):
                continue
            if client.here and len(client.requests) < REQUESTS_MAX:
                yield from (("write", number), ("fua", number), ("flush", number))
            if client.here and client.requests:
                yield "leave", number
        for state in ("open", "delaying", "closed"):
            if state != self.state:
                yield state, 0
        if self.durable_sequence < self.last_sequence:
            yield "durable", 0
        if self.loop.waits:
            yield "wait", 0
        if self.loop.is_due:
            yield "turn", 0

    def happen(self, event: Event) -> None:
        """One event."""
        what, number = event
        if what in ("write", "fua", "flush"):
            self._request(what, number)
        elif what == "leave":
            self.clients[number].here = False
            self.sessions[number].close()
        elif what == "durable":
            self.durable_sequence += 1
            for device in self.devices:
                device.tell()
        elif what == "wait":
            self.loop.wait()
        elif what == "turn":
            self.loop.turn()
        else:
            self.state = what
            self.gate.set(DELAY if what == "delaying" else 0.0, full=what == "closed")

    def _request(self, kind: str, number: int) -> None:
        client, session = self.clients[number], self.sessions[number]
        client.requests.append(Request(kind, covers=self.last_sequence))
        cookie = struct.pack(">Q", len(client.requests) - 1)
        if kind == "flush":
            taken = session.flush(cookie)
        else:
            taken = session.write(cookie, len(client.requests), b"x", fua=kind == "fua")
        if not taken:
            raise Violation(f"{kind} of client {number} was not taken")
        session.outbox.send()

    def carry_on(self) -> None:
        """Everything that was in the way goes; then nobody who is there may be without an answer."""
        self.happen(("open", 0))
        while self.loop.is_due or self.loop.waits or self.durable_sequence < self.last_sequence:
            # The store last: what is answered without it must not have needed it.
            what = "turn" if self.loop.is_due else "wait" if self.loop.waits else "durable"
            self.happen((what, 0))
        for number, client in enumerate(self.clients):
            for request in client.requests:
                if client.here and not request.answered:
                    raise Violation(f"{request.kind} of client {number} was never answered")

    # What the sessions do

    def carried_out(self, number: int, index: int) -> int:
        client, request = self.clients[number], self.clients[number].requests[index]
        if not client.here:
            raise self._seen(f"a write of client {number} was carried out after it had gone")
        if request.sequence:
            raise self._seen("a write was carried out twice")
        if self.state == "closed":
            raise self._seen("a write was carried out though there is no room")
        if any(each.kind != "flush" and not each.sequence for each in client.requests[:index]):
            raise self._seen(f"a write of client {number} has overtaken an earlier one")
        self.last_sequence += 1
        request.sequence = self.last_sequence
        self.journal.pending.append(request)
        request.not_before = self.loop.now + self.gate.delay
        return self.last_sequence

    def answered(self, number: int, reply: bytes) -> None:
        _, error, index = struct.unpack(">IIQ", reply)
        client, request = self.clients[number], self.clients[number].requests[index]
        if error or not client.here or request.answered:
            raise self._seen(f"{request.kind} of client {number} was answered wrongly, twice, or too late")
        request.answered = True
        if self.journal.pending:
            raise self._seen("a reply went out before the journal had all that was carried out before it")
        if request.kind == "flush":
            if self.durable_sequence < request.covers:
                raise self._seen("a flush was answered before what it covers was durable")
        elif not request.sequence:
            raise self._seen("a write was answered before it was carried out")
        elif request.kind == "fua":
            if self.durable_sequence < request.sequence:
                raise self._seen("a write with FUA was answered before it was durable")
        elif self.loop.now < request.not_before:
            raise self._seen("a write was answered before the gate's delay was over")

    def _seen(self, message: str) -> Violation:
        """A violation that is remembered: a session takes an exception for a mistake of one client."""
        self.first = self.first or Violation(message)
        return self.first


class _Device:
    """The device as one session sees it."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._listeners: list[Callable[[int], None]] = []
        self.gate = world.gate
        self.journal = world.journal
        self.own_sequence = 0
        """Newest write of this session: for a mistake that asks for no more."""

    @property
    def last_sequence(self) -> int:
        return self._world.last_sequence

    def write(self, offset: int, data: object) -> int:
        self.own_sequence = self._world.carried_out(self._number, offset - 1)
        return self.own_sequence

    def want_durable(self, sequence: int) -> bool:
        return sequence <= self._world.durable_sequence

    def listen(self, listener: Callable[[int], None]) -> None:
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[int], None]) -> None:
        self._listeners.remove(listener)

    def tell(self) -> None:
        for listener in self._listeners:
            listener(self._world.durable_sequence)


class _Transport:
    """Where replies go."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number

    def writelines(self, parts: Parts) -> None:
        for part in parts:
            self._world.answered(self._number, bytes(part))

    def get_write_buffer_size(self) -> int:
        return 0


class _Owner:
    """A connection whose client is there."""

    write_paused = False

    def proceed(self) -> None:
        raise Violation("nothing was refused, and yet it is to be offered again")

    def idle(self) -> None: ...

    def peer_is_here(self) -> bool:
        return True

    def unseen_bytes(self) -> int:
        return 0

    def fail(self) -> None:
        raise Violation("a client was dropped")


def explore(depth: int, patch: pytest.MonkeyPatch) -> int:
    """Every order of up to `depth` events, each followed by an end in which all is settled. Gives how many there are;
    Violation, with the order that shows it."""
    current: list[World] = []
    patch.setattr("asyncio.get_running_loop", lambda: current[-1].loop)
    # What is wrong must come out, and not be taken for a mistake of one client.
    patch.setattr(Outbox, "_send_now", _send_now)
    count = 0

    def run(path: list[Event]) -> list[Event]:
        world = World(current)
        try:
            for event in path:
                world.happen(event)
            following = list(world.events())
            world.carry_on()
        except Violation as last:
            violation = world.first or last
            raise Violation(f"{violation}: {' '.join(f'{what}{number}' for what, number in path)}") from violation
        finally:
            current.clear()
        return following

    paths: list[list[Event]] = [[]]
    while paths:
        path = paths.pop()
        following = run(path)
        count += 1
        if len(path) < depth:
            paths += [[*path, event] for event in following]
    return count


def _send_now(outbox: Any) -> None:
    """`Outbox._send_now` without its guard."""
    outbox._sending_soon = False
    if not outbox._closed:
        outbox.send()
        outbox._sent_all()
