"""The settings of a server, their defaults, and how people write sizes and stores.

The command line fills a `ServeSettings` from its options, each of which can also be an environment
variable; what is absent has the default written here. Nothing here opens or asks anything.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from nbdserver.price_lists import Prices

DEFAULT_BIND = "127.0.0.1"
"""The protocol knows no passwords: who can connect can read and write, so only this machine can by default.
"""

Tls = Literal["off", "on", "require"]
"""`on`: clients may use TLS; `require`: before it nothing works."""

AfterLoss = Literal["refuse", "serve"]

DEFAULT_PORT = 10809
"""The port IANA registered for NBD."""

STOP_SECONDS = 10.0
"""How long clients may take to end what is under way when the server stops."""

SIZE_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
DURATION_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}

DURATION_DAYS_MAX = 36500
"""A hundred years: what is longer was not meant."""

_DURATION = re.compile(r"([0-9]{1,6})\s*([smhdw])", re.IGNORECASE | re.ASCII)

KEEP_PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
"""What `storage.fs.snapshots.retention` knows."""

_REQUESTS = re.compile(r"([0-9]{1,12})\s*([kMG])?(?:/month)?", re.IGNORECASE | re.ASCII)

_COUNT = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?:([KMGTP])(?:iB)?|B)?", re.IGNORECASE | re.ASCII)


SCRUB_DAYS = 30


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `nbdserver serve` was asked to do. Paths are absolute; sizes in bytes."""

    store: str
    create: tuple[tuple[str, int], ...] = ()
    tcp: tuple[str, int] | None = None
    unix: Path | None = None
    exports: tuple[str, ...] = ()
    read_only: bool = False
    make_store: bool = True
    take_over: bool = False
    replace: bool = False
    """The server of this store on this host is asked to stop, once this one is ready."""
    standby: bool = False
    """Beside another writer it waits for its turn; as the writer it gives signs of life to who waits elsewhere."""
    accept_rollback: bool = False
    after_loss: AfterLoss = "refuse"
    """What clients get that were attached when something that was answered may have been lost."""
    run: str | None = None
    pid_file: Path | None = None
    state_folder: Path | None = None
    journal: str | None = None
    """The folder of the journal in memory, or `off`; None: the runtime folder."""
    cache_bytes: int | None = None
    keep: Mapping[str, int] = field(default_factory=dict)
    """How many snapshots of a schedule are kept, by period; none is taken if it is empty."""
    scrub_days: int = SCRUB_DAYS
    """In so many days all data is read once; 0: never."""
    tls: Tls = "off"
    tls_certificates: Path | None = None
    tls_verify_peer: bool = False
    allow_plaintext: bool = False
    access: Path | None = None
    default_export: str | None = None
    exclusive: bool = False
    prices: Prices = field(default_factory=dict)
    """What the store costs; nothing is said of that if it is empty."""
    request_budget: int | None = None
    """Requests to the store that a month may have, as background work goes by; None: as many as come."""
    metrics: tuple[str, int] | None = None
    """Where Prometheus may ask for metrics."""
    dashboard: tuple[str, int] | None = None
    """Where browsers get the dashboard."""
    dashboard_hosts: tuple[str, ...] = ()
    """Names of this machine under which they may ask for it, besides its addresses."""
    max_connections: int | None = None
    max_connections_per_address: int | None = None


def parse_size(text: str) -> int:
    """Bytes that `10GiB`, `10G`, `1.5t` or `4096` mean.

    Units are powers of two; ValueError for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write 10GiB, 10G (the same) or plain bytes")
    number, unit = match[1], (match[2] or "").upper()
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    size, rest = divmod(int(whole + fraction) * SIZE_UNITS[unit], scale)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return size


def parse_duration(text: str) -> float:
    """Seconds that `90s`, `30m`, `12h`, `7d` or `4w` mean; ValueError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise ValueError(f"{text!r} is no length of time: write 30m, 12h, 7d or 4w")
    seconds = int(match[1]) * DURATION_UNITS[match[2].lower()]
    if seconds > DURATION_DAYS_MAX * DURATION_UNITS["d"]:
        raise ValueError(f"{text!r} is too long a time: at most {DURATION_DAYS_MAX}d, a hundred years")
    return seconds


def parse_keep(text: str) -> dict[str, int]:
    """How many snapshots of each period `hourly=24,daily=7` keeps; ValueError for anything else."""
    keep: dict[str, int] = {}
    for part in text.split(","):
        period, _, count = (word.strip() for word in part.partition("="))
        if period not in KEEP_PERIODS or period in keep or not _COUNT.fullmatch(count):
            raise ValueError(f"{text!r} is no schedule: write hourly=24,daily=7, of {', '.join(KEEP_PERIODS)}")
        keep[period] = int(count)
    return keep


def parse_request_budget(text: str) -> int:
    """Requests of a month that `5M/month`, `800k` or `5000000` mean; ValueError for anything else."""
    match = _REQUESTS.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise ValueError(f"{text!r} is no budget of requests: write 5M/month, 800k or plain requests")
    return int(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[(match[2] or "").upper()]


def format_size(count: int) -> str:
    """`10 GiB`, `1.5 TiB`, `512 B`: for people; rounded to three digits where it must be."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} PiB"


def locate(store: str, environ: Mapping[str, str]) -> str:
    """The one way to write where a store is: an absolute file URL, or an S3 URL that names its endpoint.

    Two commands mean the same store if this is equal; the admin socket is found by it. What is not a store
    at all is given back as it is: opening it says why.
    """
    if store and "://" not in store:
        return Path(os.path.realpath(store)).as_uri()
    try:
        parts = urlsplit(store)
    except ValueError:
        return store
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Path(os.path.realpath(unquote(parts.path))).as_uri()
    if parts.scheme == "s3":
        given = parse_qs(parts.query).get("endpoint", [None])[-1]
        endpoint = given or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        place = f"s3://{parts.netloc}/{parts.path.strip('/')}".removesuffix("/")
        return f"{place}?endpoint={endpoint.rstrip('/')}" if endpoint else place
    return store
