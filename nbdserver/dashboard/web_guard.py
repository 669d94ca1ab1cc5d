"""The guard of the dashboard's port: whom it answers, and what every answer says to the browser.

    Host     only a name that the server has: a page elsewhere, whose name was made to lead here, is refused
    Origin   only this page itself may change anything, by POST; a GET changes nothing
    token    for everything but the page itself, which has nothing in it; in a header, so that no cookie and no address
             that a browser sends by itself is enough

What the browser may do is said with each answer: load from here alone, run no other script, be in no frame.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from aiohttp import web

from nbdserver.dashboard.access_tokens import AccessTokens

logger = logging.getLogger("nbdserver")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

API_PREFIX = "/v1/"
READING = ("GET", "HEAD")
"""Methods by which nothing is changed; of all others only POST leads anywhere (see `web`)."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class WebGuard:
    """Refuses what must not be answered; `hosts` are the names under which the server may be asked."""

    def __init__(self, tokens: AccessTokens, hosts: Collection[str]) -> None:
        self._tokens = tokens
        self._hosts = {host.lower() for host in hosts}

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware. An answer that is a stream has its headers from `HEADERS` itself."""
        try:
            refusal = self._refusal(request)
            answer = await handler(request) if refusal is None else refusal
        except web.HTTPException as error:
            answer = _refused(error.status, error.reason)
        except Exception:
            logger.exception("dashboard_request_failed", extra={"path": request.path})
            answer = _refused(500, "the server met an error of its own; its log says more")
        if not answer.prepared:
            answer.headers.update(HEADERS)
        return answer

    def access_of(self, request: web.Request) -> str | None:
        """What the token allows that is shown, as `AccessTokens.allows`."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return self._tokens.allows(token.strip()) if kind.lower() == "bearer" else None

    def _refusal(self, request: web.Request) -> web.Response | None:
        name = host_name(request.headers.get("Host", ""))
        if name is None or not (name in self._hosts or name == _own_address(request)):
            return _refused(421, "this server has another name: see --dashboard-host")
        if request.method not in READING and not _is_same_origin(request):
            return _refused(403, "only the dashboard's own page may ask for that")
        if not request.path.startswith(API_PREFIX):
            return None
        access = self.access_of(request)
        if access is None:
            refused = _refused(401, "a token is needed: nbdserver dashboard prints the address with it")
            refused.headers["WWW-Authenticate"] = 'Bearer realm="nbdserver"'
            return refused
        if request.method not in READING and access != "full":
            return _refused(403, "this token may only look")
        return None


def host_name(header: str) -> str | None:
    """The name in a Host header, without the port; None: it is no such header."""
    try:
        parts = urlsplit(f"//{header}")
        if parts.port is None and parts.netloc.endswith(":"):
            return None
        clean = parts.netloc == header and not parts.username and not parts.path
    except ValueError:
        return None
    return parts.hostname if clean else None


def _own_address(request: web.Request) -> str | None:
    """The address of this machine that the connection came to: nobody else can have made a name of it."""
    name = None if request.transport is None else request.transport.get_extra_info("sockname")
    return str(name[0]).partition("%")[0] if isinstance(name, tuple) else None


def _is_same_origin(request: web.Request) -> bool:
    """Whether the page that asks, if it is a page, came from here. Programs that are no browser say no origin."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site != "same-origin":
        return False
    return origin is None or origin == f"{request.scheme}://{request.headers.get('Host')}"


def _refused(status: int, sentence: str) -> web.Response:
    return web.json_response({"message": sentence}, status=status)
