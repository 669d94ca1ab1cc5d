"""The price list of a store, and what the store costs by it. Pure.

What every price list charges for is counted anyway: requests by verb, bytes stored and bytes fetched. What the store
charges for besides (old versions that it keeps, minimum terms, taxes, free allowances) is not known here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from storage.units import GIB

MONTH_SECONDS = 730 * 3600.0
"""A twelfth of a year, as those who sell storage count it."""

PACE_SECONDS_MIN = 3600.0

WRITE_VERBS = ("create", "put", "list")
READ_VERBS = ("get", "head")
"""Whoever sells storage charges for a listing as for a write. A deletion is charged for by few."""


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices in one currency: of one request of a class, of a GiB kept for a month, of a GiB fetched."""

    currency: str
    writes: float = 0.0
    reads: float = 0.0
    deletes: float = 0.0
    stored: float = 0.0
    fetched: float = 0.0


class Costs(msgspec.Struct, frozen=True):
    """What a store costs: the `COST_STATS`, in `currency`."""

    currency: str
    requests_cost: float
    fetched_cost: float
    stored_month_cost: float
    month_cost: float


def costs(
    prices: PriceList, *, requests: Mapping[str, int], bytes_down: int, bytes_kept: int, uptime_seconds: float
) -> Costs:
    """What was asked for in `uptime_seconds` has cost, and what a month costs at that pace with `bytes_kept` stored. Of
    less than an hour the pace is taken as if nothing more came in that hour: a start would be a month's bill else.
    """
    of_requests = (
        prices.writes * sum(requests[verb] for verb in WRITE_VERBS)
        + prices.reads * sum(requests[verb] for verb in READ_VERBS)
        + prices.deletes * requests["delete"]
    )
    of_fetched = prices.fetched * bytes_down / GIB
    stored = prices.stored * bytes_kept / GIB
    pace = MONTH_SECONDS / max(uptime_seconds, PACE_SECONDS_MIN)
    return Costs(prices.currency, of_requests, of_fetched, stored, stored + (of_requests + of_fetched) * pace)
