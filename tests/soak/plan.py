"""What happens in one soak: a pure function of its seed.

A soak is a few lives of one server on one store. Each life has faults of the store, in order and never two at once but
for those that last the whole life, and clients that misbehave; it ends by SIGKILL or by SIGTERM, in the calm after the
faults or in the middle of an outage. The program and its clients run on the wall clock, so that one seed is the same
plan, and not the same interleaving.
"""

import random
from dataclasses import dataclass

AWAY = {
    "minio": ("silence", "cut", "unavailable", "page"),
    "file": ("closed", "no writes: EACCES", "no writes: EIO"),
}
"""Faults during which the store does not answer, by kind of store; or does not take what is written, and gives what is
read.
"""

HARD = {
    "minio": ("flaky", "delay", "throttle"),
    "file": ("some writes: EIO",),
}
"""Faults during which it answers, badly."""

LASTING = {
    "minio": ("withheld: 403", "withheld: 500", "no deletes"),
    "file": ("withheld: EACCES", "withheld: ELOOP"),
}
"""Faults of a whole life, its stop included. ELOOP stands for EIO: the store knows no other kind for either."""

PESTS = (
    "floods with reads",
    "floods with writes",
    "announces a payload and stalls",
    "sends half a header and stalls",
    "stalls in the handshake",
    "resets with requests under way",
    "closes with requests under way",
    "says DISC in the middle",
)
"""Clients that misbehave. Those that flood read their replies in the end, and must get them."""

ENDINGS = ("killed", "killed in an outage", "stopped", "stopped under load")
LIFE_SECONDS = 12.0
OUTAGE_SECONDS = 32.0
"""Of one outage in each soak that has the time: longer than any request may take by itself."""

OUTAGE_LIFE_SECONDS = 42.0
LONG_SECONDS = OUTAGE_LIFE_SECONDS + 2 * LIFE_SECONDS
"""A soak of that length has it."""

CALM_SECONDS = 1.5
"""Between two faults, and before the first."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the store from `begins` to `ends`, seconds of its life; `strength` from 0 to 1."""

    kind: str
    begins: float
    ends: float
    strength: float


@dataclass(frozen=True, slots=True)
class Pest:
    """A client that misbehaves, from `begins` on, for up to `seconds`."""

    kind: str
    begins: float
    seconds: float
    tcp: bool


@dataclass(frozen=True, slots=True)
class Life:
    """A server from its start to its end, `seconds` after it or as soon as the faults are over."""

    seconds: float
    faults: tuple[Fault, ...]
    lasting: tuple[str, ...]
    pests: tuple[Pest, ...]
    ending: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A soak on a store of one kind, `minio` or `file`."""

    seed: int
    store: str
    lives: tuple[Life, ...]


def plan(seed: int, store: str, seconds: float) -> Plan:
    """The soak of this seed, of about so many seconds."""
    chance = random.Random(f"{seed} {store}")
    lives: list[Life] = []
    if seconds >= LONG_SECONDS:
        lives.append(_life_with_an_outage(chance, store))
        seconds -= OUTAGE_LIFE_SECONDS
    count = max(2, round(seconds / LIFE_SECONDS))
    endings = [chance.choice(ENDINGS) for _ in range(count)]
    endings[-1] = chance.choice(ENDINGS[2:])
    if not any(ending.startswith("killed") for ending in endings):
        endings[chance.randrange(count - 1)] = chance.choice(ENDINGS[:2])
    lives += [_life(chance, store, seconds / count, ending) for ending in endings]
    return Plan(seed, store, tuple(lives))


def _life_with_an_outage(chance: random.Random, store: str) -> Life:
    begins = chance.uniform(CALM_SECONDS, OUTAGE_LIFE_SECONDS - OUTAGE_SECONDS - CALM_SECONDS)
    outage = Fault(chance.choice(AWAY[store]), begins, begins + OUTAGE_SECONDS, chance.random())
    pests = tuple(_pests(chance, OUTAGE_LIFE_SECONDS))
    return Life(OUTAGE_LIFE_SECONDS, (outage,), (), pests, chance.choice(("killed", "stopped under load")))


def _life(chance: random.Random, store: str, seconds: float, ending: str) -> Life:
    faults = []
    now = CALM_SECONDS
    while now < seconds - CALM_SECONDS:
        kinds = AWAY[store] + HARD[store]
        lasts = chance.uniform(0.5, 4.0)
        faults.append(Fault(chance.choice(kinds), now, min(now + lasts, seconds - CALM_SECONDS), chance.random()))
        now += lasts + chance.uniform(0.5, CALM_SECONDS)
    if ending == "killed in an outage":
        last = Fault(chance.choice(AWAY[store]), seconds - CALM_SECONDS, seconds + CALM_SECONDS, chance.random())
        faults.append(last)
    lasting = tuple(kind for kind in LASTING[store] if chance.random() < 0.4)
    return Life(seconds, tuple(faults), _of_one_withheld(lasting), tuple(_pests(chance, seconds)), ending)


def _of_one_withheld(lasting: tuple[str, ...]) -> tuple[str, ...]:
    """An object is withheld in one way at a time: the first of those that were drawn."""
    withheld = [kind for kind in lasting if kind.startswith("withheld")]
    return tuple(kind for kind in lasting if kind not in withheld[1:])


def _pests(chance: random.Random, seconds: float) -> list[Pest]:
    kinds = [chance.choice(PESTS) for _ in range(chance.randint(3, 6))]
    return [
        Pest(kind, chance.uniform(0, seconds * 0.7), chance.uniform(0.5, 4), chance.random() < 0.5) for kind in kinds
    ]
