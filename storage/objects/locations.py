"""Locations: from the address of a store to the store; see `addresses` for how one is written."""

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from storage.env import Env
from storage.objects.addresses import check_address
from storage.objects.base import ObjectStore
from storage.objects.local import LocalStore
from storage.objects.memory import MemoryStore


def open_location(url: str, env: Env) -> ObjectStore:
    """The store at `url`, which is not asked anything yet. Invalid: no such kind of place.

    `s3://bucket/prefix?endpoint=https://host` names the endpoint too, as a store's own `url` does; without
    it the AWS variables say where the bucket is.
    """
    check_address(url)
    if "://" not in url:
        return LocalStore(Path(url), env)
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from storage.objects.s3 import S3Store  # its libraries take 150 ms to import

        endpoint = parse_qs(parts.query).get("endpoint", [None])[-1]
        return S3Store.from_environment(parts.netloc, parts.path.strip("/"), env, endpoint=endpoint)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)), env)
    return MemoryStore(url, env.wall_clock)
