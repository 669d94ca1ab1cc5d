"""What a store costs: figures that somebody can follow with a pencil."""

import pytest

from storage.prices import MONTH_SECONDS, PriceList, costs

GIB = 1 << 30
LIST = PriceList("EUR", writes=0.005 / 1000, reads=0.0004 / 1000, stored=0.02, fetched=0.1)
REQUESTS = {"create": 3000, "put": 500, "list": 500, "get": 9000, "head": 1000, "delete": 700}


def test_what_was_asked_for() -> None:
    found = costs(LIST, requests=REQUESTS, bytes_down=5 * GIB, bytes_kept=100 * GIB, uptime_seconds=MONTH_SECONDS / 10)
    assert found.currency == "EUR"
    assert found.requests_cost == pytest.approx(4000 * 0.000005 + 10_000 * 0.0000004)
    assert found.fetched_cost == pytest.approx(0.5)
    assert found.stored_month_cost == pytest.approx(2.0)
    assert found.month_cost == pytest.approx(2.0 + 10 * (0.024 + 0.5))


def test_deletions_cost_where_they_do() -> None:
    charged = PriceList("USD", deletes=0.01)
    assert costs(charged, requests=REQUESTS, bytes_down=0, bytes_kept=0, uptime_seconds=1).requests_cost == 7.0


@pytest.mark.parametrize("seconds", [0.0, 1.0, 3600.0])
def test_the_first_hour_is_taken_for_a_whole_one(seconds: float) -> None:
    """What a start asks for is no pace."""
    found = costs(LIST, requests=REQUESTS, bytes_down=0, bytes_kept=GIB, uptime_seconds=seconds)
    assert found.month_cost == pytest.approx(0.02 + 730 * 0.024)
