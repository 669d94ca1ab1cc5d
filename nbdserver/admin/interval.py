"""The interval between two scrapes of a server's metrics: what clients did in it, what that cost, and how long it took.

Made from the text that Prometheus reads too, so both say the same. No I/O.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
Samples = Mapping[tuple[str, Labels], float]
"""By name and labels."""


@dataclass(frozen=True, slots=True)
class DeviceRates:
    """One device: connections now, requests a second by command, and bytes a second either way."""

    name: str
    clients: int
    requests: Mapping[str, float]
    received: float
    sent: float


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """One kind of request: how many a second, how many of those failed, and the times in seconds within which half and
    99 of 100 were done (nan: there were none; inf: beyond the last bucket)."""

    kind: str
    rate: float
    failed: float
    median: float
    p99: float


def parse(text: str) -> Samples:
    """The samples of one scrape."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Interval:
    """What happened between two scrapes, in time of the server. Of one that has begun anew: what did since then."""

    def __init__(self, before: Samples, after: Samples) -> None:
        uptime = "nbdserver_uptime_seconds", ()
        began_anew = after[uptime] <= before[uptime]
        self._before, self._after = {} if began_anew else before, after
        self._seconds = after[uptime] if began_anew else after[uptime] - before[uptime]

    def value(self, name: str) -> float:
        """A gauge at the end."""
        return self._after.get((name, ()), 0.0)

    def rate(self, name: str, **labels: str) -> float:
        """A counter's growth a second."""
        key = name, tuple(sorted(labels.items()))
        return (self._after.get(key, 0.0) - self._before.get(key, 0.0)) / self._seconds

    def devices(self) -> Iterator[DeviceRates]:
        """Every device, by name."""
        names = {dict(labels)["device"] for name, labels in self._after if name == "nbdserver_device_logical_bytes"}
        for device in sorted(names):
            yield DeviceRates(
                device,
                int(self._after.get(("nbdserver_device_clients", (("device", device),)), 0)),
                {
                    (command := dict(labels)["command"]): self.rate(name, device=device, command=command)
                    for name, labels in self._after
                    if name == "nbdserver_device_requests_total" and dict(labels)["device"] == device
                },
                self.rate("nbdserver_device_received_bytes_total", device=device),
                self.rate("nbdserver_device_sent_bytes_total", device=device),
            )

    def waits(self) -> Iterator[RequestTimes]:
        """Flushes, and reads from the store, that clients waited for."""
        for kind in ("flush", "read"):
            yield self._times("nbdserver_wait_seconds", kind, failed=0.0, request=kind)

    def store_requests(self) -> Iterator[RequestTimes]:
        """Requests to the store by verb; those of which there were none are left out."""
        verbs = sorted(dict(labels)["verb"] for name, labels in self._after if name == "nbdserver_store_requests_total")
        for verb in verbs:
            failed = self.rate("nbdserver_store_request_errors_total", verb=verb)
            times = self._times("nbdserver_store_request_seconds", verb, failed=failed, verb=verb)
            if times.rate:
                yield times

    def _times(self, name: str, kind: str, *, failed: float, **labels: str) -> RequestTimes:
        texts = {dict(found)["le"] for sample, found in self._after if sample == f"{name}_bucket"}
        bounds = {float(text): self.rate(f"{name}_bucket", le=text, **labels) for text in sorted(texts, key=float)}
        rate = self.rate(f"{name}_count", **labels)
        return RequestTimes(kind, rate, failed, _quantile(bounds, 0.5), _quantile(bounds, 0.99))


def _quantile(cumulative: Mapping[float, float], share: float) -> float:
    """Where `share` of all lie below, as Prometheus estimates it: evenly spread in their bucket. By upper bound, in
    order, it is given how many lie at or below that."""
    wanted = share * max(cumulative.values(), default=0.0)
    if not wanted:
        return math.nan
    low, below = 0.0, 0.0
    for bound, count in cumulative.items():
        if count >= wanted:
            return math.inf if math.isinf(bound) else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return math.inf
