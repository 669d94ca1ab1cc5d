"""Mistakes in the dashboard and the price list: whom it answers, what it claims, what it counts."""

from tests.mutants.mutant import mutants

RULES = "tests/nbdserver/dashboard/test_web_rules.py"
CLAIMS = "tests/nbdserver/dashboard/test_claims.py"

DASHBOARD = [
    *mutants(
        "storage/lsm/manifest/manifest_store.py",
        "tests/storage/lsm/test_sole_writer.py",
        (
            "sole writer: by the answer",
            "            raise Fenced\n        self.sole_at = began\n",
            "            raise Fenced\n        self.sole_at = self._env.monotonic()\n",
        ),
        (
            "sole writer: by a look that found another one",
            "        if await self._size(number + 1) is None:\n            self.sole_at = began\n        elif",
            "        self.sole_at = began\n        if await self._size(number + 1) is not None and",
        ),
    ),
    *mutants(
        "nbdserver/dashboard/web_guard.py",
        RULES,
        ("guard: every name is its own", "if name is None or not (name in", "if not (True or name in"),
        ("guard: every origin", "return origin is None or origin ==", "return True or origin =="),
        ("guard: a site beside is the same", 'if site is not None and site != "same-origin":', "if False:"),
        ("guard: no token is one", "        if access is None:\n", "        if False:\n"),
        ("guard: who looks may change", 'if request.method not in READING and access != "full":', "if False:"),
        ("guard: scripts from anywhere", "script-src 'self';", "script-src *;"),
        ("guard: in a frame", "frame-ancestors 'none'; ", ""),
        (
            "guard: an error says nothing to the browser",
            "except web.HTTPException as error:",
            "except TypeError as error:",
        ),
    ),
    *mutants(
        "nbdserver/dashboard/web.py",
        RULES,
        ("board: a form is an operation", 'if request.content_type != "application/json":', "if False:"),
        ("board: all operations are deeds", "if not isinstance(operation, DEEDS):", "if False:"),
        ("board: deeds while it stops", "        if self._quiet:\n", "        if False:\n"),
        ("board: pages without end", "if self._stopping or len(self._streams) >= STREAMS_MAX:", "if False:"),
    ),
    *mutants(
        "nbdserver/dashboard/access_tokens.py",
        "tests/nbdserver/dashboard/test_access_tokens.py",
        ("tokens: both are one", 'hex() for kind in ("full", "look"))', 'hex() for kind in ("full", "full"))'),
        ("tokens: others may read them", "st_mode & 0o077:", "st_mode & 0:"),
        ("tokens: new at each start", "            if not secret:\n", "            if True:\n"),
    ),
    *mutants(
        "nbdserver/dashboard/claims.py",
        CLAIMS,
        ("claims: old writes are well", "bad = behind > OLD_SECONDS or store", "bad = store"),
        (
            "claims: a failing store is durable",
            'behind > OLD_SECONDS or store["failing"] is not None',
            "behind > OLD_SECONDS",
        ),
        (
            "claims: well without evidence",
            '"bad" if bad else "unknown" if at is None else "good"',
            '"bad" if bad else "good"',
        ),
        ("claims: a fault is as old as what was well", "        seen.now if bad else at,\n", "        at,\n"),
        ("claims: what is lost is well", '[*store["lost"], *store["damaged"],', '[*store["damaged"],'),
        (
            "claims: unread for ever is well",
            'return says, evidence, "unknown" if late else "good", reads["at"]',
            'return says, evidence, "good", reads["at"]',
        ),
        (
            "claims: no schedule is missed",
            '"snapshots", title, "bad" if late else "good"',
            '"snapshots", title, "good"',
        ),
        (
            "claims: a certificate is well to its last hour",
            "if left < CERTIFICATE_SECONDS_MIN else",
            "if left < 0 else",
        ),
    ),
    *mutants(
        "nbdserver/dashboard/curves.py",
        "tests/nbdserver/dashboard/test_curves.py",
        (
            "curves: a page has more than this machine was up for",
            "0.0 if moment > self._env.monotonic() else",
            "0.0 if False else",
        ),
        ("curves: all that was ever counted is new", "max(b - a, 0) / took", "b / took"),
    ),
    *mutants(
        "nbdserver/slow_operations.py",
        "tests/nbdserver/test_slow_operations.py",
        ("slow: a storm pushes out the slowest", "heapq.heappushpop(self._slowest, entry)", "self._slowest.clear()"),
    ),
    *mutants(
        "nbdserver/server/operation_trace.py",
        "tests/nbdserver/server/test_operation_trace.py",
        ("trace: a request waits from when it was taken", "            trace.waited_since(self._refused[1])\n", ""),
        (
            "trace: the gate takes no time",
            "self._since, self._span = now, span\n        return",
            "self._since = now\n        return",
        ),
        ("trace: who left waited for nothing", "            self._tracing.slow.add(story)\n", "            pass\n"),
    ),
    *mutants(
        "storage/lsm/sst/wanted.py",
        "tests/storage/lsm/sst/test_wanted.py",
        (
            "trace: a GET that others began counts from there",
            "min(max(last.began, asked), now)",
            "min(last.began, now)",
        ),
    ),
    *mutants(
        "nbdserver/cli/store_care/cmd_bench.py",
        "tests/integration/test_bench_device.py",
        (
            "bench: a disk that is there is written to",
            "_try_loads(_target(server, export, tls_certificates), READS,",
            "_try_loads(_target(server, export, tls_certificates), (*WRITES, *READS),",
        ),
        ("bench: its own disk stays", "                server.perform(DeleteDevice(name))\n", ""),
    ),
    *mutants(
        "nbdserver/cli/store_care/tls_trial.py",
        "tests/integration/test_bench_device.py",
        (
            "bench: whatever name a certificate has is right",
            "context = ssl.create_default_context(cafile=authority)\n",
            "context = ssl.create_default_context(cafile=authority)\n        context.check_hostname = False\n",
        ),
    ),
    *mutants(
        "nbdserver/dashboard/samples.py",
        "tests/nbdserver/dashboard/test_samples.py",
        ("samples: all is counted each time", "self._env.monotonic() >= self._due", "True"),
        (
            "samples: what was changed is not counted anew",
            '        self._due = float("-inf")\n\n    async',
            "        pass\n\n    async",
        ),
    ),
    *mutants(
        "storage/fs/pictures.py",
        "tests/storage/fs/test_pictures.py",
        ("maps: what waits is durable", "entry.sequence > layer.queue.acked_sequence", "False"),
        ("maps: zeros in memory are not seen", "                _zero(table, number, stored)\n", ""),
        ("maps: newer memtables are below", "for table in reversed(tables):", "for table in tables:"),
        ("maps: nothing is cached", "return stored, cached[at] == location", "return stored, cached[at] != cached[at]"),
    ),
    *mutants(
        "storage/prices.py",
        "tests/storage/test_prices.py",
        ("prices: a listing is a read", 'WRITE_VERBS = ("create", "put", "list")', 'WRITE_VERBS = ("create", "put")'),
        ("prices: a month is what was", "(of_requests + of_fetched) * pace", "(of_requests + of_fetched)"),
    ),
    *mutants(
        "nbdserver/price_lists.py",
        "tests/nbdserver/test_price_lists.py",
        ("prices: without a unit", "if amount == value or not", "if not"),
        ("prices: for a thousand is for one", "found[name] = float(amount) / scale", "found[name] = float(amount)"),
        ("prices: without a currency", '    if "currency" not in found:\n', "    if False:\n"),
    ),
]
