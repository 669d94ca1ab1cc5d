"""Model of the commit protocol: log, fences, manifests, memtable flushes, take-over, sweeps, partial copies.

Sessions 0, 1, 2 ... are writer processes; session 0 runs at the start, each later one may begin its take-over at any
moment. A session that is never scheduled again has crashed or stalls for ever: every step of every session can be
delayed by any number of steps of the others, so crash and stall need no rules.

A PUT or DELETE is put on the wire and lands at any later moment or never; a client may give up on a PUT and send it
again, and the abandoned copy may still land. PUTs create or find the name taken. Reads and listings are atomic.

Content is the order of writes itself: a recovered state is right if it is a prefix of some real history and contains
every acknowledged write. Checked in every reachable state: recovery finds every object it needs and gives a prefix that
holds what was acknowledged and what anybody has recovered; and what `Recovery.check_copies` says. Checked at steps: an
acknowledgement is known to every running session of a higher epoch, and a take-over knows all of lower ones.
"""

from typing import Any

from tests.model.explore import Violation
from tests.model.recovery import Recovery
from tests.model.rules import (
    ROOT,
    Bounds,
    Job,
    Manifest,
    Put,
    Request,
    Rules,
    Session,
    State,
    Table,
    is_prefix,
)

Steps = list[tuple[str, State | Violation]]


