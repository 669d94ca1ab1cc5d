"""This file knows how people write where a store is: `s3://bucket/prefix`, `file:///folder`, a path, `memory://`."""

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from storage.env import Env
from storage.errors import Invalid
from storage.objects.base import ObjectStore
from storage.objects.local import LocalStore
from storage.objects.memory import MemoryStore


def open_location(url: str, env: Env) -> ObjectStore:
    """The store at `url`, which is not asked anything yet. Invalid: no such kind of place.

    `s3://bucket/prefix?endpoint=https://host` names the endpoint too, as a store's own `url` does; without
    it the AWS variables say where the bucket is.
    """
    if "://" not in url:
        if not url:
            raise Invalid("no store was named; give s3://BUCKET/PREFIX, file:///FOLDER or memory://")
        return LocalStore(Path(url), env)
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    plain = "@" not in parts.netloc and not parts.fragment
    if parts.scheme == "s3" and parts.netloc and plain and set(query) <= {"endpoint"}:
        from storage.objects.s3 import S3Store  # its libraries take 150 ms to import

        endpoint = query.get("endpoint", [None])[-1]
        return S3Store.from_environment(parts.netloc, parts.path.strip("/"), env, endpoint=endpoint)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path and plain and not query:
        return LocalStore(Path(unquote(parts.path)), env)
    if url == "memory://":
        return MemoryStore()
    raise Invalid(f"not a store: {parts.scheme}://...; give s3://BUCKET/PREFIX, file:///FOLDER or memory://")
