"""Lines of progress: the last one says that all of it was done, however soon after the one before."""

import io
import json

from nbdserver.cli.shared.progress import ProgressDisplay


def test_the_end_is_said() -> None:
    said = io.StringIO()
    with ProgressDisplay("a check", None, lines_to=said) as display:
        display.expect(10)
        for position in (1, 9, 10):
            display.advance(position)
    assert json.loads(said.getvalue().splitlines()[-1]) == {
        "message_type": "status",
        "bytes_done": 10,
        "total_bytes": 10,
    }
