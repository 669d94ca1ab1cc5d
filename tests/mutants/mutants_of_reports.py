"""Mistakes in what is said of a store: what is wrong and not said, said and not so, or said as something else."""

from tests.mutants.mutant import mutants

REPORTS = [
    *mutants(
        "nbdserver/cli/serving/cmd_serve.py",
        "tests/nbdserver/cli/serving/test_cmd_serve.py",
        (
            "serve: a command gets the descriptors of the server",
            "    if settings.run is None:\n        allow",
            "    allow",
        ),
    ),
    *mutants(
        "nbdserver/service/log_outlets.py",
        "tests/nbdserver/service/test_log_outlets.py",
        (
            "log: who is behind in a burst loses lines",
            "return not self.count and _has_room(descriptor, self._moment)",
            "return False",
        ),
        (
            "said: who is behind in a burst loses lines",
            "while text and _has_room(descriptor, moment):",
            "while text:",
        ),
        ("log: a part of a line is joined to the next", "        if sent < len(message):\n", "        if False:\n"),
    ),
    *mutants(
        "nbdserver/service/log_flood.py",
        "tests/nbdserver/service/test_log_flood.py",
        ("log: tracebacks are never thinned out", "return bool(record.exc_info)", "return False"),
    ),
    *mutants(
        "nbdserver/service/logs.py",
        "tests/nbdserver/service/test_logs.py",
        ("log: the rest of a line goes to the next file", "            self._lines.begin_anew()\n", ""),
    ),
    *mutants(
        "nbdserver/service/condition.py",
        "tests/nbdserver/service/test_condition.py",
        (
            "condition: old writes that are not durable are as they should be",
            'if store["unlogged_seconds"] > OLD_SECONDS:',
            'if store["unlogged_seconds"] > 10 * OLD_SECONDS:',
        ),
        ("condition: young ones are not", "OLD_SECONDS = 30.0", "OLD_SECONDS = 1.0"),
        ("condition: what is lost is not said", '    found += store["lost"]\n', ""),
        ("condition: nothing keeps the log", 'if kept := store["kept_bytes"]:', "if kept := 0:"),
        (
            "condition: what has no copy is not said, but for the others",
            'for each in store["uncopied"]\n',
            'for each in store["uncopied"][1:]\n',
        ),
        ("condition: what the host cannot keep stays unsaid", '    found += store["unkept"]\n', ""),
        ("condition: one more than there is", "{len(wrong) - 1} more", "{len(wrong)} more"),
        ("condition: garbage stays in silence", 'if garbage["since"] is not None:', "if False:"),
        ("condition: a view that fails is as good as any", '    if shown["collected"]:\n', "    if False:\n"),
        (
            "condition: who has not found the writer waits for its signs of life",
            '    if not found["epoch"]:\n',
            "    if False:\n",
        ),
    ),
    *mutants(
        "nbdserver/cli/shared/exit_status.py",
        "tests/nbdserver/cli/shared/test_exit_status.py",
        ("exit status: an object that is withheld is damaged", '"Unreadable": 21,', '"Unreadable": DAMAGED,'),
        ("exit status: a certificate is a permission", '"Untrusted": 21,', '"Untrusted": 13,'),
    ),
    *mutants(
        "nbdserver/admin/error_transfer.py",
        "tests/nbdserver/admin/test_error_transfer.py",
        (
            "errors: what was found of the damage stays behind",
            "Failure(kind, str(error), error.object_name, error.detail)",
            "Failure(kind, str(error), error.object_name)",
        ),
        (
            "errors: what nobody knows is tried again",
            "    kind = getattr(errors, failure.kind, StorageError)\n",
            "    kind = getattr(errors, failure.kind, errors.Unavailable)\n",
        ),
    ),
    *mutants(
        "nbdserver/cli/shared/event_sentences.py",
        "tests/nbdserver/cli/shared/test_event_sentences.py",
        ("events: a script is told of none", "else logging.ERROR)", "else logging.CRITICAL)"),
        ("events: a script is told of all", "else logging.ERROR)", "else logging.WARNING)"),
    ),
]
