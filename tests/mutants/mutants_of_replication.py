"""Mistakes in the rounds of a replication: what is taken, brought, kept and said."""

from tests.mutants.mutant import mutants

REPLICATION = [
    *mutants(
        "nbdserver/cli/snapshots/replication.py",
        "tests/nbdserver/cli/snapshots/test_replication.py",
        (
            "replicate: rounds that fail pile up snapshots",
            "        if self._unneeded[0]:\n            yield DeleteUnneeded(self._device, self._unneeded[0])\n",
            "",
        ),
        (
            "replicate: what others may delete is all that both have",
            " or not plan.own([found.common[0]], found.prefix):",
            ":",
        ),
        (
            "replicate: a round that failed came to its end",
            "            failures.append(error)\n            pipe.close()\n",
            "            pipe.close()\n",
        ),
        (
            "replicate: a look opens the store as its writer",
            "            return perform_in_turn(way, asked(), writes=False)\n",
            "            return perform_in_turn(way, asked(), writes=True)\n",
        ),
        (
            "replicate: what was half filled is left to others",
            "            if way.server is not None:\n                raise\n",
            "            raise\n",
        ),
        (
            "replicate: the replica is as new as the end of its round",
            "        self.as_of = taken.created\n",
            "        self.as_of = self._env.wall_clock()\n",
        ),
    ),
    *mutants(
        "nbdserver/cli/snapshots/replication.py",
        "tests/nbdserver/cli/snapshots/test_replicate.py::test_rounds_go_on_until_a_signal",
        (
            "replicate: it opens the store of a server that is to come back",
            "        if self._was_served:\n",
            "        if False:\n",
        ),
    ),
    *mutants(
        "nbdserver/cli/snapshots/cmd_replicate.py",
        "tests/nbdserver/cli/snapshots/test_cmd_replicate.py",
        ("replicate: the time asleep does not count", "time.sleep(min(left, ROUND_LATE_SECONDS))", "time.sleep(left)"),
        (
            "replicate: the time since goes by one clock",
            "        return max(now - then for",
            "        return min(now - then for",
        ),
    ),
    *mutants(
        "nbdserver/admin/replica_operations.py",
        "tests/nbdserver/admin/test_replica_operations.py",
        (
            "replicate: what is half filled is looked at",
            "            await _settled(store, self.device)\n            layers",
            "            layers",
        ),
        (
            "replicate: what is half filled is compared",
            '        await _settled(store, self.device)\n        return {"snapshot"',
            '        return {"snapshot"',
        ),
    ),
    *mutants(
        "nbdserver/admin/content_frames.py",
        "tests/nbdserver/admin/test_content_frames.py",
        ("import: a piece that was cut short is whole", "if len(body) != length:", "if len(body) > length:"),
    ),
    *mutants(
        "storage/bucket/pace.py",
        "tests/storage/bucket/test_pace.py",
        ("pace: an outage is a rate", "/ seconds, UPLOAD_RATE_MIN)", "/ seconds, 1)"),
        ("pace: as many uploads as the link takes", ", 2), UPLOADS_MAX)", ", 2), 1000)"),
    ),
]
