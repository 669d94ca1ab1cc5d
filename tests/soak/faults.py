"""The store of a soak and its faults: MinIO behind a proxy, or a folder whose permissions bind its owner too, and whose
disk fails writes when it is told to.
"""

import os
import random
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.soak.plan import Fault
from tests.support.minio import RunningMinio
from tests.support.stores import StoreUnderTest, folder_store, minio_store
from tests.support.wayward import CUT, SWALLOWED, WaywardProxy

DELAY_SECONDS_MAX = 1.5
RATE_MIN, RATE_MAX = 1 << 20, 8 << 20
"""Bytes a second of each connection that is throttled."""


def _error(status: int, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>said by the soak</Message></Error>"
    head = f"HTTP/1.1 {status} So\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def _page(status: int) -> bytes:
    body = "<html><body>something answers in the store's place</body></html>"
    return f"HTTP/1.1 {status} So\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _for(method: str, answer: bytes) -> bytes:
    """An answer as this method has it: that to a HEAD ends with its header."""
    return answer[: answer.index(b"\r\n\r\n") + 4] if method == "HEAD" else answer


class FaultyStore(Protocol):
    """A store that can be made to fail."""

    under_test: StoreUnderTest
    met: Counter[str]
    """How many requests each kind of fault met; for a folder, which nobody counts, how often it was in force."""

    def data_objects(self) -> list[str]:
        """The names of the objects that hold data."""

    def begin(self, fault: Fault) -> None:
        """From now on it fails so."""

    def end(self) -> None:
        """It no longer does."""

    def last(self, kinds: Sequence[str], withheld: Sequence[str]) -> None:
        """Faults of a whole life, instead of those of the one before; these objects are those withheld."""


class FaultyMinio:
    """A prefix of a MinIO behind a proxy."""

    def __init__(self, minio: RunningMinio, proxy: WaywardProxy, prefix: str, seed: int) -> None:
        self.under_test = minio_store(minio, prefix, endpoint=proxy.endpoint)
        self.met: Counter[str] = Counter()
        self._minio, self._proxy, self._prefix = minio, proxy, prefix
        self._fault: Fault | None = None
        self._lasting: Sequence[str] = ()
        self._withheld: Sequence[str] = ()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._over = threading.Event()
        proxy.decide = self._decide

    def data_objects(self) -> list[str]:
        return [name for name, _ in self._minio.objects(self._prefix) if name.startswith("compacted/")]

    def begin(self, fault: Fault) -> None:
        self._over = threading.Event()
        self._fault = fault
        if fault.kind == "throttle":
            self._proxy.rate = RATE_MIN + fault.strength * (RATE_MAX - RATE_MIN)

    def end(self) -> None:
        self._fault = self._proxy.rate = None
        self._over.set()

    def last(self, kinds: Sequence[str], withheld: Sequence[str]) -> None:
        self._lasting, self._withheld = kinds, withheld

    def _decide(self, method: str, path: str) -> bytes | None:
        with self._lock:
            for kind in self._lasting:
                if answer := self._lasting_answer(kind, method, path):
                    self.met[kind] += 1
                    return answer
            fault = self._fault
            if fault is None:
                return None
            self.met[fault.kind] += 1
            over, drawn = self._over, self._chance.random()
        if fault.kind == "delay":
            over.wait(fault.strength * DELAY_SECONDS_MAX)
        return self._answer(fault, method, drawn)

    def _lasting_answer(self, kind: str, method: str, path: str) -> bytes | None:
        if kind == "no deletes":
            deletes = method == "DELETE" or (method == "POST" and "delete" in path)
            return _error(403, "AccessDenied") if deletes else None
        if method == "GET" and any(name in path for name in self._withheld):
            return _error(403, "AccessDenied") if kind.endswith("403") else _error(500, "InternalError")
        return None

    def _answer(self, fault: Fault, method: str, drawn: float) -> bytes | None:
        """`drawn` from 0 to 1 decides what is left to chance."""
        match fault.kind:
            case "silence":
                return SWALLOWED
            case "cut":
                return CUT
            case "unavailable":
                return _for(method, _error(503, "SlowDown"))
            case "page":
                return _for(method, _page((404, 405, 502)[int(fault.strength * 2.99)]))
            case "flaky" if drawn < 0.1 + fault.strength * 0.4:
                return (CUT, _for(method, _error(500, "InternalError")), _for(method, _page(502)))[
                    int(drawn * 1000) % 3
                ]
        return None


class FaultyFolder:
    """A folder store. Its server has to run without the right to pass over permissions, see `bound`, and as
    `program`."""

    def __init__(self, work: Path) -> None:
        self.under_test = folder_store(work)
        self._control = work / "failing-writes"
        self.program = (sys.executable, "-m", "tests.soak.failing_writes", str(self._control))
        """Fails writes of the store while that file is there."""
        self.met: Counter[str] = Counter()
        self._folder = work / "store"
        self._aside = work / "aside"
        self._moved: list[str] = []
        self._denied: list[Path] = []
        self._closed: list[Path] = []

    def data_objects(self) -> list[str]:
        return sorted(str(path.relative_to(self._folder)) for path in (self._folder / "compacted").glob("*.sst"))

    def begin(self, fault: Fault) -> None:
        match fault.kind:
            case "closed":
                self._close(0)
            case "no writes: EACCES":
                self._close(0o500)
            case "no writes: EIO":
                self._control.write_text("1")
            case "some writes: EIO":
                self._control.write_text(str(0.1 + fault.strength * 0.4))
            case other:
                raise AssertionError(f"a folder has no fault {other}")
        self.met[fault.kind] += 1

    def _close(self, mode: int) -> None:
        self._closed = [path for path in self._folder.iterdir() if path.is_dir()]
        for path in self._closed:
            path.chmod(mode)

    def end(self) -> None:
        self._control.unlink(missing_ok=True)
        for path in self._closed:
            path.chmod(0o700)
        self._closed = []

    def last(self, kinds: Sequence[str], withheld: Sequence[str]) -> None:
        self._give_back()
        for kind in kinds:
            self.met[kind] += 1
            for name in withheld:
                path = self._folder / name
                if kind.endswith("EACCES"):
                    path.chmod(0)
                    self._denied.append(path)
                else:
                    self._aside.mkdir(exist_ok=True)
                    path.rename(self._aside / path.name)
                    path.symlink_to(path.name)
                    self._moved.append(name)

    def _give_back(self) -> None:
        for path in self._denied:
            path.chmod(0o600)
        for name in self._moved:
            path = self._folder / name
            path.unlink()
            (self._aside / path.name).rename(path)
        self._denied, self._moved = [], []


def bound() -> list[str]:
    """What to put before a command so that permissions of files count for it, also where root runs it."""
    if os.geteuid():
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "call require('setpriv') first"
    capabilities = "-dac_override,-dac_read_search"
    return [setpriv, f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]
