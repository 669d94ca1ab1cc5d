"""Mistakes in what objects of a store hold, and in what is taken for one."""

from tests.mutants.mutant import mutants

FORMATS = [
    *mutants(
        "storage/format/envelope.py",
        "tests/storage/format/test_envelope.py",
        ("envelope: an older format is ours", "    if version != FORMAT_VERSION:", "    if version > FORMAT_VERSION:"),
        ("envelope: a part may be of any size", "        if size > PART_BYTES_MAX:", "        if False:"),
        ("envelope: a newer key is one that was retired", "        return not error.newer\n", "        return True\n"),
    ),
    *mutants(
        "storage/format/frame.py",
        "tests/storage/format/test_frame.py",
        ("frame: one block of zeros makes all that is longer zeros", "all(_ZERO_BLOCK", "any(_ZERO_BLOCK"),
        (
            "frame: what is sealed anew is a whole block",
            "sealer.seal(number, self._cipher.open(sealed, associated), associated)",
            "sealer.seal(number, self._cipher.open(sealed, associated), self._associated(block, FrameKind.FULL))",
        ),
    ),
    *mutants(
        "storage/format/names.py",
        "tests/storage/format/test_names.py",
        ("names: there is a number 0", "1 <= int(match[1]) <= _NUMBER_MAX", "int(match[1]) <= _NUMBER_MAX"),
        ("names: a number has more than 64 bits", "1 <= int(match[1]) <= _NUMBER_MAX", "1 <= int(match[1])"),
        ("names: an id has more than 128 bits", "[0-7][0-9A-HJKMNP-TV-Z]{25}", "[0-9A-HJKMNP-TV-Z]{26}"),
        (
            "names: what begins as one of the log is one",
            "    match = pattern.fullmatch(name)",
            "    match = pattern.match(name)",
        ),
        ("names: what begins as an SST is one", "_TABLE.fullmatch", "_TABLE.match"),
    ),
    *mutants(
        "storage/format/manifest.py",
        "tests/storage/format/test_manifest.py",
        (
            "manifest: a store stays closed though somebody commits",
            "takeover=False, closed=False, **changes",
            "takeover=False, **changes",
        ),
        ("manifest: what no checkpoint holds is dropped", "    if len(leaving) != len(ids):", "    if False:"),
        (
            "manifest: what is yet to be done to trunks is listed",
            "bool(sequences and sequences[-1] > new.sequence)",
            "False",
        ),
        (
            "manifest: a checkpoint holds less than the one before",
            "    if not table.includes(merged(old, old_table)):",
            "    if False:",
        ),
        (
            "manifest: the last that a checkpoint holds is done to trunks again",
            "logged.sequence > sequence]",
            "logged.sequence >= sequence]",
        ),
    ),
    *mutants(
        "storage/format/sst.py",
        "tests/storage/format/test_sst.py",
        ("sst: what was moved is in any order", "sorted(moved, key=lambda m: m.offset)", "moved"),
        ("sst: what was moved comes from nowhere", ">= count:", "> count:"),
    ),
    *mutants(
        "storage/format/wal.py",
        "tests/storage/format/test_wal.py",
        (
            "log: an SST is as old as what lies beside it",
            "        return max(ops, max((entry.sequence for _, entry in self.located), default=0))",
            "        return ops",
        ),
    ),
    *mutants(
        "storage/crypto/keyslots.py",
        "tests/storage/crypto/test_keys_damage.py",
        (
            "keys: they may have no slot",
            "    if not 1 <= len(slots) <= SLOTS_MAX:",
            "    if len(slots) > SLOTS_MAX:",
        ),
        (
            "keys: they may have more slots than anybody reads",
            "    if not 1 <= len(slots) <= SLOTS_MAX:",
            "    if not slots:",
        ),
    ),
]
