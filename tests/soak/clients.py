"""The clients of a soak: steady ones, whose every byte is checked, one that reads what may be withheld, and pests."""

import contextlib
import errno
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from tests.crash.history import Lane, Operation
from tests.crash.stamps import SECTOR_BYTES, ZEROS, Damaged, decode, encode
from tests.soak.plan import Pest
from tests.soak.rules import Rules
from tests.support.messages import DISC, FLUSH, READ, TRIM, WRITE, request
from tests.support.nbd import Address, Client, Reply

SOCKET_SECONDS = 600.0
"""Above every limit of the rules, which speak first."""

WRITE_SECTORS = (1, 3, 8, 8, 8, 8, 8, 13, 128, 512)
TRIM_SECTORS = (8, 24, 512, 2000)
READ_SECTORS = 64
MIB = 1 << 20

UNSAID_BYTES_MAX = 16 * MIB
"""What a pest has the server hold at most by requests that the rules do not hear of: that which it announces."""

COMMANDS = {READ: "READ", WRITE: "WRITE", DISC: "DISC", FLUSH: "FLUSH", TRIM: "TRIM"}

Connect = Callable[[str, str], "WatchedClient"]
"""A connection of a client of this name to this disk."""


class WatchedClient(Client):
    """A client that tells the rules of every request, every reply, and the end."""

    def __init__(self, address: Address, export: str, who: str, rules: Rules) -> None:
        super().__init__(address, export, timeout=SOCKET_SECONDS)
        self.who = who
        self.rules = rules

    def submit(
        self, command: int, offset: int = 0, length: int = 0, *, flags: int = 0, data: bytes | memoryview = b""
    ) -> int:
        what = f"{COMMANDS[command]} of {len(data) or length} bytes at {offset}"
        reply = length if command == READ else 0
        self.rules.sent(self.who, self._cookie + 1, what, time.monotonic(), payload=len(data), reply=reply)
        with self._noticed():
            return super().submit(command, offset, length, flags=flags, data=data)

    def receive(self) -> Reply:
        with self._noticed():
            reply = super().receive()
        self.rules.answered(self.who, reply.cookie, reply.error)
        return reply

    def leave(self) -> None:
        """Close without a word, which is nobody's fault."""
        self.rules.gone(self.who, left=True)
        self.close()

    @contextlib.contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError):
            self.rules.gone(self.who, left=False)
            raise


