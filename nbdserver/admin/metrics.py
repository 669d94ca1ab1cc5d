"""Metrics of a server for Prometheus, in its text format: what `storage/stats.py` lists, what clients ask for and how
long it takes, and what somebody should look at.

Names are `nbdserver_` and that of the list, with the unit where it is not in it, and `_total` for counters; of one
device `nbdserver_device_`, of requests to the store `nbdserver_store_`. Nothing is counted for them that is not counted
anyway: a scrape only turns numbers into text. What is used (live bytes and the like) is counted again at most every
`USAGE_SECONDS`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from nbdserver import __version__
from nbdserver.protocol.commands import COMMANDS
from nbdserver.traffic import Traffic, Waits
from storage import Store
from storage.env import Env
from storage.histogram import Histogram
from storage.stats import (
    BUDGET_STATS,
    COST_STATS,
    DEVICE_STATS,
    ENGINE_STATS,
    REQUEST_STATS,
    STORE_STATS,
    Stat,
    StatKind,
)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

USAGE_SECONDS = 15.0
"""As often as Prometheus asks by default; a count takes 60 ms of the loop for a terabyte of mapped blocks."""

_UNITS_IN_NAMES = ("bytes", "seconds", "ratio")


class Counted(Protocol):
    """The NBD server, as metrics see it."""

    @property
    def waits(self) -> Waits:
        """How long requests took that memory could not answer."""

    def traffic(self) -> dict[str, Traffic]:
        """What was counted of all clients, by the name of their export."""

    def clients(self) -> list[dict[str, Any]]:
        """What `status` says of each client that is connected."""


class Gathered(Collector):
    """Metric families that were read before."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """What `prometheus_client` calls when it writes the text."""
        return self._families


class Metrics:
    """The metrics of a served store. Owned by the event loop."""

    def __init__(
        self,
        newest: Callable[[], Store],
        server: Counted,
        env: Env,
        certificate: Callable[[], Mapping[str, Any] | None],
    ) -> None:
        """`certificate`: `until` when that is valid which expires first (see `Credentials.expiry`); None: no TLS."""
        self._newest = newest
        self._certificate = certificate
        self._server = server
        self._env = env
        self._used_at = float("-inf")

    async def text(self) -> bytes:
        """All metrics as they are now, in the text format of Prometheus. What is stored is counted anew if it was not
        for USAGE_SECONDS.
        """
        now = self._env.monotonic()
        if now - self._used_at >= USAGE_SECONDS:
            await self._newest().count_usage()
            self._used_at = now
        # Read in one step of the loop; the text of a thousand disks, 0.1 s, is a thread's.
        return await self._env.run("codec", generate_latest, Gathered(list(self._families())))

    def _families(self) -> Iterator[Metric]:
        yield InfoMetricFamily("nbdserver", "what runs", {"version": __version__, "store": self._newest().url})
        status: dict[str, Any] = msgspec.to_builtins(self._newest().status())
        yield from _numbers("nbdserver_", (*STORE_STATS, *ENGINE_STATS), status)
        yield from _numbers("nbdserver_store_", REQUEST_STATS[2:], status)
        if (costs := status["costs"]) is not None:
            yield InfoMetricFamily("nbdserver_cost", "what the price list is in", {"currency": costs["currency"]})
            yield from _numbers("nbdserver_", COST_STATS, costs)
        if status["budget"] is not None:
            yield from _numbers("nbdserver_", BUDGET_STATS, status["budget"])
        yield from self._requests()
        yield from self._devices()
        yield from self._clients()
        if status["view"]:
            yield GaugeMetricFamily(
                "nbdserver_view_age_seconds",
                "how old what is shown is, of a store that another server writes",
                status["view"]["age_seconds"],
            )
        yield from self._others()
        yield from _problems(status)

    def _others(self) -> Iterator[Metric]:
        """What is there only with certificates, or beside servers that stand by."""
        if (certificate := self._certificate()) is not None:
            yield GaugeMetricFamily(
                "nbdserver_certificate_valid_seconds",
                "for how long what expires first of the certificates and the list of revoked ones in use is valid; "
                "negative: since when it is not",
                certificate["until"] - self._env.wall_clock(),
            )
        signs = self._newest().signs
        if signs is not None and signs.age_seconds is not None:
            yield GaugeMetricFamily(
                "nbdserver_sign_age_seconds", "since a sign of life landed, for who stands by", signs.age_seconds
            )

    def _requests(self) -> Iterator[Metric]:
        stats = self._newest().request_stats
        requests, failed = REQUEST_STATS[:2]
        for stat, counts in ((requests, stats.requests), (failed, stats.failed)):
            yield _labelled(CounterMetricFamily, f"nbdserver_store_{stat.name}", stat.meaning, "verb", counts)
        yield _histogram(
            "nbdserver_store_request_seconds", "how long requests to the store took, by verb", "verb", stats.seconds
        )

    def _devices(self) -> Iterator[Metric]:
        usage = {
            info.name: msgspec.to_builtins(self._newest().device_usage(info.name)) for info in self._newest().devices()
        }
        for stat in DEVICE_STATS:
            family = CounterMetricFamily if stat.kind is StatKind.COUNTER else GaugeMetricFamily
            values = {name: used[stat.name] for name, used in usage.items()}
            yield _labelled(family, _name("nbdserver_device_", stat), stat.meaning, "device", values)

    def _clients(self) -> Iterator[Metric]:
        traffic = self._server.traffic()
        requests = CounterMetricFamily(
            "nbdserver_device_requests", "requests of clients by command", labels=("device", "command")
        )
        for name, of_one in traffic.items():
            for command, count in of_one.commands.items():
                known = COMMANDS.get(command)
                requests.add_metric((name, "invalid" if known is None else known.name.lower()), count)
        yield requests
        for what, meaning, values in (
            ("received", "bytes from clients", {name: of_one.received for name, of_one in traffic.items()}),
            ("sent", "bytes of data to clients", {name: of_one.sent for name, of_one in traffic.items()}),
        ):
            yield _labelled(CounterMetricFamily, f"nbdserver_device_{what}_bytes", meaning, "device", values)
        attached: dict[str, int] = dict.fromkeys((info.name for info in self._newest().devices()), 0)
        for client in self._server.clients():
            if client["export"] is not None:
                attached[client["export"]] = attached.get(client["export"], 0) + 1
        yield _labelled(GaugeMetricFamily, "nbdserver_device_clients", "connections now", "device", attached)
        waits = self._server.waits
        yield _histogram(
            "nbdserver_wait_seconds",
            "how long requests took that memory could not answer: flush (with FUA), and read from the store",
            "request",
            {"flush": waits.flush, "read": waits.read},
        )


def _problems(status: Mapping[str, Any]) -> Iterator[Metric]:
    """What `status` calls problems, as numbers: all are 0 where all is well."""
    garbage = status["garbage"]
    for name, meaning, value in (
        ("store_failing", "1 while the store is away, full or denies access", status["failing"] is not None),
        ("failing_requests", "requests that fail for long while others are answered", len(status["failing_requests"])),
        ("unreadable_objects", "objects that the store does not give", len(status["unreadable"])),
        ("damaged_ssts", "SSTs that were read and are damaged", len(status["damaged"])),
        ("lost_objects", "objects that are missing, 20 at most", len(status["lost"])),
        (
            "uncopied_objects",
            "of the newest manifest and the keys those whose copy is refused",
            len(status["uncopied"]),
        ),
        ("untaken_snapshots", "devices of which the schedule takes no snapshot", len(status["untaken"])),
        ("unkept_on_host", "1 while the state folder or that of the journal takes nothing", bool(status["unkept"])),
        (
            "undeletable_objects",
            "objects that the store does not delete",
            0 if garbage["since"] is None else garbage["objects"],
        ),
        ("closing", "1 while the store is being closed", status["closing"]),
    ):
        yield GaugeMetricFamily(f"nbdserver_{name}", meaning, value=float(value))


def _numbers(prefix: str, stats: Iterable[Stat], values: Mapping[str, Any]) -> Iterator[Metric]:
    for stat in stats:
        family = CounterMetricFamily if stat.kind is StatKind.COUNTER else GaugeMetricFamily
        yield family(_name(prefix, stat), stat.meaning, value=float(values[stat.name]))


def _name(prefix: str, stat: Stat) -> str:
    unit = (
        stat.unit
        if stat.unit in _UNITS_IN_NAMES and not stat.name.endswith(stat.unit) and "bytes" not in stat.name
        else ""
    )
    return f"{prefix}{stat.name}" + (f"_{unit}" if unit else "")


def _labelled(
    family: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    meaning: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    found = family(name, meaning, labels=(label,))
    for value, number in values.items():
        found.add_metric((value,), number)
    return found


def _histogram(name: str, meaning: str, label: str, values: Mapping[str, Histogram]) -> Metric:
    found = HistogramMetricFamily(name, meaning, labels=(label,))
    for value, histogram in values.items():
        buckets = [(f"{bound:g}", count) for bound, count in histogram.cumulative()[:-1]]
        buckets.append(("+Inf", histogram.count))
        found.add_metric((value,), buckets, histogram.seconds)
    return found
