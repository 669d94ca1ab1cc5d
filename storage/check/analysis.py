"""The fifth step of a check, and with another index the sixth: all that the indexes of the layers show, beside what the
SSTs say: findings by SST. No I/O; for a thread.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from storage.check import references
from storage.check.findings import Finding, Kind, LayerRange, sector_ranges
from storage.check.subject import Findings
from storage.check.visible import visible
from storage.format.columns import Columns
from storage.format.names import MANIFESTS, sst_name
from storage.format.sst import SstIndex
from storage.lsm.index.rows import Frozen
from storage.lsm.index.sst_numbers import SstNumbers

_SENTENCES = {
    Kind.MISSING: "what lay in it cannot be read",
    Kind.REFERENCE: "the index of a device refers to a place in it where its own index has nothing, or something else",
    Kind.STALE: "a device shows what lies in it, although a listed SST holds something newer",
}


@dataclass(slots=True)
class Analysis:
    """One look at all layers, one after the other."""

    numbers: SstNumbers
    indexes: Mapping[str, SstIndex]
    """Of the SSTs whose own index opens, by id."""
    listed: Collection[str]
    """Ids of the SSTs that manifest or checkpoint list."""
    wrong_size: Mapping[str, int]
    """Ids of those that are missing, withheld or altered: how many bytes are there."""
    _entries: Columns = field(default_factory=dict)
    _frames: Columns = field(default_factory=dict)
    _ids: dict[int, str] = field(default_factory=dict)
    _ranges: dict[tuple[Kind, str], list[LayerRange]] = field(default_factory=dict)
    _elsewhere: list[Finding] = field(default_factory=list)

    def begin(self) -> None:
        """Put the rows of all SSTs in order."""
        numbered = [(self.numbers.number(sst), index) for sst, index in self.indexes.items() if sst in self.listed]
        self._entries = references.rows_of(numbered)
        self._frames = references.by_location(self._entries)
        self._ids = {self.numbers.number(sst): sst for sst in self.listed}

    def layer(self, layer: int, rebuilt: Sequence[Frozen], memory: Sequence[Frozen] | None, complete: bool) -> None:
        """Look at one layer: the indexes of its trunk from there on as they were made again, and as a running server
        has them. What could not be made again `complete` is not compared with memory.
        """
        again = visible(rebuilt)
        held = again if memory is None else visible(memory)
        rows = references.seen_rows(held)
        bad = {self.numbers.number(sst): size for sst, size in self.wrong_size.items()}
        for number, size in bad.items():
            self._note(Kind.MISSING, layer, number, references.beyond(rows, number, size))
        known = {self.numbers.number(sst) for sst in self.indexes if sst in self.listed}
        for number, places in references.broken_places(rows, layer, self._frames, known=known).items():
            self._note(Kind.REFERENCE, layer, number, places)
        for number in np.unique(rows["location"] >> np.uint64(32)).tolist():
            if number not in self._ids:
                self._unlisted(layer, references.places_in(rows, [number])[number])
        entries = references.of_layer(self._entries, layer)
        stale = references.stale_places(rows, entries, self._frames, self._spans(layer))
        for number, places in stale.items():
            self._note(Kind.STALE, layer, number, places)
        if memory is not None and complete:
            self._compare(layer, references.differing(held, again))

    def tell(self, findings: Findings) -> None:
        """Add what was found; ranges of an object that is missing go to the finding that says so."""
        for (kind, sst), ranges in sorted(self._ranges.items()):
            name = sst_name(sst)
            known = [at for at, one in enumerate(findings.all) if one.object == name and not one.fault]
            if kind is Kind.MISSING and known:
                old = findings.all[known[0]]
                findings.all[known[0]] = Finding(old.kind, name, old.sentence, tuple(ranges))
            else:
                findings.add(kind, name, _SENTENCES[kind], tuple(ranges))
        findings.all += self._elsewhere

    def _note(self, kind: Kind, layer: int, number: int, places: list[tuple[int, int]]) -> None:
        if places:
            self._ranges.setdefault((kind, self._ids[number]), []).extend(sector_ranges(layer, places))

    def _unlisted(self, layer: int, places: list[tuple[int, int]]) -> None:
        what = "the index of a device refers to an SST that neither manifest nor checkpoint lists"
        self._elsewhere.append(Finding(Kind.REFERENCE, MANIFESTS, what, sector_ranges(layer, places)))

    def _compare(self, layer: int, places: list[tuple[int, int]]) -> None:
        if places:
            what = "the index in memory is not what the store says: stop the server, and start it again"
            self._elsewhere.append(Finding(Kind.MEMORY, MANIFESTS, what, sector_ranges(layer, places)))

    def _spans(self, layer: int) -> Columns:
        """The ranges of zeros of one layer in all listed SSTs."""
        tables = [index.ranges for sst, index in self.indexes.items() if sst in self.listed]
        names = ("first", "end", "sequence")
        rows = [{name: table[name][table["layer"] == layer] for name in names} for table in tables]
        return {name: np.concatenate([row[name] for row in rows]) if rows else np.zeros(0, np.uint64) for name in names}
