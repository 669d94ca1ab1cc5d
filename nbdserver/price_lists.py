"""Price lists as people write them: `aws-s3-standard`, or `writes=0.005/1000,stored=0.023/GiB-month,currency=USD`.

A named list is the list price as it was published when its date was written here, of one region and without discounts;
what follows it replaces single prices of it. Pure.
"""

import re
from collections.abc import Mapping

UNITS: Mapping[str, tuple[str, float]] = {
    "writes": ("/1000", 1000.0),
    "reads": ("/1000", 1000.0),
    "deletes": ("/1000", 1000.0),
    "stored": ("/GiB-month", 1.0),
    "fetched": ("/GiB", 1.0),
}
"""The unit that the price of each class must be written with, and what it is divided by."""

NAMED = {
    "aws-s3-standard": "currency=USD,writes=0.005/1000,reads=0.0004/1000,stored=0.023/GiB-month,fetched=0.09/GiB",
}
"""AWS: S3 Standard in us-east-1, first tiers, of 2025; fetched is what leaves the region for the Internet."""

EXAMPLE = "writes=0.005/1000,reads=0.0004/1000,stored=0.023/GiB-month,fetched=0.09/GiB,currency=USD"

_AMOUNT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,12})?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)

Prices = Mapping[str, float | str]
"""By class, for one request or one GiB, with `currency`; nothing if there is no list."""


def parse_prices(text: str) -> dict[str, float | str]:
    """What a price list says; ValueError for anything else. A class that is not named costs nothing."""
    first, comma, rest = text.partition(",")
    if first.strip() in NAMED:
        return _entries(NAMED[first.strip()]) | (_entries(rest) if comma else {})
    found = _entries(text)
    if "currency" not in found:
        raise ValueError(f"{text!r} names no currency: write currency=USD")
    return found


def _entries(text: str) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name in found:
            raise ValueError(f"{text!r} has two prices for {name}")
        if name == "currency":
            if not _CURRENCY.fullmatch(value):
                raise ValueError(f"{value!r} is no currency: write three letters, such as USD")
            found[name] = value
            continue
        if not equals or name not in UNITS:
            known = ", ".join((*UNITS, "currency"))
            raise ValueError(f"{part.strip()!r} is no price: write {EXAMPLE}, of {known}, or {', '.join(NAMED)}")
        unit, scale = UNITS[name]
        amount = value.removesuffix(unit)
        if amount == value or not _AMOUNT.fullmatch(amount):
            raise ValueError(f"{value!r} is no price for {name}: write an amount and its unit, such as 0.01{unit}")
        found[name] = float(amount) / scale
    return found