class Actor:
    """A client on a thread of its own, until its connection ends or it is told to leave."""

    def __init__(self, name: str, disk: str, connect: Connect) -> None:
        self.name = name
        self.rounds = 0
        """What it has done, whole."""
        self.leaving = threading.Event()
        self._disk = disk
        self._connect = connect
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        self._thread.start()

    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """AssertionError: it has not ended after so many seconds."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self.name} did not end"

    def _run(self) -> None:
        with contextlib.suppress(OSError, EOFError):  # what that means is for the rules to say
            client = self._connect(self.name, self._disk)
            try:
                while not self.leaving.is_set():
                    self.round(client)
                    self.rounds += 1
                client.rules.gone(self.name, left=True)
                client.disconnect()
            finally:
                client.close()

    def round(self, client: WatchedClient) -> None:
        """Do something whole."""
        raise NotImplementedError


class Steady(Actor):
    """Writes stamped sectors and trims in an area of its own, flushes, and reads back."""

    def __init__(
        self, name: str, disk: str, connect: Connect, *, lane: Lane, device: int, numbers: "count[int]", seed: str
    ) -> None:
        super().__init__(name, disk, connect)
        self.lane = lane
        self.flushes = 0
        self._now = lane.state.copy()
        self._device = device
        self._numbers = numbers
        self._chance = random.Random(seed)

    def round(self, client: WatchedClient) -> None:
        chance = self._chance
        sent = [self._change(client) for _ in range(chance.randint(1, 8))]
        for _ in sent:
            if client.receive().error:
                raise ConnectionAbortedError("the server is stopping")
        self.lane.completed = len(self.lane.operations)
        if chance.random() < 0.4:
            client.submit(FLUSH)
            if client.receive().error:
                raise ConnectionAbortedError("the server is stopping")
            self.lane.floor = self.lane.completed
            self.flushes += 1
        for _ in range(2):
            self._read(client)
        self.leaving.wait(chance.uniform(0, 0.2))

    def _change(self, client: WatchedClient) -> int:
        chance, lane = self._chance, self.lane
        writes = chance.random() < 0.85
        sectors = min(chance.choice(WRITE_SECTORS if writes else TRIM_SECTORS), len(lane.state))
        place = chance.randrange(len(lane.state) - sectors + 1)
        if chance.random() < 0.8:
            place -= place % 8
        number = next(self._numbers)
        value = number if writes else ZEROS
        first = lane.first + place
        # Noted before it is sent: even one cut off in the middle may have arrived whole.
        lane.operations.append(Operation(first, sectors, value, (0,)))
        self._now[place : place + sectors] = value
        if writes:
            data = encode(device=self._device, number=number, first=first, count=sectors)
            return client.submit(WRITE, first * SECTOR_BYTES, data=data)
        return client.submit(TRIM, first * SECTOR_BYTES, sectors * SECTOR_BYTES)

    def _read(self, client: WatchedClient) -> None:
        place = self._chance.randrange(len(self._now) - READ_SECTORS)
        first = self.lane.first + place
        client.submit(READ, first * SECTOR_BYTES, READ_SECTORS * SECTOR_BYTES)
        reply = client.receive()
        if reply.error:
            raise ConnectionAbortedError("the server is stopping")
        try:
            seen = decode(reply.data, device=self._device, first=first)
        except Damaged as error:
            client.rules.broken(f"{self.name}: {error}")
            return
        wrong = np.flatnonzero(seen != self._now[place : place + READ_SECTORS])
        if len(wrong):
            sector = int(wrong[0])
            client.rules.broken(
                f"{self.name}: {len(wrong)} sectors read wrong; sector {first + sector} says write {seen[sector]}, "
                f"and the last there was {self._now[place + sector]}"
            )


class Prober(Actor):
    """Reads an area that holds write 1, and that the store may withhold: the right bytes or EIO, whenever."""

    def __init__(self, name: str, disk: str, connect: Connect, *, sectors: int, device: int, seed: str) -> None:
        super().__init__(name, disk, connect)
        self.withheld = False
        """Reads may fail, and wait for as long as they like."""
        self.refused = 0
        self._sectors = sectors
        self._device = device
        self._chance = random.Random(seed)

    def round(self, client: WatchedClient) -> None:
        first = self._chance.randrange(self._sectors - READ_SECTORS)
        if self.withheld:
            reply = self._unwatched(client, first)
        else:
            client.submit(READ, first * SECTOR_BYTES, READ_SECTORS * SECTOR_BYTES)
            reply = client.receive()
        if reply.error == errno.EIO and self.withheld:
            self.refused += 1
        elif reply.error:
            raise ConnectionAbortedError("the server is stopping")
        else:
            self._check(client.rules, reply.data, first)
        self.leaving.wait(self._chance.uniform(0, 0.2))

    def _unwatched(self, client: WatchedClient, first: int) -> Reply:
        cookie = Client.submit(client, READ, first * SECTOR_BYTES, READ_SECTORS * SECTOR_BYTES)
        try:
            reply = Client.receive(client)
        except (OSError, EOFError):
            client.rules.gone(self.name, left=self.leaving.is_set())
            raise
        assert reply.cookie == cookie
        return reply

    def _check(self, rules: Rules, data: bytearray, first: int) -> None:
        try:
            if (decode(data, device=self._device, first=first) != 1).any():
                rules.broken(f"{self.name}: sectors from {first} on do not say write 1")
        except Damaged as error:
            rules.broken(f"{self.name}: {error}")


class Misbehaving(Actor):
    """One pest, on a disk that nobody else needs; it does what it does once."""

    def __init__(self, name: str, disk: str, connect: Connect, *, pest: Pest, address: Address) -> None:
        super().__init__(name, disk, connect)
        self._pest = pest
        self._address = address

    def _run(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            if self._pest.kind == "stalls in the handshake":
                self._stall_in_handshake()
                return
            client = self._connect(self.name, self._disk)
            try:
                self._do(client)
                self.rounds += 1
            finally:
                client.leave()

    def _do(self, client: WatchedClient) -> None:
        match self._pest.kind:
            case "floods with reads":
                self._flood(client, [(READ, number % 256 * MIB, 64 << 10) for number in range(2000)])
            case "floods with writes":
                self._flood(client, [(WRITE, number * MIB, MIB) for number in range(24)])
            case "announces a payload and stalls":
                self._stall(client, request(WRITE, 0, UNSAID_BYTES_MAX) + bytes(1000))
            case "sends half a header and stalls":
                self._stall(client, request(READ, 0, 4096)[:13])
            case "resets with requests under way":
                self._some(client)
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "closes with requests under way":
                self._some(client)
            case "says DISC in the middle":
                self._some(client)
                Client.submit(client, DISC)
                self._some(client)

    def _flood(self, client: WatchedClient, requests: list[tuple[int, int, int]]) -> None:
        piece = memoryview(bytes(MIB))
        for command, offset, length in requests:
            client.submit(command, offset, length, data=piece[:length] if command == WRITE else b"")
        self.leaving.wait(self._pest.seconds)
        for _ in requests:
            client.receive()

    def _stall(self, client: WatchedClient, part: bytes) -> None:
        client.socket.sendall(part)
        self.leaving.wait(self._pest.seconds * 5)

    def _stall_in_handshake(self) -> None:
        family = socket.AF_INET if isinstance(self._address, tuple) else socket.AF_UNIX
        with socket.socket(family) as connection:
            connection.connect(self._address if isinstance(self._address, tuple) else str(self._address))
            connection.sendall(struct.pack(">I", 3) + b"IHAVE")
            self.leaving.wait(self._pest.seconds)
        self.rounds += 1

    def _some(self, client: WatchedClient) -> None:
        """Requests whose replies nobody waits for. The rules do not hear of them: their end is this client's own."""
        for number in range(8):
            Client.submit(client, WRITE, number * MIB, data=bytes(64 << 10))
            Client.submit(client, READ, number * MIB, 64 << 10)
        Client.submit(client, FLUSH)
