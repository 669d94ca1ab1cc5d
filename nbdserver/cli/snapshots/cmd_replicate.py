"""`nbdserver replicate`: a device is kept alike in a second store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output, passwords
from nbdserver.cli.shared.parameters import DURATION, NAME, Place, json_option, option, second_place, store_option
from nbdserver.cli.shared.standard import complain
from nbdserver.printable import printable

if TYPE_CHECKING:
    from nbdserver.cli.snapshots.replication import Replication
    from storage.env import Env
    from storage.secret import Secret

ROUND_LATE_SECONDS = 60.0
"""So late the next round may begin when the machine was suspended: a sleep counts only the time it is awake."""


@click.command()
@click.argument("device", type=NAME)
@click.argument("to")
@option("--as", "replica", metavar="NAME", type=NAME, help="What the device is called there.  [default: as here]")
@option("--every", type=DURATION, metavar="5m", help="Go on until a signal, a round every so often: 30s, 5m, 1h.")
@option(
    "--keep-replicas",
    "keep",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many of the snapshots that it brought stay at TO.",
)
@json_option
@store_option
def replicate(
    place: Place, device: str, to: str, replica: str | None, every: float | None, keep: int, as_json: bool
) -> None:
    """Make DEVICE in the store TO as it is here, and keep it so with --every.

    \b
    nbdserver replicate vol1 s3://second/disks --store /srv/disks
    nbdserver replicate vol1 s3://second/disks --store /srv/disks --every 5m

    The first round brings all that DEVICE holds, later ones what changed since, by snapshots "replica-...". TO has a
    whole state of DEVICE at every moment. Both stores may be served on this machine, or at rest; whichever was
    served is not opened by this command when its server is gone. TO must be a store already (nbdserver init).

    The password of TO comes from NBDSERVER_TO_PASSWORD, NBDSERVER_TO_PASSWORD_FILE, NBDSERVER_TO_PASSWORD_COMMAND, or
    the systemd credential "to-password"; without any it is that of the first store.

    With --every a round that fails for what may pass is tried again; SIGTERM and Ctrl-C end it with status 0. The
    status is 16 when the replica was written to, or has no snapshot in common with DEVICE any more.
    """
    from nbdserver.cli.snapshots.replication import Replication, Side, same_store
    from storage.env import RealEnv

    target = second_place(to, place)
    if target.store == place.store:
        raise same_store(to)
    known = _Passwords()
    name = replica or device
    with contextlib.closing(RealEnv()) as env:
        replication = Replication(Side(place, known.first), Side(target, known.second), device, name, keep, env)
        rounds = ReplicationRounds(replication, name, env, as_json=as_json)
        if every is None:
            rounds.one()
            return
        signal.signal(signal.SIGTERM, _interrupt)
        with contextlib.suppress(KeyboardInterrupt):
            rounds.repeat(every)


def _interrupt(*_: object) -> None:
    """As an interrupt from the keyboard does, which a shell has those ignore that it starts in the background."""
    raise KeyboardInterrupt


class _Passwords:
    """Of both stores, asked for when they are needed first, and for all rounds: it stays in memory."""

    def __init__(self) -> None:
        self._first: Secret | None = None
        self._second: Secret | None = None

    def first(self) -> Secret:
        if self._first is None:
            self._first = passwords.current(os.environ).secret
        return self._first

    def second(self) -> Secret:
        if self._second is None:
            found = passwords.of_second_store(os.environ)
            self._second = self.first() if found is None else found.secret
        return self._second


class ReplicationRounds:
    """Rounds of a replication, and what is said of each."""

    def __init__(self, replication: Replication, replica: str, env: Env, *, as_json: bool) -> None:
        self._env = env
        self._replication = replication
        self._replica = replica
        self._as_json = as_json
        self._said = ""
        """Why rounds fail now."""

    def one(self) -> None:
        """Raises what it failed with."""
        from nbdserver.cli.shared.progress import ProgressDisplay
        from nbdserver.cli.snapshots.replication_plan import facts, sentence

        lines_to = sys.stdout if self._as_json else None
        with ProgressDisplay(f"replicating {self._replica}", None, lines_to=lines_to) as progress:
            done = self._replication.round(progress.advance)
            progress.summary(**facts(done, self._env.wall_clock()))
        if not self._as_json:
            output.line(sentence(done, self._env.wall_clock()))
            sys.stdout.flush()
        self._replication.tidy()

    def repeat(self, every: float) -> None:
        """For ever, or until one fails for what does not pass by itself: raises that."""
        from nbdserver.cli.snapshots.replication_plan import passes, pause_after

        while True:
            start = self._moment()
            failed = False
            try:
                self.one()
                self._said = ""
            except Exception as error:
                if not passes(error, begun=self._replication.as_of is not None):
                    raise
                failed = True
                self._say(str(error))
            took = self._since(start)
            due = took + pause_after(every, took, failed=failed)
            while (left := due - self._since(start)) > 0:
                time.sleep(min(left, ROUND_LATE_SECONDS))

    def _moment(self) -> tuple[float, float]:
        return self._env.monotonic(), self._env.wall_clock()

    def _since(self, moment: tuple[float, float]) -> float:
        """The seconds since then, those included in which this machine was suspended: they count on the wall clock
        alone. When that is set ahead the next round begins early, and when it is set back none is late.
        """
        return max(now - then for now, then in zip(self._moment(), moment, strict=True))

    def _say(self, reason: str) -> None:
        """Once for people, as long as it is the same; programs are told each time how far behind the replica is."""
        from nbdserver.cli.snapshots.replication_plan import failure, lag

        as_of, now = self._replication.as_of, self._env.wall_clock()
        if self._as_json:
            behind = None if as_of is None else lag(as_of, now)
            facts = {"replica": self._replica, "reason": reason, "as_of": as_of, "lag_seconds": behind}
            print(json.dumps({"message_type": "waiting", **facts}), flush=True)
        elif reason != self._said:
            complain(printable(failure(self._replica, reason, as_of, now)))
        self._said = reason
