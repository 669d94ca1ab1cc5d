"""The HTTP proxy on the way to a store, as the variables HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY name it.

In small letters or capitals, small ones first; what NO_PROXY names (hosts, domains, `*`) is asked without one.
https://docs.python.org/3/library/urllib.request.html#urllib.request.getproxies
"""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from storage.errors import Invalid


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy listens, and the headers that it is to be told, which hold its password."""

    url: str
    headers: dict[str, str] = field(repr=False)


def proxy_for(root: str) -> Proxy | None:
    """The proxy for what lies below `http(s)://HOST:PORT`. Invalid: a variable names something else than a proxy."""
    target = urlsplit(root)
    proxies = getproxies()
    named = proxies.get(target.scheme) or proxies.get("all")
    if not named or proxy_bypass(target.netloc):
        return None
    variable = f"{target.scheme.upper()}_PROXY"
    try:
        parts = urlsplit(named if "://" in named else f"http://{named}")
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = False
    if not usable:
        raise Invalid(f"the proxy in {variable} (or ALL_PROXY) must look like http://HOST:PORT; or unset it")
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = dict(urllib3.make_headers(proxy_basic_auth=login))
    return Proxy(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", headers)
