"""When the rounds of `replicate --every` begin, on a machine that is suspended in between, or whose clock is set."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from nbdserver.cli.shared.parameters import Place
from nbdserver.cli.snapshots.cmd_replicate import ROUND_LATE_SECONDS, ReplicationRounds
from nbdserver.cli.snapshots.replication import Replication, Side
from nbdserver.cli.snapshots.replication_plan import Round
from storage.env import RealEnv
from storage.secret import Secret

HOUR = 3600.0
NOW = 1_790_000_000.0


class SleptEnv(RealEnv):
    """Its clocks go on while somebody sleeps; in the tenth sleep the wall clock jumps."""

    def __init__(self, jump: float) -> None:
        super().__init__()
        self.awake, self.sleeps = 0.0, 0
        self._jump = jump

    def monotonic(self) -> float:
        return self.awake

    def wall_clock(self) -> float:
        return NOW + self.awake + (self._jump if self.sleeps >= 10 else 0.0)

    def sleep(self, seconds: float) -> None:
        self.awake += seconds
        self.sleeps += 1


@pytest.mark.parametrize(
    ("jump", "awake"),
    [
        (0.0, 24 * HOUR),
        (23 * HOUR, HOUR),
        (30 * HOUR, 10 * ROUND_LATE_SECONDS),
        (-30 * HOUR, 24 * HOUR),
    ],
    ids=["awake all day", "suspended for 23 hours", "suspended for longer", "the clock was set back"],
)
def test_a_round_begins_when_the_time_has_passed_also_asleep(
    jump: float, awake: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    with closing(SleptEnv(jump)) as env:

        def round_of(*_: object) -> Round:
            begun.append(env.awake)
            if len(begun) == 2:
                raise KeyboardInterrupt
            return Round("disk", "copy", "replica", NOW, None, 0.0)

        monkeypatch.setattr(Replication, "round", round_of)
        monkeypatch.setattr(time, "sleep", env.sleep)
        one, two = (Side(Place(f"file://{tmp_path}/{name}", tmp_path, None), lambda: Secret(b"")) for name in "ab")
        rounds = ReplicationRounds(Replication(one, two, "disk", "copy", 1, env), "copy", env, as_json=True)
        with pytest.raises(KeyboardInterrupt):
            rounds.repeat(24 * HOUR)
    assert begun == [0.0, awake]
