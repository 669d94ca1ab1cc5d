"""The folder of a local store while it is in use: its descriptor, its temporaries, which folders in it are durable.

It is opened once and everything is done relative to that descriptor: where another filesystem is mounted over it or it
is moved away, nothing is written to what then has its path. Calls come from threads, each within `in_use`.

Invariants:

1. Before anything is written every folder that was there is durable: nothing is built on what a power cut could undo.
2. A descriptor is closed once the store is closed and no call is under way, and not earlier.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from storage.env import Env
from storage.errors import Closed, Unavailable
from storage.objects import folders


class StoreFolder:
    """The folder at `path`, which the first write makes if it is not there."""

    def __init__(self, path: Path, env: Env) -> None:
        self.path = Path(os.path.abspath(path))
        self._env = env
        self._lock = threading.Lock()  # guards the fields below; never held over a write or a sync of an object
        self._root: int | None = None
        self._temporaries: folders.Temporaries | None = None
        self._retired: list[folders.Temporaries] = []  # replaced ones, closed at the end
        self._durable: set[str] = set()  # folders that this process has made durable, with those above them
        self._calls = 0  # under way in threads, perhaps of a caller that was cancelled: they need the descriptors
        self._closed = False

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """A call is under way, which needs the descriptors. Closed: none may begin any more."""
        with self._lock:
            if self._closed:
                raise Closed(f"{self.path.as_uri()} was closed")
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
            self.release()

    def readable(self) -> int | None:
        """The descriptor of the store's folder; None where it has never been made."""
        with self._lock:
            if self._root is None:
                with contextlib.suppress(FileNotFoundError):
                    self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            return self._root

    def writable(self) -> tuple[int, folders.Temporaries]:
        """The descriptor of the store's folder and the temporaries; the first write makes both ready."""
        with self._lock:
            if self._root is None:
                folders.make_root(self.path)
                self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            if self._temporaries is None:
                folders.sync_all(self._root)
                self._temporaries = folders.Temporaries(self._root, lambda: self._env.random_bytes(8).hex())
            return self._root, self._temporaries

    def make(self, root: int, folder: str) -> None:
        """A folder in it, durable, with those above it."""
        if folder and folder not in self._durable:
            folders.make(root, folder)
            self._durable.add(folder)

    def check_presence(self, root: int) -> None:
        """Raise Unavailable where the folder is gone: "not found" would be said of another one."""
        try:
            present = os.path.samestat(os.stat(self.path), os.fstat(root))
        except OSError:
            present = False
        if not present:
            raise Unavailable(f"{self.path} was removed, moved or unmounted while in use: put it back, or restart")

    def make_anew(self) -> None:
        """Someone removed a folder below ours: let the next write make what is missing."""
        with self._lock:
            self._durable.clear()
            if self._temporaries is not None:
                self._retired.append(self._temporaries)  # another thread may be using its descriptor
                self._temporaries = None
            root = self._root
        if root is not None:
            self.check_presence(root)

    def close(self) -> None:
        """No call begins any more."""
        with self._lock:
            self._closed = True

    def release(self) -> None:
        """Close the descriptors once the store is closed and no call needs them."""
        with self._lock:
            if not self._closed or self._calls or self._root is None:
                return
            if self._temporaries is not None:
                self._retired.append(self._temporaries)
            for temporaries in self._retired:
                temporaries.close()
            os.close(self._root)
            self._root = None
