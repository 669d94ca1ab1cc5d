"""How far a long command is: a bar on a terminal, JSON lines, or nothing in a
pipe.
"""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from nbdserver.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINES_EVERY_SECONDS = 0.2
"""Five times a second is as fast as people read."""


class ProgressDisplay:
    """How far a transfer of `total` bytes is; None where nobody knows how many there are."""

    def __init__(self, label: str, total: int | None, *, lines_to: TextIO | None) -> None:
        """`lines_to` gets JSON lines; without it a bar is drawn on standard error if that is a terminal."""
        self._label = label
        self._total = total
        self._lines_to = lines_to
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._next_line = 0.0
        self._told = -1
        """The position in the last line."""

    def __enter__(self) -> ProgressDisplay:
        from storage.env import RealEnv

        self._env = RealEnv()
        if self._lines_to is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.markup import escape
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(escape(printable(self._label)), total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._env.close()
        if self._bar is not None:
            self._bar.stop()

    def expect(self, total: int) -> None:
        """There are `total` bytes."""
        self._total = total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total)

    def advance(self, position: int) -> None:
        """It is at byte `position` now. Of lines there is one in a while, and one at the end."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=position)
        elif self._lines_to is not None:
            now = self._env.monotonic()
            if now >= self._next_line or self._told != position == self._total:
                self._next_line, self._told = now + LINES_EVERY_SECONDS, position
                _print(self._lines_to, {"message_type": "status", "bytes_done": position, "total_bytes": self._total})

    def summary(self, **facts: object) -> None:
        """The last JSON line."""
        if self._lines_to is not None:
            _print(self._lines_to, {"message_type": "summary", **facts})


def _print(file: TextIO, line: dict[str, object]) -> None:
    print(json.dumps(line), file=file, flush=True)
