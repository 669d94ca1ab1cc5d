"""The interval between two scrapes: rates over the server's own time, quantiles as Prometheus estimates them."""

import math

from hypothesis import given
from hypothesis import strategies as st

from nbdserver.admin.interval import Interval, parse
from storage.histogram import BOUNDS, Histogram

BEFORE = """
nbdserver_uptime_seconds 10.0
nbdserver_unlogged_bytes 7.0
nbdserver_device_logical_bytes{device="a"} 1024.0
nbdserver_device_logical_bytes{device="b"} 1024.0
nbdserver_device_clients{device="a"} 2.0
nbdserver_device_requests_total{device="a",command="write"} 100.0
nbdserver_device_requests_total{device="a",command="read"} 5.0
nbdserver_device_received_bytes_total{device="a"} 4096.0
nbdserver_store_requests_total{verb="get"} 3.0
nbdserver_store_requests_total{verb="create"} 3.0
nbdserver_store_request_errors_total{verb="get"} 0.0
nbdserver_store_request_seconds_count{verb="get"} 3.0
"""
AFTER = """
nbdserver_uptime_seconds 12.0
nbdserver_unlogged_bytes 9.0
nbdserver_device_logical_bytes{device="a"} 1024.0
nbdserver_device_logical_bytes{device="b"} 1024.0
nbdserver_device_clients{device="a"} 3.0
nbdserver_device_requests_total{device="a",command="write"} 300.0
nbdserver_device_requests_total{device="a",command="read"} 5.0
nbdserver_device_received_bytes_total{device="a"} 8192.0
nbdserver_store_requests_total{verb="get"} 13.0
nbdserver_store_requests_total{verb="create"} 3.0
nbdserver_store_request_errors_total{verb="get"} 4.0
nbdserver_store_request_seconds_count{verb="get"} 13.0
nbdserver_wait_seconds_bucket{request="flush",le="1.0"} 10.0
nbdserver_wait_seconds_bucket{request="flush",le="2.0"} 20.0
nbdserver_wait_seconds_bucket{request="flush",le="+Inf"} 20.0
nbdserver_wait_seconds_count{request="flush"} 20.0
"""


def test_rates_are_over_the_time_of_the_server() -> None:
    interval = Interval(parse(BEFORE), parse(AFTER))
    a, b = interval.devices()
    assert (a.name, a.clients, a.requests, a.received, a.sent) == ("a", 3, {"write": 100.0, "read": 0.0}, 2048.0, 0.0)
    assert (b.name, b.clients, b.requests) == ("b", 0, {})
    assert interval.value("nbdserver_unlogged_bytes") == 9.0
    (get,) = interval.store_requests()
    assert (get.kind, get.rate, get.failed) == ("get", 5.0, 2.0)


def test_quantiles() -> None:
    flush, read = Interval(parse(BEFORE), parse(AFTER)).waits()
    assert (flush.rate, flush.median, flush.p99) == (10.0, 1.0, 1.98)
    assert read.rate == 0.0
    assert math.isnan(read.median)


def test_a_server_that_began_anew_counts_from_zero() -> None:
    """Its counters are lower, or by chance higher, than those of the server before it: nothing is taken from them."""
    interval = Interval(parse(AFTER), parse(BEFORE))
    a, _ = interval.devices()
    assert a.requests["write"] == 10.0
    assert a.received == 409.6


@given(st.lists(st.floats(0.0001, 200.0), min_size=1, max_size=50), st.sampled_from([0.5, 0.99]))
def test_a_quantile_lies_in_the_bucket_that_has_it(durations: list[float], share: float) -> None:
    histogram = Histogram()
    for each in durations:
        histogram.add(each)
    lines = [
        f'nbdserver_wait_seconds_bucket{{request="flush",le="{"+Inf" if math.isinf(bound) else bound}"}} {count}'
        for bound, count in histogram.cumulative()
    ]
    text = "\n".join(["nbdserver_uptime_seconds 1.0", *lines, ""])
    flush, _ = Interval(parse("nbdserver_uptime_seconds 0.0\n"), parse(text)).waits()
    found = flush.median if share == 0.5 else flush.p99
    exact = sorted(durations)[max(math.ceil(share * len(durations)) - 1, 0)]
    low, high = (
        max((b for b in (0.0, *BOUNDS) if b < exact), default=0.0),
        min((b for b in BOUNDS if b >= exact), default=math.inf),
    )
    assert math.isinf(found) if math.isinf(high) else low <= found <= high * (1 + 1e-9)