class Commit(Recovery):
    """A model for `explore`."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        super().__init__(rules, bounds)
        self.out: Steps = []
        self.state = self.initial()

    def initial(self) -> State:
        bounds, jump = self.bounds, self.rules.jump
        manifest = Manifest(1, 0, 0, True, jump, 0, ((-1, 1),), frozenset([ROOT]))
        idle = [
            Session(retries=r, flushes=f, sweeps=w)
            for r, f, w in zip(bounds.retries, bounds.flushes, bounds.sweeps, strict=True)
        ]
        idle[0] = idle[0]._replace(
            phase="running", epoch=1, number=1, manifest=manifest, base=((-1, 1),), next=jump, durable=jump, fence=0
        )
        log = ((0, ("F", 1, 0, jump)),)
        return State(log, ((1, manifest),), frozenset([ROOT]), frozenset(), tuple(idle))

    def check(self, state: State) -> None:
        log, manifests = dict(state.log), dict(state.manifests)
        seen = self.recover(log, manifests[max(manifests)], state.tables)
        self.well_formed(seen, state.sessions, "recovery")
        for number, session in enumerate(state.sessions):
            if session.base and not is_prefix(self.acknowledged(number, session), seen):
                raise Violation(f"recovery: {seen} lacks what session {number} acknowledged or recovered")
        if self.bounds.copies:
            self.check_copies(state)

    def steps(self, state: State) -> Steps:
        self.out, self.state = [], state
        for request in state.wire:
            self.land(request)
        for who, session in enumerate(state.sessions):
            if session.phase == "idle":
                if state.sessions[who - 1].phase != "idle":
                    self.begin(who, session)
            elif session.phase != "dead":
                self.retry(who, session)
                if session.job and session.job.status == "q":
                    self.settle_manifest(who, session)
                elif session.phase == "running":
                    self.running(who, session)
                else:
                    self.take_over(who, session)
        return self.out

    def emit(self, label: str, who: int = -1, session: Session | None = None, **changes: Any) -> None:
        """One possible next state."""
        sessions = self.state.sessions
        if session is not None:
            sessions = (*sessions[:who], session, *sessions[who + 1 :])
        self.out.append((label, self.state._replace(sessions=sessions, **changes)))

    def send(self, *requests: Request) -> frozenset[Request]:
        return self.state.wire | frozenset(requests)

    # --- the store

    def land(self, request: Request) -> None:
        state, rest, verb, key = self.state, self.state.wire - {request}, request[0], request[1]
        if verb == "dw":
            log = tuple(item for item in state.log if item[0] != key)
            self.emit(f"DELETE wal/{key} lands", log=log, wire=rest)
        elif verb == "ds":
            self.emit(f"DELETE {key} lands", tables=state.tables - {key}, wire=rest)
        elif verb == "px":
            self.emit(f"PUT {key} lands", tables=state.tables | {key}, wire=rest)
        elif verb == "w":
            self.land_in_log(request, rest)
        else:
            self.land_manifest(request, rest)

    def land_in_log(self, request: Request, rest: frozenset[Request]) -> None:
        _, number, item, who, attempt = request
        free = number not in dict(self.state.log)
        log = tuple(sorted((*self.state.log, (number, item)))) if free else self.state.log
        label = f"s{who} PUT wal/{number} {item[0]}{item[3]} lands: {'created' if free else 'taken'}"
        if free:
            self.emit(f"{label}, no reply", log=log, wire=rest)
        session = self.state.sessions[who]
        if item[0] == "F":
            if (session.phase, session.fence, session.fence_status) == ("fencing", number, "i"):
                then = session._replace(phase="replaying") if free else session._replace(fence_status="q")
                self.emit(label, who, then, log=log, wire=rest)
        elif session.phase == "running":
            for at, put in enumerate(session.puts):
                if put == Put(number, item[3], "i", attempt):
                    status = "d" if free else "q"
                    self.acknowledge(label, who, self.marked(session, at, status), log=log, wire=rest)

    def marked(self, session: Session, at: int, status: str) -> Session:
        puts = (*session.puts[:at], session.puts[at]._replace(status=status), *session.puts[at + 1 :])
        return session._replace(puts=puts)

    def land_manifest(self, request: Request, rest: frozenset[Request]) -> None:
        _, number, manifest, who, attempt = request
        free = number not in dict(self.state.manifests)
        manifests = tuple(sorted((*self.state.manifests, (number, manifest)))) if free else self.state.manifests
        label = f"s{who} PUT manifest/{number} of epoch {manifest.epoch} lands: {'created' if free else 'taken'}"
        if free:
            self.emit(f"{label}, no reply", manifests=manifests, wire=rest)
        session = self.state.sessions[who]
        job = session.job
        if session.phase != "dead" and job and (job.status, job.attempt, job.manifest) == ("i", attempt, manifest):
            if free:
                self.committed(label, who, session, manifests=manifests, wire=rest)
            else:
                self.emit(label, who, session._replace(job=job._replace(status="q")), wire=rest)

    # --- acknowledgement

    def acknowledge(self, label: str, who: int, session: Session, **changes: Any) -> None:
        """Answer the flushes of what has landed: in the order of numbers, or (mutated) in any."""
        puts, acked, durable = list(session.puts), session.acked, session.durable
        for put in list(puts):
            if put.status == "d":
                puts.remove(put)
                acked, durable = max(acked, put.writes[-1]), max(durable, put.number + 1)
            elif self.rules.ack_in_order:
                break
        then = session._replace(puts=tuple(puts), acked=acked, durable=durable)
        for other in self.state.sessions:
            later = other.phase == "running" and other.epoch > session.epoch and acked != session.acked
            if later and not is_prefix(self.acknowledged(who, then), other.base):
                told = self.acknowledged(who, then)
                self.out.append((label, Violation(f"stale session {who} acknowledged {told}")))
                return
        self.emit(label, who, then, **changes)

    # --- manifests: one commit at a time in a session

    def commit(self, label: str, who: int, session: Session, job: Job, tables: frozenset[Table]) -> None:
        requests: tuple[Request, ...] = (("m", job.number, job.manifest, who, 0),)
        if self.rules.delete == "before":
            requests, job = requests + job.deletes, job._replace(deletes=())
        then = session._replace(job=job, attempts=session.attempts + 1)
        self.emit(label, who, then, tables=tables, wire=self.send(*requests))

    def committed(self, label: str, who: int, session: Session, **changes: Any) -> None:
        job = session.job
        assert job is not None
        then = session._replace(number=job.number, manifest=job.manifest, job=None)
        wire = changes.pop("wire", self.state.wire)
        if not job.takeover:
            self.emit(label, who, then, wire=wire | frozenset(job.deletes), **changes)
            return
        then = then._replace(phase="listing" if session.fence < 0 else "fencing", epoch=job.manifest.epoch)
        if session.fence >= 0:
            wire |= {self.fence(who, then)}
        self.emit(label, who, then, wire=wire, **changes)

    def settle_manifest(self, who: int, session: Session) -> None:
        job = session.job
        assert job is not None
        found = dict(self.state.manifests).get(job.number)
        label = f"s{who} GET manifest/{job.number}, which is taken"
        if found == job.manifest or self.rules.on_412 == "ok":
            self.committed(f"{label}: ours", who, session)
        elif not job.takeover or found is None:
            self.emit(f"{label}: lost, stops", who, session._replace(phase="dead", job=None))
        else:
            number, base = job.number, job.manifest
            if self.rules.rebase:
                number, base = max(self.state.manifests)
            self.begin_with(who, session, number, base, label)

    # --- giving up on a reply and sending again

    def retry(self, who: int, session: Session) -> None:
        if not session.retries:
            return
        less = session._replace(retries=session.retries - 1)
        if session.job and session.job.status == "i":
            job = session.job._replace(attempt=session.job.attempt + 1)
            again = ("m", job.number, job.manifest, who, job.attempt)
            self.emit(f"s{who} sends manifest/{job.number} again", who, less._replace(job=job), wire=self.send(again))
        for at, put in enumerate(session.puts if session.phase == "running" else ()):
            if put.status == "i":
                self.resend(who, session, at)

    def resend(self, who: int, session: Session, at: int) -> None:
        if not session.retries:
            return
        put = session.puts[at]._replace(status="i", attempt=session.puts[at].attempt + 1)
        puts = (*session.puts[:at], put, *session.puts[at + 1 :])
        again = ("w", put.number, ("D", session.epoch, who, put.writes), who, put.attempt)
        then = session._replace(puts=puts, retries=session.retries - 1)
        self.emit(f"s{who} sends wal/{put.number} again", who, then, wire=self.send(again))

    # --- in `writer`

    def begin(self, who: int, session: Session) -> None:
        raise NotImplementedError

    def begin_with(self, who: int, session: Session, number: int, base: Manifest, label: str) -> None:
        raise NotImplementedError

    def fence(self, who: int, session: Session) -> Request:
        raise NotImplementedError

    def take_over(self, who: int, session: Session) -> None:
        raise NotImplementedError

    def running(self, who: int, session: Session) -> None:
        raise NotImplementedError
