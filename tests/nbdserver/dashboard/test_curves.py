"""Two hours of curves: what happened between two looks, in figures a second, and never more than two hours of it."""

import math
from typing import Any

import pytest

from nbdserver.dashboard.curves import CURVE_POINTS_MAX, CURVES, Curves
from nbdserver.protocol import wire
from nbdserver.traffic import Traffic, Waits
from storage.env import RealEnv
from tests.nbdserver.dashboard.conftest import TOKENS, Asker


class SteppedEnv(RealEnv):
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.set = 100.0, 1e9

    def monotonic(self) -> float:
        return self.now

    def wall_clock(self) -> float:
        return self.set + self.now


class CountedServer:
    """Counters that a test moves."""

    def __init__(self) -> None:
        self.waits = Waits()
        self.by_export = {"disk": Traffic({wire.CMD_READ: 5}, 1000, 50)}

    def traffic(self) -> dict[str, Traffic]:
        return self.by_export

    def clients(self) -> list[dict[str, Any]]:
        return []


def point(curves: Curves, number: int = -1) -> dict[str, float | None]:
    told = curves.after(0)
    assert told["names"] == ["at", *CURVES]
    return dict(zip(told["names"], told["points"][number], strict=True))


def test_a_point_is_what_happened_since_the_one_before() -> None:
    env, server, requests = SteppedEnv(), CountedServer(), {"create": 7, "get": 1}
    curves = Curves(server, lambda: requests, env)
    assert curves.after(0)["points"] == []
    grown = {wire.CMD_READ: 25, wire.CMD_WRITE: 10, wire.CMD_TRIM: 20, wire.CMD_FLUSH: 99}
    server.by_export = {"disk": Traffic(grown, 5000, 1050), "other": Traffic({wire.CMD_WRITE_ZEROES: 10}, 0, 0)}
    for _ in range(100):
        server.waits.flush.add(0.004)
    requests["create"] = 57
    env.now += 10
    curves.look()
    assert point(curves) == {
        "at": 1e9 + 110,
        "received": 400.0,
        "sent": 100.0,
        "reads": 2.0,
        "writes": 4.0,
        "flush_p99": pytest.approx(0.005),
        "read_p99": None,
        "store_requests": 5.0,
    }
    server.by_export = {}  # a name that is counted no more
    server.waits.read.add(1000.0)
    env.now += 20
    curves.look()
    later = point(curves)
    assert (later["received"], later["writes"], later["flush_p99"], later["read_p99"]) == (0.0, 0.0, None, 100.0)
    assert len(curves.after(110)["points"]) == 1


def test_there_are_two_hours_of_them() -> None:
    env = SteppedEnv()
    curves = Curves(CountedServer(), dict, env)
    for _ in range(CURVE_POINTS_MAX + 5):
        env.now += 10
        curves.look()
    points = curves.after(0)["points"]
    assert len(points) == CURVE_POINTS_MAX
    assert points[-1][0] - points[0][0] == 10 * (CURVE_POINTS_MAX - 1)
    curves.look()  # in no time at all
    assert curves.after(0)["points"] == points


def test_a_clock_that_is_set_back_keeps_no_point_back() -> None:
    """They are asked for by the newest that came, not by its time."""
    env = SteppedEnv()
    curves = Curves(CountedServer(), dict, env)
    env.now += 10
    curves.look()
    told = curves.after(0)
    assert len(told["points"]) == 1
    assert curves.after(told["newest"])["points"] == []
    env.set -= 3600
    env.now += 10
    curves.look()
    assert [at for at, *_ in curves.after(told["newest"])["points"]] == [1e9 + 120 - 3600]
    assert len(curves.after(env.now + 1)["points"]) == 2, "whoever asks by what a machine told before it was booted"


async def test_they_are_asked_for(asker: Asker) -> None:
    status, _, told = await asker.ask("GET", "/v1/curves?after=5", TOKENS.read_only)
    assert (status, told["points"], told["step_seconds"]) == (200, [], 10.0)
    assert (await asker.ask("GET", "/v1/curves?after=no", TOKENS.read_only))[0] == 422
    assert (await asker.ask("GET", f"/v1/curves?after={math.inf}", TOKENS.read_only))[2]["points"] == []
    assert await asker.status("GET", "/v1/curves") == 401
