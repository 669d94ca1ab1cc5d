"""Price lists as people write them."""

import pytest

from nbdserver.price_lists import EXAMPLE, NAMED, UNITS, parse_prices
from storage.prices import PriceList


def test_the_named_list() -> None:
    listed = parse_prices("aws-s3-standard")
    assert listed.pop("currency") == "USD"
    assert listed == pytest.approx({"writes": 5e-6, "reads": 4e-7, "stored": 0.023, "fetched": 0.09})
    listed["currency"] = "USD"
    assert parse_prices(" aws-s3-standard , fetched=0/GiB") == {**listed, "fetched": 0.0}
    assert parse_prices(EXAMPLE) == listed


def test_own_prices() -> None:
    assert parse_prices("currency=EUR, stored=0.0059/GiB-month") == {"currency": "EUR", "stored": 0.0059}
    assert parse_prices("deletes=1/1000,currency=USD") == {"deletes": 0.001, "currency": "USD"}


def test_every_class_has_a_place_in_the_list_of_the_store() -> None:
    everything = ",".join(f"{name}=1{unit}" for name, (unit, _) in UNITS.items())
    assert PriceList(**parse_prices(f"{everything},currency=USD")).deletes == 0.001  # type: ignore[arg-type]
    assert all(parse_prices(text) for text in NAMED.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "aws",
        "stored=0.02/GiB-month",
        "currency=usd,stored=0.02/GiB-month",
        "currency=USD,stored=0.02",
        "currency=USD,stored=0.02/GB-month",
        "currency=USD,stored=0.02/GiB",
        "currency=USD,writes=0.005",
        "currency=USD,writes=-1/1000",
        "currency=USD,writes=1e-3/1000",
        "currency=USD,writes=\u0661/1000",
        "currency=USD,writes=1/1000,writes=2/1000",
        "currency=USD,egress=1/GiB",
        "currency=USD,",
        "aws-s3-standard,",
        "currency=USD,aws-s3-standard",
        "aws-s3-standard,stored=cheap",
    ],
)
def test_what_is_no_price_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"price|currency"):
        parse_prices(text)
