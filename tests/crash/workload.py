"""How to put a disk under a mix of stamped requests until the server dies, and what came of
each.

Every connection runs in its own thread with its own area of the disk and keeps several requests in flight.
The mix: writes of 512 bytes to 1 MiB, trims and zeroings, some with FUA, and flushes.
"""

import errno
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.crash.history import Lane, Operation
from tests.crash.stamps import SECTOR_BYTES, ZEROS, Numbers, encode
from tests.support.messages import FLUSH, FUA, NO_HOLE, TRIM, WRITE, WRITE_ZEROES
from tests.support.nbd import Client, NbdError

WRITE_SECTORS = (1, 3, 8, 8, 8, 8, 8, 8, 13, 128, 128, 512, 512, 2048)
"""512 B, 1.5 KiB, 4 KiB (mostly), 6.5 KiB, 64 KiB, 256 KiB and 1 MiB."""

IN_FLIGHT = 12
"""Requests of one connection not yet answered."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request not yet answered: a flush covers `covers[j]` operations of lane j; otherwise `length` is its
    place.
    """

    length: int = 0
    fua: bool = False
    covers: tuple[int, ...] | None = None


class Workload:
    """Connections to one device and the history of what they did in this life of the server.

    `states` are what the areas hold at the start. `numbers` gives every write its number, once over all
    lives.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Client],
        device: int,
        states: list[Numbers],
        first_number: int,
        seed: int,
    ) -> None:
        self._connect = connect
        self._device = device
        self._lock = threading.Lock()
        self._number = first_number
        self._seed = seed
        self.flushes = 0
        self.lanes: list[Lane] = []
        first = 0
        for state in states:
            self.lanes.append(Lane(first, state))
            first += len(state)
        self.failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._drive, args=(index,)) for index in range(len(states))]

    @property
    def next_number(self) -> int:
        """The first number that no write has had yet."""
        return self._number

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, *, seconds: float = 60) -> None:
        """Wait until every connection has ended; raises what went wrong other than the end of the server."""
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive(), "a connection outlived its server"
        if self.failure is not None:
            raise self.failure

    def _drive(self, index: int) -> None:
        try:
            client = self._connect()
        except (OSError, EOFError):
            return
        try:
            self._requests(client, index, random.Random(self._seed * 1000 + index))
        except NbdError as error:
            self.failure = error
        except (OSError, EOFError):
            pass  # the server died, as it was to
        except BaseException as error:
            self.failure = error
        finally:
            client.close()

    def _requests(self, client: Client, index: int, chance: random.Random) -> None:
        waiting: dict[int, Sent] = {}
        while True:
            if len(waiting) < IN_FLIGHT and chance.random() < 0.9:
                self._send(client, index, chance, waiting)
            elif waiting:
                reply = client.receive()
                if reply.error == errno.ESHUTDOWN:
                    return  # another server took the store; what this one answered before counts
                if reply.error:
                    raise NbdError(reply.error, f"a request was answered with error {reply.error}")
                self._completed(index, waiting.pop(reply.cookie))

    def _completed(self, index: int, sent: Sent) -> None:
        with self._lock:
            if sent.covers is not None:
                self.flushes += 1
                for lane, length in zip(self.lanes, sent.covers, strict=True):
                    lane.floor = max(lane.floor, length)
                return
            lane = self.lanes[index]
            lane.completed = max(lane.completed, sent.length)
            if sent.fua:
                lane.floor = max(lane.floor, sent.length)

    def _send(self, client: Client, index: int, chance: random.Random, waiting: dict[int, Sent]) -> None:
        kind = chance.random()
        with self._lock:
            known = tuple(lane.completed for lane in self.lanes)
        if kind < 0.06:
            waiting[client.submit(FLUSH)] = Sent(covers=known)
            return
        lane = self.lanes[index]
        count = chance.choice(WRITE_SECTORS) if kind < 0.9 else chance.choice((8, 24, 512, 4000, 20000))
        count = min(count, len(lane.state))
        place = chance.randrange(len(lane.state) - count + 1)
        if chance.random() < 0.8:
            place -= place % 8  # mostly aligned to 4 KiB, as filesystems write
        first = lane.first + place
        fua = chance.random() < 0.03
        with self._lock:
            number = self._number
            self._number += 1
            value = number if kind < 0.9 else ZEROS
            # Recorded before it is sent: even one cut off in the middle may have arrived whole.
            lane.operations.append(Operation(first, count, value, known))
            length = len(lane.operations)
        flags = FUA if fua else 0
        offset, size = first * SECTOR_BYTES, count * SECTOR_BYTES
        if kind < 0.9:
            data = encode(device=self._device, number=number, first=first, count=count)
            cookie = client.submit(WRITE, offset, data=data, flags=flags)
        elif kind < 0.95:
            cookie = client.submit(TRIM, offset, size, flags=flags)
        else:
            cookie = client.submit(WRITE_ZEROES, offset, size, flags=flags | (NO_HOLE if number % 2 else 0))
        waiting[cookie] = Sent(length=length, fua=fua)
