"""Mistakes in what a store's answers are taken for, and in how a store is tried out."""

from tests.mutants.mutant import mutants

ANSWERS = [
    *mutants(
        "storage/objects/transport.py",
        "tests/storage/objects/test_s3_reads.py",
        ("answers: how it was sent to the store is a coding", ', "identity", "aws-chunked"}', ', "identity"}'),
    ),
    *mutants(
        "storage/objects/s3.py",
        "tests/storage/objects/test_s3_reads.py",
        (
            "answers: what was compressed on the way is the object",
            "        if coded and len(data)",
            "        if False and len(data)",
        ),
        (
            "answers: what was compressed on the way and is longer than its object is damage",
            "if coded and isinstance(error, Corrupt)",
            "if False and isinstance(error, Corrupt)",
        ),
        ("answers: what is called compressed was compressed on the way", "!= self._head(name).size:", "!= 0:"),
    ),
    *mutants(
        "storage/objects/probe.py",
        "tests/storage/objects/test_probe_of_busy_stores.py",
        ("probe: one answer is a race", "len(self._waiting) >= ANSWERS_MIN", "len(self._waiting) >= 1"),
        ("probe: what lies there may be anybody's", "in self._won or self._unknown)", "in range(RACERS))"),
        (
            "probe: who had no answer may have won beside another",
            "in self._won or self._unknown)",
            "in {*self._won, *self._unknown})",
        ),
        (
            "probe: who had no answer is not asked again",
            "            self._unknown.add(number)\n",
            "            self._unknown.add(number)\n            self._waiting.discard(number)\n",
        ),
    ),
    *mutants(
        "storage/objects/probe.py",
        "tests/storage/objects/test_probe.py",
        ("probe: two winners are one", "if len(self._won) > 1 or not", "if not"),
        ("probe: a limit on the way is taken for silence", "        if error.too_large:", "        if False:"),
        ("probe: a slow way is unfit", "        if error.too_large:", "        if True:"),
    ),
]
