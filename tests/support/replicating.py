"""`nbdserver replicate --every` as a process of its own, and what it says."""

import json
import queue
import subprocess
import threading
from types import TracebackType
from typing import Any

from tests.support.processes import end, kill_quietly
from tests.support.program import COMMAND, Host

LINE_SECONDS = 120.0
"""A limit far above what a round takes."""


BACKGROUND = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
"""As a shell starts what goes on in the background: without interrupts."""


class Replicating:
    """From one store to another, on `host`; ended with the block."""

    def __init__(self, host: Host, source: str, target: str, device: str, *words: str) -> None:
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.process = subprocess.Popen(
            [*BACKGROUND, *COMMAND, "replicate", device, target, "--store", source, "--json", *words],
            env=host.environment(),
            cwd=host.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._errors: list[bytes] = []
        self._threads = [threading.Thread(target=each) for each in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def line(self, kind: str) -> dict[str, Any]:
        """The next line of this kind; others before it are passed over."""
        while (found := self.next_line())["message_type"] != kind:
            pass
        return found

    def next_line(self) -> dict[str, Any]:
        """Whatever it is."""
        try:
            found = self._lines.get(timeout=LINE_SECONDS)
        except queue.Empty:
            raise AssertionError(f"nothing within {LINE_SECONDS} s: {self.said()}") from None
        assert found, f"it ended with {self.process.wait(10)}: {self.said()}"
        return found

    def said(self) -> str:
        """On standard error, so far."""
        return b"".join(self._errors).decode()

    def stop(self) -> int:
        """SIGTERM; its status."""
        self.process.terminate()
        status = self.process.wait(60)
        self._close()
        return status

    def kill(self) -> None:
        """It has no say in what it leaves."""
        self.process.kill()
        self.process.wait(60)
        self._close()

    def __enter__(self) -> "Replicating":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            kill_quietly(self.process)
        self._close()

    def _close(self) -> None:
        for thread in self._threads:
            thread.join(60)
        end(self.process)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._lines.put(json.loads(raw))
        self._lines.put({})

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)
