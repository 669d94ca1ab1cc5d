"""Crowds, asked what a look at all connections would say; and that no newcomer costs a look at all of them."""

import asyncio
import random

from nbdserver.server.connection_table import ConnectionTable
from nbdserver.server.crowds import Crowds
from nbdserver.server.limits import Limits
from nbdserver.server.peer import Peer
from storage.env import RealEnv

SHARE = 3
ADDRESSES = "abcd"


def test_they_say_what_a_look_at_all_would() -> None:
    for seed in range(30):
        chance, share = random.Random(seed), SHARE
        crowds: Crowds[int] = Crowds(share)
        address: dict[int, str] = {}
        until: dict[int, float] = {}
        for step in range(120):
            one = chance.choice([*address, step])
            if chance.random() < 0.1:
                share = chance.randrange(1, 6)
                crowds.use_share(share)
            elif one not in address:
                address[one] = chance.choice(ADDRESSES)
                crowds.opened(one, address[one])
                if chance.random() < 0.8:
                    until[one] = 100.0 + step
                    crowds.haggles(one, until[one])
            elif chance.random() < 0.5:
                until.pop(one, None)
                crowds.settled(one)
            else:
                until.pop(one, None)
                del address[one]
                crowds.closed(one)
            check(crowds, share, address, until)


def check(crowds: Crowds[int], share: int, address: dict[int, str], until: dict[int, float]) -> None:
    """Against everybody: where they are, and those in the handshake, longest first."""
    here = {place: [one for one in address if address[one] == place] for place in ADDRESSES}
    haggling = {place: [one for one in until if address[one] == place] for place in ADDRESSES}
    for place in ADDRESSES:
        assert crowds.is_full(place) == (len(here[place]) >= share)
        longest = haggling[place][0] if haggling[place] else None
        assert crowds.longest_of(place) == longest
        assert crowds.kept_until(place) == (0.0 if longest is None else until[longest])
    most = max(map(len, haggling.values()))
    oldest_first = sorted((each for each in ADDRESSES if haggling[each]), key=lambda each: haggling[each][0])
    assert crowds.busiest() == next((each for each in oldest_first if len(haggling[each]) == most), None)
    full = [until[haggling[each][0]] for each in ADDRESSES if haggling[each] and len(here[each]) >= share]
    assert crowds.full_until() == max(full, default=0.0)


class Counted:
    """As much of a connection as the table looks at, and how often it did."""

    looks = 0

    def __init__(self, address: str) -> None:
        self._peer = Peer(address, address, None)

    @property
    def client(self) -> "Counted":
        Counted.looks += 1
        return self

    @property
    def peer(self) -> Peer:
        return self._peer

    def fail(self) -> None:
        """It loses its place."""


async def test_a_newcomer_costs_no_look_at_everybody() -> None:
    env = RealEnv()
    try:
        table = ConnectionTable(Limits(connections=2000, connections_per_address=100), env)
        for number in range(2200):  # shares that are full, and more than there is room for
            table.opened(Counted(f"10.0.{number // 110}.1"))  # type: ignore[arg-type]
        before = Counted.looks
        assert 0 < table.answer_time() <= Limits().answer_seconds
        assert Counted.looks == before
        table.opened(Counted("10.1.0.1"))  # type: ignore[arg-type]
        assert Counted.looks <= before + 5, "itself, and whose place it takes"
        await asyncio.sleep(0)
    finally:
        env.close()
