"""The fifth step of a check, and with another index the sixth: all that the indexes of the layers show, beside what the
SSTs say: findings by SST. No I/O; for a thread.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from storage.check import references
from storage.check.findings import Finding, Kind, LayerRange, sector_ranges
from storage.check.subject import Findings
from storage.check.visible import Blocks, Pages, PartRows, rows_in, visible
from storage.format.columns import Columns
from storage.format.names import MANIFESTS, sst_name
from storage.format.sst import SstIndex
from storage.lsm.index.rows import Frozen

PAGES_AT_ONCE = 8
"""Of an index, which are looked at together: 32,768 blocks, and some megabytes of rows."""

_SENTENCES = {
    Kind.MISSING: "what lay in it cannot be read",
    Kind.REFERENCE: "the index of a device refers to a place in it where its own index has nothing, or something else",
    Kind.STALE: "a device shows what lies in it, although a listed SST holds something newer",
}

_ELSEWHERE = {
    Kind.REFERENCE: "the index of a device refers to an SST that neither manifest nor checkpoint lists",
    Kind.MEMORY: "the index in memory is not what the store says: stop the server, and start it again",
}
"""What is of no SST that is listed."""


@dataclass(frozen=True, slots=True)
class LayerMaps:
    """The indexes that show a layer: those of its trunk from there on, oldest first, as they were made again, and as a
    running server has them (None: there is none).
    """

    layer: int
    rebuilt: Sequence[Frozen]
    memory: Sequence[Frozen] | None

    def goes_on(self, newer: "LayerMaps") -> bool:
        """Whether `newer` is the layer that shows what this one does not hold."""
        pairs = [(self.rebuilt, newer.rebuilt), (self.memory or (), newer.memory or ())]
        return all([*map(id, own[1:])] == [*map(id, other)] for own, other in pairs)


def pages_of(trunk: Sequence[LayerMaps]) -> Iterator[list[int]]:
    """The pages of which its layers hold anything, some at once."""
    parts = [part for maps in trunk for part in (*maps.rebuilt[:1], *(maps.memory or ())[:1])]
    numbers = sorted({number for part in parts for number in part.pages})
    return (numbers[at : at + PAGES_AT_ONCE] for at in range(0, len(numbers), PAGES_AT_ONCE))


@dataclass(slots=True)
class _Newer:
    """What was found of the layer that was looked at before, on the same pages."""

    maps: LayerMaps
    wrong: Blocks
    """Blocks of which there was something to say."""
    origin: NDArray[np.uint32]
    """Of each block the newest layer that what it shows was written to, as the SSTs say."""


@dataclass(slots=True)
class Analysis:
    """One look at all layers: a trunk after the other, and of each some pages at once."""

    numbers: Mapping[str, int]
    """Those of all SSTs that manifest or checkpoint list, by id."""
    numbers_end: int
    """All numbers given are below this."""
    indexes: Mapping[str, SstIndex]
    """Of the SSTs whose own index opens, by id; their entries are gone when the look has begun."""
    wrong_size: Mapping[str, int]
    """Ids of those that are missing, withheld or altered: how many bytes are there."""
    complete: bool
    """Whether all could be made again: else memory is not compared with it."""
    _ids: dict[int, str] = field(default_factory=dict)
    _listed: references.Numbers = field(default_factory=lambda: np.zeros(0, np.bool_))
    _known: references.Numbers = field(default_factory=lambda: np.zeros(0, np.bool_))
    _bad: dict[int, int] = field(default_factory=dict)
    _spans: Columns = field(default_factory=dict)
    _entries: references.Entries = field(default_factory=lambda: references.Entries(()))
    _places: dict[tuple[Kind, str, int], list[tuple[int, int]]] = field(default_factory=dict)

    def begin(self) -> None:
        """Put the rows of all SSTs in order."""
        numbers = self.numbers
        self._ids = {number: sst for sst, number in numbers.items()}
        known = {numbers[sst]: index for sst, index in self.indexes.items() if sst in numbers}
        self._bad = {numbers[sst]: size for sst, size in self.wrong_size.items() if sst in numbers}
        self._listed, self._known = (np.zeros(self.numbers_end, np.bool_) for _ in range(2))
        self._listed[[*self._ids]] = self._known[[*known]] = True
        tables = [index.ranges for index in known.values() if len(index.ranges["layer"])]
        names = ("layer", "first", "end", "sequence")
        self._spans = {n: np.concatenate([t[n] for t in tables]) if tables else np.zeros(0, np.uint64) for n in names}
        self._entries = references.Entries(known.items())

    def look_at_trunk(self, trunk: Sequence[LayerMaps], numbers: Sequence[int]) -> None:
        """Look at some pages of the layers of a trunk, which ascend.

        Of a snapshot only those blocks are looked at of which something else is to be said than of the next newer
        layer: so it costs what was written, not what each of a hundred snapshots shows.
        """
        pages = Pages(np.array(numbers, np.int64))
        rows: dict[int, PartRows] = {}
        newer: _Newer | None = None
        for maps in reversed(trunk):
            parts = []
            for some in (maps.rebuilt, maps.rebuilt if maps.memory is None else maps.memory):
                parts.append([rows.get(id(part)) or rows.setdefault(id(part), rows_in(part, pages)) for part in some])
            newer = self._layer(maps, pages, parts[0], parts[1], newer)

    def _layer(
        self, maps: LayerMaps, pages: Pages, rebuilt: list[PartRows], memory: list[PartRows], newer: _Newer | None
    ) -> _Newer:
        layer, of_layer = maps.layer, self._entries.of_layer(maps.layer, pages)
        spans = references.taken(self._spans, np.flatnonzero(self._spans["layer"] == layer))
        if newer is None or not maps.goes_on(newer.maps):
            wanted, origin = pages.all(), np.zeros(len(pages.all()), np.uint32)
        else:
            origin = newer.origin
            wanted = newer.wrong | (origin > layer) | references.inside(spans, pages)
            for blocks in (rebuilt[0].kept, memory[0].kept, of_layer["block"]):
                wanted[pages.at(blocks)] = True
        held, wrong = visible(memory, pages, wanted), pages.none()

        def note(kind: Kind, sst: str, places: list[tuple[int, int]]) -> None:
            if places:
                self._places.setdefault((kind, sst, layer), []).extend(places)
                wrong[pages.at(np.array([block for block, _ in places], np.uint32))] = True

        rows = references.seen_rows(held)
        for number, size in self._bad.items():
            note(Kind.MISSING, self._ids[number], references.beyond(rows, number, size))
        for number, places in references.broken_places(rows, layer, self._entries, known=self._known).items():
            note(Kind.REFERENCE, self._ids[number], places)
        for places in references.places_beside(rows, self._listed).values():
            note(Kind.REFERENCE, "", places)
        for number, places in references.stale_places(rows, of_layer, self._entries, spans).items():
            note(Kind.STALE, self._ids[number], places)
        if maps.memory is not None and self.complete:
            note(Kind.MEMORY, "", references.differing(held, visible(rebuilt, pages, wanted)))
        origin[wanted] = 0
        at = self._entries.at(rows["location"])
        np.maximum.at(origin, pages.at(rows["block"][at >= 0]), self._entries.rows["layer"][at[at >= 0]])
        return _Newer(maps, wrong, origin)

    def tell(self, findings: Findings) -> None:
        """Add what was found; ranges of an object that is missing go to the finding that says so."""
        found: dict[tuple[Kind, str], list[LayerRange]] = {}
        for (kind, sst, layer), places in self._places.items():
            found.setdefault((kind, sst), []).extend(sector_ranges(layer, places))
        for (kind, sst), ranges in sorted(found.items()):
            if not sst:
                findings.add(kind, MANIFESTS, _ELSEWHERE[kind], tuple(ranges))
                continue
            name = sst_name(sst)
            known = [at for at, one in enumerate(findings.all) if one.object == name and not one.fault]
            if kind is Kind.MISSING and known:
                old = findings.all[known[0]]
                findings.all[known[0]] = Finding(old.kind, name, old.sentence, tuple(ranges))
            else:
                findings.add(kind, name, _SENTENCES[kind], tuple(ranges))
