"""A client that attaches again when its server dies, and sends again what was not answered:

    python -m tests.crash.reconnecting --kills 1000 [--journal FOLDER] [--after-loss refuse]

It writes stamped slots, reads them back and flushes now and then, as a kernel does over a disk that it believes in. The
server is killed (-9) under it and started again, again and again. With a journal in memory it never notices; without
one it reads old data, sooner or later (`Forgotten`), unless the server does not let it go on (`Refused`).
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.messages import FLUSH, READ, WRITE
from tests.support.nbd import Client, NbdError
from tests.support.program import Host, Server
from tests.support.stores import folder_store

SLOT_BYTES = (4096, 4096, 4096, 512, 65536, 262144)
"""A slot is written and read as a whole; every sixth has the same size."""

SPACING = 262144
SLOTS = 192
IN_FLIGHT = 16
AWAY_SECONDS_MAX = 60.0
"""How long a server that was killed may be away."""

ANSWERS_BETWEEN_KILLS = (5, 600)


REFUSAL = "was attached from here when its server was lost"


class Forgotten(AssertionError):
    """A slot does not hold what was answered for it."""


class Refused(AssertionError):
    """The server says that something was lost, and lets it in no more."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is not answered yet; `number` is what a write writes."""

    command: int
    slot: int = 0
    number: int = 0


def content(slot: int, number: int) -> bytes:
    size = SLOT_BYTES[slot % len(SLOT_BYTES)]
    return (number.to_bytes(8, "big") + slot.to_bytes(8, "big")) * (size // 16) if number else bytes(size)


class ReconnectingClient:
    """One connection after the other to one disk. `answered` counts replies; it runs in a thread of its own."""

    def __init__(self, connect: Callable[[], Client], *, seed: int) -> None:
        self.answered = 0
        self.failure: BaseException | None = None
        self._connect = connect
        self._chance = random.Random(seed)
        self._number = 0
        self._holds = [0] * SLOTS
        """The number of the last write of each slot that was answered."""
        self._busy: set[int] = set()
        self._cut_off: Request | None = None
        """What was being sent when the connection ended, perhaps."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let it end what it has under way, read everything once more, and end; raises what went wrong."""
        self._stopping.set()
        self._thread.join(AWAY_SECONDS_MAX * 2)
        assert not self._thread.is_alive(), "the client hangs"
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        client: Client | None = None
        unanswered: dict[int, Request] = {}
        try:
            while True:
                if client is None:
                    client = self._attached(unanswered)
                try:
                    if self._step(client, unanswered):
                        client.disconnect()
                        return
                except (OSError, EOFError):
                    client.close()
                    client = None
        except BaseException as error:
            self.failure = error
            if client is not None:
                client.close()

    def _attached(self, unanswered: dict[int, Request]) -> Client:
        """A connection on which everything that was not answered was sent again, in order."""
        end = time.monotonic() + AWAY_SECONDS_MAX
        requests = [*unanswered.values(), *([] if self._cut_off is None else [self._cut_off])]
        while True:
            client = None
            try:
                client = self._connect()
                again = {self._send(client, request): request for request in requests}
            except (OSError, EOFError):
                if client is not None:
                    client.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)  # nobody listens yet
                continue
            unanswered.clear()
            unanswered.update(again)
            self._cut_off = None
            return client

    def _send(self, client: Client, request: Request) -> int:
        size = SLOT_BYTES[request.slot % len(SLOT_BYTES)]
        if request.command == WRITE:
            return client.submit(WRITE, request.slot * SPACING, data=content(request.slot, request.number))
        if request.command == READ:
            return client.submit(READ, request.slot * SPACING, size)
        return client.submit(FLUSH)

    def _step(self, client: Client, unanswered: dict[int, Request]) -> bool:
        """One more request, or one more reply. True: all is done."""
        if not self._stopping.is_set() and len(unanswered) < IN_FLIGHT:
            request = self._draw()
            if request is not None:
                self._cut_off = request
                unanswered[self._send(client, request)] = request
                self._cut_off = None
                return False
        if not unanswered:
            for slot in range(SLOTS):
                size = SLOT_BYTES[slot % len(SLOT_BYTES)]
                self._check(slot, client.read(slot * SPACING, size))
            return True
        reply = client.receive()
        assert not reply.error, f"a request was answered with error {reply.error}"
        request = unanswered.pop(reply.cookie)
        if request.command == READ:
            self._check(request.slot, reply.data)
        if request.command == WRITE:
            self._holds[request.slot] = request.number
        self._busy.discard(request.slot)
        self.answered += 1
        return False

    def _draw(self) -> Request | None:
        """The next request: of a slot that none is under way for."""
        kind = self._chance.random()
        if kind < 0.02:
            return Request(FLUSH, slot=-1)
        slot = self._chance.randrange(SLOTS)
        if slot in self._busy:
            return None
        self._busy.add(slot)
        if kind < 0.3:
            return Request(READ, slot)
        self._number += 1
        return Request(WRITE, slot, self._number)

    def _check(self, slot: int, found: bytes | bytearray) -> None:
        if found != content(slot, self._holds[slot]):
            number = int.from_bytes(found[:8], "big")
            raise Forgotten(f"slot {slot} holds write {number}, and write {self._holds[slot]} was answered")


def connect(server: Server) -> Client:
    """A connection, as soon as there can be one. Refused: there will be none."""
    try:
        return server.connect()
    except NbdError as error:
        if REFUSAL in str(error):
            raise Refused(str(error)) from error
        raise


def survive(server: Server, *, kills: int, seed: int, told: Callable[[str], None] = lambda line: None) -> int:
    """Kill and start a server under such a client; gives how many answers it got. Forgotten: it noticed. Refused."""
    chance = random.Random(seed)
    if not server.running():
        server.start()
    client = ReconnectingClient(partial(connect, server), seed=seed)
    client.start()
    try:
        for kill in range(1, kills + 1):
            goal = client.answered + chance.randint(*ANSWERS_BETWEEN_KILLS)
            while client.answered < goal and client.failure is None:
                time.sleep(0.001)
            if client.failure is not None:
                break
            server.kill()
            seconds = server.start()
            told(f"kill {kill}: {client.answered} answers, started in {seconds:.2f} s")
    finally:
        client.stop()
    return client.answered


def main() -> int:
    parser = argparse.ArgumentParser(description="a client that attaches again, over a server that is killed")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--journal", default="off")
    parser.add_argument("--after-loss", choices=("serve", "refuse"), default="serve")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="nbd-") as name:
        store = folder_store(Path(name))
        options = ["--journal", arguments.journal]
        server = Server(
            Host(Path(name)),
            store.location,
            create={"disk": str(SLOTS * SPACING)},
            arguments=options,
            after_loss=arguments.after_loss,
        )
        try:
            answers = survive(server, kills=arguments.kills, seed=arguments.seed, told=print)
        except AssertionError as error:
            print(f"FAILED: {type(error).__name__}: {error}")
            return 1
        finally:
            server.close()
    print(f"{arguments.kills} kills, {answers} answers: nothing was forgotten")
    return 0


if __name__ == "__main__":
    sys.exit(main())
