"""Addresses of stores: how people write them, and what they meant where one is written wrongly. Pure.

`s3://bucket/prefix`, `file:///folder`, a path, `memory://`. A path is the loosest of them: anything would be one, and
an address with a slash too few would quietly become a folder of that name. So whatever looks like another address is
refused, and the sentence says how to write the one that was meant, and a folder that is really called so.
"""

import re
from urllib.parse import parse_qs, urlsplit

from storage.errors import Invalid

WAYS = "give s3://BUCKET/PREFIX, file:///FOLDER or a path"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_NO_COLON = re.compile(r"(s3|file|memory)//", re.IGNORECASE)
_WEB = ("http", "https")


def check_address(url: str) -> None:
    """Invalid: this names no place for a store. What it says repeats nothing that may be a secret."""
    if not url:
        raise Invalid(f"no store was named; {WAYS}")
    if "://" not in url:
        _check_path(url)
        return
    if not _is_text(url):
        raise Invalid("the address of the store is not UTF-8: in a file:// URL write such bytes as %XX")
    try:
        parts = urlsplit(url)
    except ValueError:  # what is no host: brackets without their match, letters that stand for others
        raise Invalid(f"not a store: what stands behind :// is no name of a bucket or a host; {WAYS}") from None
    query = parse_qs(parts.query, keep_blank_values=True)
    plain = "@" not in parts.netloc and not parts.fragment
    if "@" in parts.netloc:
        raise Invalid("credentials do not belong into the address of a store: set AWS_ACCESS_KEY_ID and its secret")
    if parts.scheme == "s3":
        if not parts.netloc:
            raise Invalid("no bucket was named: write s3://BUCKET/PREFIX")
        if not (plain and set(query) <= {"endpoint"}):
            raise Invalid("an address of a bucket is s3://BUCKET/PREFIX, and ?endpoint=URL if anything is to follow")
    elif parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise Invalid("a folder is written file:///FOLDER, with three slashes and from the root on, or as a path")
        if query or not plain:
            raise Invalid("an address of a folder is file:///FOLDER and nothing behind it; ? is written %3F and # %23")
    elif parts.scheme in _WEB:
        raise Invalid(
            f"not a store: {parts.scheme}://...; give s3://BUCKET/PREFIX, and set AWS_ENDPOINT_URL_S3 to the host's URL"
        )
    elif url != "memory://":
        raise Invalid(f"not a store: {parts.scheme}://...; {WAYS}; any S3-compatible store is s3://")


def _is_text(url: str) -> bool:
    """Whether it is not bytes of another encoding, which Python keeps as surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in url)


def _check_path(path: str) -> None:
    if path.startswith("~"):
        raise Invalid(f"~ stands for a home only in a shell: write {path!a} from the root on, or ./{path} if meant so")
    found = _SCHEME.match(path)
    without = _NO_COLON.match(path)
    match = found or without
    if match is None:
        return
    scheme, rest = match[1].lower(), path[match.end() :].lstrip("/\\")
    if scheme in ("s3", "s3a", "s3n", "minio"):
        meant = f"for a bucket write s3://{rest or 'BUCKET/PREFIX'}"
    elif scheme == "file":
        absolute = path[match.end() :].startswith("/") or without is not None
        meant = f"for a folder write file:///{rest}" if absolute else f"for a folder write {rest or 'its path'}"
    elif scheme == "memory":
        meant = "for a store in memory write memory://"
    else:
        meant = WAYS
    raise Invalid(f"not a store: {path!a}; {meant}; for a folder of just that name, ./{path}")
