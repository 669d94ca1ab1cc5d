"""Damage to a store at rest, end to end:  python -m tests.crash.tampering --flips 500

A store with every kind of object in it (keys, manifests, log, bulk data, patches, metadata) is damaged in one
place and served. The promise: the program refuses to start and says why, or a read is answered with an error,
or the data is right; never anything else.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.nbd import NbdError
from tests.support.program import Host, NotListening, Server
from tests.support.stores import folder_store

DISK_BYTES = 32 << 20
BLOCK_BYTES = 256 << 10

REFUSALS = {10, 11, 12, 14, 20}
"""Exit statuses with which a damaged store may be refused: what is missing, exchanged, unreadable or damaged.
"""


class WrongData(AssertionError):
    """A damaged store gave data that was never written there, or data that was overwritten."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One way to damage a store: the object it is done to, what it is in words, and the doing."""

    name: str
    what: str
    do: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Effect:
    """What came of a damage: "refused" with a status, "read errors", or "none": everything was read, and was
    right.
    """

    kind: str
    detail: str


class StoreAtRest:
    """A folder store in which every kind of object occurs, with what its disk must hold."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        store = folder_store(folder)
        self.root = folder / "store"
        self._state = folder / "state"
        self.server = Server(Host(folder), store.location, create={"disk": str(DISK_BYTES)}, tcp=False)
        self._expected = bytearray(DISK_BYTES)
        self._build()
        shutil.copytree(self.root, folder / "pristine-store")
        shutil.copytree(self._state, folder / "pristine-state")

    def _build(self) -> None:
        """Bulk data, then patches, each stopped cleanly; then writes that only the log holds, and kill -9."""
        for writes, clean in (
            ([(0, 12 << 20), (20 << 20, 5 << 20)], True),
            ([(self._chance.randrange(8192) * 4096, 4096) for _ in range(300)], True),
            ([(self._chance.randrange(8192) * 4096, 4096) for _ in range(40)], False),
        ):
            self.server.start()
            with self.server.connect() as client:
                for number, (offset, length) in enumerate(writes):
                    data = self._chance.randbytes(length)
                    for start in range(0, length, 1 << 20):
                        client.write(offset + start, data[start : start + (1 << 20)])
                    self._expected[offset : offset + length] = data
                    if number % 10 == 0:
                        client.flush()
                client.trim(7 << 20, 1 << 20)
                self._expected[7 << 20 : 8 << 20] = bytes(1 << 20)
                client.flush()
            if clean:
                assert self.server.stop() == 0, self.server.said()
            else:
                self.server.kill()

    def objects(self) -> list[str]:
        """Names of the objects in the store, as docs/format.md lays them out; temporary files are none."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*.*") if path.is_file())
        return sorted(str(name) for name in found if name.parts[0] in {"keys", "manifest", "spare", "wal", "compacted"})

    def restore(self) -> None:
        """Undo the last damage, and what the host remembered of it."""
        for folder in (self.root, self._state):
            shutil.rmtree(folder)
            shutil.copytree(self._folder / f"pristine-{folder.name}", folder)

    def effect(self) -> Effect:
        """Serve the store as it is now and read the whole disk; WrongData if a read gives anything but the
        truth.
        """
        try:
            self.server.start()
        except NotListening as refusal:
            said = refusal.output.strip().splitlines()[-1:] or ["(nothing)"]
            if refusal.status not in REFUSALS or "Traceback" in refusal.output:
                raise AssertionError(f"refused with status {refusal.status}: {refusal.output}") from None
            return Effect("refused", f"status {refusal.status}: {said[0]}")
        errors = 0
        try:
            with self.server.connect() as client:
                for offset in range(0, DISK_BYTES, BLOCK_BYTES):
                    try:
                        data = client.read(offset, BLOCK_BYTES)
                    except NbdError:
                        errors += 1
                        continue
                    if data != self._expected[offset : offset + BLOCK_BYTES]:
                        raise WrongData(f"the block at {offset >> 10} KiB was served with wrong data")
        finally:
            self.server.kill()
            self.server.log.unlink()
        return Effect("read errors", f"{errors} blocks") if errors else Effect("none", "")

    def flips(self, count: int) -> Iterator[Damage]:
        """`count` flips of a random bit each, in objects of each kind in turn: how many of a kind there are depends on
        how fast the machine is."""
        kinds: dict[str, list[str]] = {}
        for name in self.objects():
            kinds.setdefault(name.split("/")[0], []).append(name)
        for number in range(count):
            name = self._chance.choice(kinds[sorted(kinds)[number % len(kinds)]])
            place = self._chance.randrange((self.root / name).stat().st_size)
            bit = 1 << self._chance.randrange(8)
            yield Damage(name, f"bit {bit:#04x} of byte {place} flipped", partial(flip, self.root / name, place, bit))

    def cuts_losses_and_swaps(self) -> Iterator[Damage]:
        """The first, a middle and the last object of each kind: cut short, emptied, lost, exchanged."""
        for kind in ("keys", "manifest", "spare", "wal", "compacted"):
            names = [name for name in self.objects() if name.startswith(kind + "/")]
            for name in sorted({names[0], names[len(names) // 2], names[-1]}):
                path = self.root / name
                yield Damage(name, "cut in half", partial(shorten, path, path.stat().st_size // 2))
                yield Damage(name, "emptied", partial(shorten, path, 0))
                yield Damage(name, "lost", path.unlink)
                other = self.root / next((other for other in names if other != name), name)
                if other != path:
                    yield Damage(name, f"exchanged with {other.name}", partial(exchange, path, other))


def shorten(path: Path, size: int) -> None:
    """Keep the first `size` bytes."""
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path, place: int, bit: int) -> None:
    """Change one bit of the byte at `place`."""
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def exchange(one: Path, other: Path) -> None:
    """Each gets the other's bytes."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def main() -> int:
    parser = argparse.ArgumentParser(description="damage a store at rest, and see that no wrong data is served")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nbd-") as name:
        store = StoreAtRest(Path(name), seed=arguments.seed)
        counts: Counter[tuple[str, str]] = Counter()
        try:
            for damage in (*store.cuts_losses_and_swaps(), *store.flips(arguments.flips)):
                damage.do()
                try:
                    effect = store.effect()
                except AssertionError as error:
                    print(f"FAILED: {damage.name}, {damage.what}: {error}")
                    return 1
                print(f"{damage.name}: {damage.what}: {effect.kind} {effect.detail}", flush=True)
                counts[damage.name.split("/")[0], effect.kind] += 1
                store.restore()
        finally:
            store.server.close()
        for (kind, effect_kind), count in sorted(counts.items()):
            print(f"{kind:10} {effect_kind:12} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
