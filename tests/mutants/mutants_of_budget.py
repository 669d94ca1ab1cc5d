"""Mistakes about a budget of requests: its projection, and what it slows."""

from tests.mutants.mutant import mutants

COMPACTION = "tests/storage/lsm/compaction/"

BUDGET = [
    *mutants(
        "storage/request_budget.py",
        "tests/storage/test_request_budget.py",
        ("budget: what a start asks for is a pace", "- WINDOW_HOURS\n    return sum", "\n    return sum"),
        ("budget: a clock that was ahead stops the count", "if month != self.month:", "if month > self.month:"),
        (
            "budget: a new month forgets nothing",
            "self.spent, self._said = month, 0, BudgetNews.NONE",
            "self._said = month, BudgetNews.NONE",
        ),
        (
            "budget: a new month has no pace",
            "        self.spent += requests\n",
            "        self.spent += requests\n        self.hours = self.hours if self.spent > requests else {}\n",
        ),
        ("budget: one that is used up slows nothing", "    if spent >= budget:\n        return SLOWDOWN_MAX\n", ""),
        (
            "budget: there is no end to slowing",
            "min(float(2.0 ** (beyond / DOUBLING_SHARE)), SLOWDOWN_MAX)",
            "float(2.0 ** (beyond / DOUBLING_SHARE))",
        ),
        (
            "budget: the same is said again and again",
            "        if outlook.news <= said:\n",
            "        if outlook.news < max(said, 1):\n",
        ),
        (
            "budget: of another budget nothing is said",
            " if self._said_of == outlook.request_budget else BudgetNews.NONE",
            "",
        ),
        (
            "budget: a rest forgets what its job took",
            "(slowdown - 1.0) * (took_seconds + usual_seconds)",
            "(slowdown - 1.0) * usual_seconds",
        ),
    ),
    *mutants(
        "storage/fs/request_governor.py",
        "tests/storage/fs/test_request_governor.py",
        ("budget: requests count again at each look", "        self._noted = total\n", ""),
        (
            "budget: nothing is kept",
            '        await self._engine.host.unsaved.attempt(self._env, "requests", save)\n',
            "        del save\n",
        ),
        ("budget: nothing is slowed", "        self._engine.compactor.slowdown = outlook.background_slowdown\n", ""),
        ("budget: without one all stays slow", "        self._engine.compactor.slowdown = 1.0\n", ""),
        (
            "budget: a close forgets what came since the last look",
            "        self._note(self._spending)\n        self._saved_at",
            "        self._saved_at",
        ),
        (
            "budget: a file that cannot be written ends the writer",
            'await self._engine.host.unsaved.attempt(self._env, "requests", save)\n',
            'await self._env.run("store", save)\n',
        ),
        (
            "budget: a file that cannot be read ends the writer",
            'host.unsaved.load(self._env, "requests", partial(host.load_memory, "requests"))',
            'self._env.run("store", host.load_memory, "requests")',
        ),
        (
            "budget: a crash brings its news twice",
            "            if self._look(self._spending) or self._env",
            "            self._look(self._spending)\n            if self._env",
        ),
        (
            "budget: one that was taken away comes back no more",
            "self._task = self.outlook = None",
            "self.outlook = None",
        ),
        ("budget: one that was taken away is counted on", "            self._task.cancel()\n", "            pass\n"),
        (
            "budget: what was counted is read once more",
            "        if self._spending is None:\n            self._spending = await self._load()\n",
            "        self._spending = await self._load()\n",
        ),
        (
            "budget: it is kept at every look",
            "        self._saved_at = self._env.monotonic()\n        save",
            "        save",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/slowing.py",
        f"{COMPACTION}test_slowed.py",
        (
            "budget: a store beyond its space target waits",
            "decision.job is None or decision.over_target or",
            "decision.job is None or",
        ),
        (
            "budget: checkpoints wait",
            "isinstance(decision.job, Drop | WriteCheckpoint))",
            "isinstance(decision.job, Drop))",
        ),
        (
            "budget: what nothing shows stays",
            "isinstance(decision.job, Drop | WriteCheckpoint))",
            "isinstance(decision.job, WriteCheckpoint))",
        ),
    ),
    *mutants(
        "storage/lsm/compaction/compactor.py",
        f"{COMPACTION}test_slowed.py",
        (
            "budget: each checkpoint puts all else off",
            "            self._last_was_deferrable = can_wait(decision)\n",
            "            self._last_was_deferrable = True\n",
        ),
        (
            "budget: jobs that can wait do not",
            "self._must_defer() and can_wait(decision) else None",
            "False else None",
        ),
    ),
    *mutants(
        "storage/check/scrub.py",
        "tests/storage/check/test_scrub.py",
        ("budget: the scrub is not slowed", " / self._slowdown()", ""),
    ),
]
