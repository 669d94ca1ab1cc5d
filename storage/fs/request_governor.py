"""The governor of requests: what a writer does about a budget for a month, besides saying that it will not do.

It slows what can wait: jobs of maintenance that only make a store smaller or faster than its target, and the scrub.
Nothing else: no flush, no read or write of a client, no snapshot that a schedule asks for; no checkpoint, no drop and
no job beyond the space target, since a store that grows costs more with each month; not the watch for a newer writer
nor signs of life, on which safety rests; and not what is read ahead of clients, which takes the place of more and
smaller requests.

A crash forgets what was asked for in the last ten minutes, and a close what it asks for itself.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from storage.env import Env
from storage.lsm.engine import Engine
from storage.objects.counting import RequestStats
from storage.request_budget import BudgetNews, Outlook, Spending

SPENDING_LOOK_SECONDS = 60.0
SPENDING_SAVE_SECONDS = 600.0

_log = logging.getLogger("nbdserver")


class RequestGovernor:
    """Slows what can wait in one store, as its budget of requests asks for; before `begin`, and so in a process that
    does not write the store, nothing is done. Owned by the event loop.
    """

    def __init__(self, engine: Engine, stats: RequestStats, env: Env) -> None:
        self._engine = engine
        self._stats = stats
        self._env = env
        self._begun = False
        self._budget: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._spending: Spending | None = None
        self._noted = 0
        self._saved_at = 0.0
        self.outlook: Outlook | None = None
        """As it was last seen; None: there is no budget, or it was not looked at yet."""

    def begin(self, budget: int | None) -> None:
        """From now on a month may have so many requests; None: as many as come."""
        self._begun = True
        self.change(budget)

    def change(self, budget: int | None) -> None:
        """From now on as `begin` says. What was counted without a budget counts from when there is one."""
        if not self._begun:
            return
        self._budget = budget
        if budget is None:
            self._stop()
        elif self._task is None:
            self._task = self._engine.background.start("budget of requests", self._run, on_failure=self._engine.fail)
        elif self._spending is not None:
            self._look(self._spending)

    async def save(self) -> None:
        """Keep what was counted. Where that fails, a later process knows less of this month."""
        if self._spending is None or self._engine.host is None:
            return
        self._note(self._spending)
        self._saved_at = self._env.monotonic()
        save = partial(self._engine.host.save_memory, "requests", self._spending.encode())
        await self._engine.host.unsaved.attempt(self._env, "requests", save)

    async def _run(self) -> None:
        if self._spending is None:
            self._spending = await self._load()
        self._saved_at = self._env.monotonic()
        while True:
            self._note(self._spending)
            if self._look(self._spending) or self._env.monotonic() - self._saved_at >= SPENDING_SAVE_SECONDS:
                await self.save()
            await asyncio.sleep(SPENDING_LOOK_SECONDS)

    async def _load(self) -> Spending:
        host = self._engine.host
        if host is None:
            return Spending()
        return Spending.decode(await host.unsaved.load(self._env, "requests", partial(host.load_memory, "requests")))

    def _note(self, spending: Spending) -> None:
        total = sum(self._stats.requests.values())
        spending.note(total - self._noted, self._env.wall_clock())
        self._noted = total

    def _look(self, spending: Spending) -> bool:
        """Slow what can wait accordingly; whether there was news, which is to be kept."""
        if self._budget is None:
            return False
        outlook = self.outlook = spending.outlook(self._budget, self._env.wall_clock())
        self._engine.compactor.slowdown = outlook.background_slowdown
        news = spending.untold(outlook)
        if news is not BudgetNews.NONE:
            event = "request_budget_used_up" if news is BudgetNews.USED_UP else "request_budget_will_not_do"
            said = {"budget": self._budget, "month": outlook.month_requests}
            _log.warning(event, extra={**said, "projected": outlook.month_requests_projected})
        return news is not BudgetNews.NONE

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self.outlook = None
        self._engine.compactor.slowdown = 1.0
