"""The dashboard of a server, made from its settings: its tokens, its names, and what it shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from nbdserver.config import ServeSettings
from nbdserver.dashboard.access_tokens import kept_tokens
from nbdserver.dashboard.curves import Curves
from nbdserver.dashboard.samples import Sampler
from nbdserver.dashboard.web import Dashboard
from nbdserver.server.listener import Listener
from nbdserver.service.condition import problems
from nbdserver.service.rehearsal import dashboard_secret
from nbdserver.service.serve_policy import ServePolicy
from nbdserver.service.served import Served
from storage.env import Env

DAY = 86400.0
SCHEDULE_SECONDS = {"hourly": 3600.0, "daily": DAY, "weekly": 7 * DAY, "monthly": 31 * DAY, "yearly": 366 * DAY}


def make_dashboard(
    newest: Callable[[], ServeSettings],
    env: Env,
    served: Served,
    server: Listener,
    security: ServePolicy,
    serving: Callable[[], dict[str, Any]],
) -> Dashboard | None:
    """That of a server that was asked for one. Its settings may change. AccessDenied, Invalid: its tokens cannot be
    kept.
    """
    settings = newest()
    if settings.dashboard is None:
        return None
    tokens = kept_tokens(dashboard_secret(settings), env)
    credentials = security.credentials
    sampler = Sampler(
        lambda: served.newest,
        server,
        serving,
        problems,
        env,
        scrub_days=lambda: newest().scrub_days,
        snapshot_seconds=lambda: min((SCHEDULE_SECONDS[period] for period in newest().keep), default=None),
        certificate=security.expiry,
    )
    hosts = list(settings.dashboard_hosts)
    if credentials is not None:
        with contextlib.suppress(ValueError):  # it is to listen on a name, which is among its hosts anyway
            hosts.append(credentials.name_for(settings.dashboard[0]) or "localhost")
    context = None if credentials is None else credentials.make_page_context()
    curves = Curves(server, lambda: served.newest.request_stats.requests, env)
    return Dashboard(lambda: served.newest, server, sampler, curves, tokens, hosts=hosts, context=context)
