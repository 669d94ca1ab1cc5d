"""Metrics of a server that stands by: that it does, and whether it could take the store if it had to."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from nbdserver import __version__
from storage.fs.succession.standby import StandbyStatus


class StandbyMetrics(Collector):
    """Those of one server. Owned by the event loop."""

    def __init__(self, store: str, status: Callable[[], StandbyStatus]) -> None:
        self._store = store
        self._status = status
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def text(self) -> bytes:
        """All of them as they are now, in the text format of Prometheus."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What `prometheus_client` calls when it writes the text."""
        seen = self._status()
        yield InfoMetricFamily("nbdserver", "what runs", {"version": __version__, "store": self._store})
        for name, meaning, value in (
            ("standby", "1: it stands by beside the server that has the store", 1.0),
            (
                "standby_failing",
                "1 while its looks at the writer are not answered: it takes nothing",
                bool(seen.reason),
            ),
            ("standby_blind", "1 while it has nothing to go by: the writer gives no signs", seen.basis == "nothing"),
            ("standby_looked_seconds", "since a look was answered; there once one was", seen.looked_seconds),
            ("standby_silent_seconds", "for how long the writer has been watched and silent", seen.silent_seconds),
            ("standby_patience_seconds", "of that, after which it takes the store", seen.patience_seconds),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"nbdserver_{name}", meaning, float(value))
