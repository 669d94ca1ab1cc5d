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
]
