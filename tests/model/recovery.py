"""What a process that starts on a bucket gets to see: the log, and whether the bucket can be all of a store."""

from typing import Any

from tests.model.explore import Violation
from tests.model.rules import Bounds, Manifest, Rules, Session, State, Table, Writes, holds, is_prefix


class Recovery:
    """The rules by which a store is read; what is checked in every state rests on them."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules, self.bounds = rules, bounds

    def replay(self, log: dict[int, Any], start: int, until: int | None = None) -> tuple[Writes, int, int]:
        """Walk the log. Gives the writes, the first number that is not there, and the highest epoch met."""
        found: list[tuple[int, int]] = []
        number, epoch, top = start, 0, max(log, default=-1)
        while until is None or number < until:
            item = log.get(number)
            if item is None:
                if self.rules.replay_gap == "skip" and number <= top:
                    number += 1
                    continue
                break
            kind, own, session, content = item
            epoch = max(epoch, own)
            if kind == "F":
                number = content
            else:
                found += [(session, i) for i in content]
                number += 1
        return tuple(found), number, epoch

    def recover(self, log: dict[int, Any], manifest: Manifest, tables: frozenset[Table]) -> Writes:
        """The state that manifest and log say; Violation if what they name is not there."""
        for write in manifest.writes:
            if not any(write in holds(table) and table in tables for table in manifest.tables):
                raise Violation(f"recovery: no object holds flushed write {write}")
        found, _, _ = self.replay(log, manifest.replay)
        for write in found:
            if write in self.bounds.bulk and ("x", *write) not in tables:
                raise Violation(f"recovery: the locator of write {write} points to a missing SST")
        return manifest.writes + found

    def well_formed(self, writes: Writes, sessions: tuple[Session, ...], who: str) -> None:
        """Violation unless the writes are a prefix of some real history."""
        for place, (session, i) in enumerate(writes):
            if session < 0:
                continue
            if i == 1 and writes[:place] != sessions[session].base:
                raise Violation(f"{who}: not a prefix of the order of writes: {writes}")
            if i > 1 and (place == 0 or writes[place - 1] != (session, i - 1)):
                raise Violation(f"{who}: not a prefix of the order of writes: {writes}")

    def acknowledged(self, number: int, session: Session) -> Writes:
        """What a session has recovered or acknowledged."""
        return session.base + tuple((number, i) for i in range(1, session.acked + 1))

    # --- whether it is whole

    def epoch_of(self, table: Table, sessions: tuple[Session, ...]) -> int:
        """The epoch in an SST's name."""
        return 0 if table[1] < 0 else sessions[table[1]].epoch

    def missing(
        self,
        log: dict[int, Any],
        manifests: dict[int, Manifest],
        tables: frozenset[Table],
        sessions: tuple[Session, ...],
    ) -> str | None:
        """Why this cannot be all of a store; None if it can."""
        if not manifests:
            return "no manifest" if self.rules.needs_manifest and (log or tables) else None
        manifest = manifests[max(manifests)]
        if not manifest.tables <= tables:
            return "a named SST"
        found, end, epoch = self.replay(log, manifest.replay)
        if epoch > manifest.epoch or any(self.epoch_of(table, sessions) > manifest.epoch for table in tables):
            return "the manifests of an epoch"
        if any(write in self.bounds.bulk and ("x", *write) not in tables for write in found):
            return "an SST that the log names"
        beyond = [number for number in log if number > end]
        fences = [number for number in beyond if log[number][0] == "F"]
        if fences or manifest.acknowledged >= end or max(beyond, default=0) >= end + self.rules.jump:
            return "a part of the log"
        others = [table for table in tables - manifest.tables if table[0] == "s"]
        if self.rules.orphans_log and any(
            table[4] >= self.reach(log, manifest.replay, end, self.epoch_of(table, sessions)) for table in others
        ):
            return "the log of an orphan"
        return None

    def reach(self, log: dict[int, Any], start: int, end: int, epoch: int) -> int:
        """Where a writer's part of the log ends: at the first fence of a later one, or with the log."""
        if not self.rules.fences_end:
            return end
        later = [n for n, item in log.items() if start <= n < end and item[0] == "F" and item[1] > epoch]
        return min(later, default=end)

    def check_copies(self, state: State) -> None:
        """The whole is never refused. A part of it is, or is an older state; and no SST that the whole names is swept
        unless everything is there that was acknowledged when that was made.
        """
        log, manifests = dict(state.log), dict(state.manifests)
        newest = manifests[max(manifests)]
        if why := self.missing(log, manifests, state.tables, state.sessions):
            raise Violation(f"a store that is whole is refused: {why} is missing")
        for upto in (0, *manifests):
            kept = {number: manifest for number, manifest in manifests.items() if number <= upto}
            for cut in (0, *(number + 1 for number in log)):
                part = {number: item for number, item in log.items() if number < cut}
                if self.missing(part, kept, state.tables, state.sessions) is not None:
                    continue
                seen = self.recover(part, kept[upto], state.tables) if kept else ()
                self.well_formed(seen, state.sessions, "a partial copy")
                named = kept[upto].tables if kept else frozenset()
                for table in newest.tables - named:
                    if table[0] == "s" and not is_prefix(table[5], seen):
                        raise Violation(f"a copy with manifests up to {upto} and a log below {cut} sweeps {table}")
