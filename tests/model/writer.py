"""The steps of a writer: how it takes a store over, and what it does with it."""

from tests.model.commit import Commit
from tests.model.explore import Violation
from tests.model.rules import Job, Manifest, Put, Request, Session, Table, is_prefix


class Writer(Commit):
    """The whole model."""

    # --- take-over

    def begin(self, who: int, session: Session) -> None:
        number, base = max(self.state.manifests)
        if self.rules.early:
            session = session._replace(fence=self.replay(dict(self.state.log), base.replay)[1])
        self.begin_with(who, session, number, base, f"s{who} begins its take-over, reads manifest/{number}")

    def begin_with(self, who: int, session: Session, number: int, base: Manifest, label: str) -> None:
        """Send the manifest behind `number`: as `base`, with the next epoch. What the log was seen to hold is known."""
        end = self.replay(dict(self.state.log), base.replay)[1]
        seen = max((n for n, _ in self.state.log if n < end), default=0)
        manifest = base._replace(
            epoch=base.epoch + 1,
            session=who,
            attempt=session.attempts,
            takeover=True,
            acknowledged=max(base.acknowledged, seen),
        )
        job = Job(True, "i", 0, number + 1, manifest, ())
        then = session._replace(phase="taking", job=job, attempts=session.attempts + 1)
        self.emit(label, who, then, wire=self.send(("m", number + 1, manifest, who, 0)))

    def fence(self, who: int, session: Session) -> Request:
        resume = session.fence + self.rules.jump
        return ("w", session.fence, ("F", session.epoch, who, resume), who, session.fence_try)

    def take_over(self, who: int, session: Session) -> None:
        newest = max(self.state.manifests)[0]
        if session.phase == "listing":
            self.list_log(who, session)
        elif session.phase == "fencing" and session.fence_status == "q":
            self.settle_fence(who, session)
        elif session.phase == "replaying":
            self.read_log(who, session)
        elif session.phase == "verifying":
            if newest != session.number and self.rules.verify:
                self.emit(f"s{who} finds manifest/{newest}, stops", who, session._replace(phase="dead"))
            else:
                self.opened(f"s{who} finds its manifest the newest", who, session)

    def list_log(self, who: int, session: Session) -> None:
        assert session.manifest is not None
        log = dict(self.state.log)
        _, fence, epoch = self.replay(log, session.manifest.replay)
        if self.rules.fence == "top":
            fence = max([fence, *(number + 1 for number in log)])
        if epoch > session.epoch:
            self.emit(f"s{who} meets epoch {epoch}, stops", who, session._replace(phase="dead"))
            return
        then = session._replace(phase="fencing", fence=fence, fence_status="i")
        if self.rules.fence == "none":
            self.emit(f"s{who} needs no fence", who, then._replace(phase="replaying"))
        else:
            self.emit(f"s{who} sends its fence wal/{fence}", who, then, wire=self.send(self.fence(who, then)))

    def settle_fence(self, who: int, session: Session) -> None:
        found, label = dict(self.state.log).get(session.fence), f"s{who} GET wal/{session.fence}, its fence"
        if found is not None and found[0] == "F" and found[2] == who:
            self.emit(f"{label}: ours", who, session._replace(phase="replaying"))
        elif found is None or found[1] > session.epoch:
            self.emit(f"{label}: a newer writer's, stops", who, session._replace(phase="dead"))
        else:
            self.emit(f"{label}: the old writer's, looks again", who, session._replace(phase="listing", fence=-1))

    def read_log(self, who: int, session: Session) -> None:
        assert session.manifest is not None
        log, rules = dict(self.state.log), self.rules
        if rules.fence == "none":
            found, start, _ = self.replay(log, session.manifest.replay)
        else:
            found, end, _ = self.replay(log, session.manifest.replay, until=session.fence)
            start = session.fence + rules.jump
            if end != session.fence and (rules.fence, rules.replay_gap, rules.early) == ("gap", "stop", False):
                self.emit(f"s{who} misses wal/{end}, stops", who, session._replace(phase="dead"))
                return
        if any(write in self.bounds.bulk and ("x", *write) not in self.state.tables for write in found):
            if max(self.state.manifests)[0] == session.number:
                self.out.append((f"s{who} replays", Violation(f"session {who} misses the SST of a locator")))
            else:
                self.emit(f"s{who} misses an SST, stops", who, session._replace(phase="dead"))
            return
        then = session._replace(phase="verifying", base=session.manifest.writes + found, next=start, durable=start)
        self.emit(f"s{who} replays to wal/{session.fence}", who, then)

    def opened(self, label: str, who: int, session: Session) -> None:
        for number, other in enumerate(self.state.sessions):
            lower = number != who and other.base and other.epoch < session.epoch
            if lower and not is_prefix(self.acknowledged(number, other), session.base):
                self.out.append((label, Violation(f"session {who} opened without what session {number} acknowledged")))
                return
        self.emit(f"{label}, runs on {session.base}", who, session._replace(phase="running"))

    # --- a running writer

    def running(self, who: int, session: Session) -> None:
        if session.issued < self.bounds.writes[who] and len(session.puts) < self.bounds.window:
            self.write(who, session)
        for at, put in enumerate(session.puts):
            if put.status == "q":
                self.settle_put(who, session, at)
        if session.job is None:
            manifest = session.manifest
            if session.flushes and manifest and session.base + self.own(who, session) != manifest.writes:
                self.flush(who, session)
            self.delete_manifests(who, session)
            if session.sweeps:
                self.sweep(who, session)

    def own(self, who: int, session: Session) -> tuple[tuple[int, int], ...]:
        return tuple((who, i) for i in range(1, session.acked + 1))

    def write(self, who: int, session: Session) -> None:
        i = session.issued + 1
        if (who, i) in self.bounds.bulk and session.uploaded < i:
            table, then = ("x", who, i), session._replace(uploaded=i)
            if self.rules.locator_after_upload:
                self.emit(f"s{who} uploads the SST of write {i}", who, then, tables=self.state.tables | {table})
            else:
                self.emit(f"s{who} begins to upload write {i}", who, then, wire=self.send(("px", table)))
            return
        put = ("w", session.next, ("D", session.epoch, who, (i,)), who, 0)
        then = session._replace(issued=i, next=session.next + 1, puts=(*session.puts, Put(session.next, (i,), "i", 0)))
        self.emit(f"s{who} sends wal/{session.next} with write {i}", who, then, wire=self.send(put))

    def settle_put(self, who: int, session: Session, at: int) -> None:
        put = session.puts[at]
        found, label = dict(self.state.log).get(put.number), f"s{who} GET wal/{put.number}, which is taken"
        if self.rules.on_412 == "ok" or found == ("D", session.epoch, who, put.writes):
            self.acknowledge(f"{label}: ours", who, self.marked(session, at, "d"))
        elif found is None:
            self.resend(who, session, at)
        else:
            self.emit(f"{label}: fenced, stops", who, session._replace(phase="dead"))

    def flush(self, who: int, session: Session) -> None:
        old = session.manifest
        assert old is not None
        have = session.base + self.own(who, session)
        new = [write for write in have if write not in old.writes]
        inline = tuple(write for write in new if write not in self.bounds.bulk)
        known = session.durable - 1 if self.rules.header == "draw" else old.acknowledged
        made: Table = ("s", who, session.tables, inline, known, have)
        added = {made} if inline else set()
        if self.rules.flush_names_locators:
            added |= {("x", *write) for write in new if write in self.bounds.bulk}
        manifest = Manifest(
            session.epoch,
            who,
            session.attempts,
            False,
            session.durable,
            session.durable - 1,
            have,
            old.tables | added,
        )
        doomed = [
            ("dw", number)
            for number, item in self.state.log
            if old.replay <= number < session.durable and (item[0] == "D" or not self.rules.keep_fences)
        ]
        then = session._replace(flushes=session.flushes - 1, tables=session.tables + 1)
        job = Job(False, "i", 0, session.number + 1, manifest, tuple(doomed))
        tables = self.state.tables | ({made} if inline else set())
        self.commit(f"s{who} flushes up to wal/{session.durable}, sends manifest/{job.number}", who, then, job, tables)

    def delete_manifests(self, who: int, session: Session) -> None:
        kept = tuple(
            item
            for item in self.state.manifests
            if item[0] >= session.number or (item[1].takeover and self.rules.keep_takeover)
        )
        if kept != self.state.manifests:
            self.emit(f"s{who} deletes manifests below {session.number}", who, session, manifests=kept)

    def sweep(self, who: int, session: Session) -> None:
        assert session.manifest is not None
        named = set(session.manifest.tables) | {("x", who, i) for i in range(1, session.uploaded + 1)}
        if self.rules.sweep != "nolocator":
            have = session.base + self.own(who, session)
            named |= {("x", *write) for write in have if write in self.bounds.bulk}
        doomed = [
            ("ds", table)
            for table in self.state.tables
            if table not in named
            and (self.rules.sweep == "any" or self.epoch_of(table, self.state.sessions) < session.epoch)
        ]
        then = session._replace(sweeps=session.sweeps - 1)
        self.emit(f"s{who} sweeps {len(doomed)} orphans", who, then, wire=self.send(*doomed))
