"""The authorities that vouch for a store's certificate: a file, read again when it is another one.

An authority is renewed now and then, or a store is given the certificate of another one, and somebody puts that into
the file. A server that went on with what it read at its start would wait for its store until it is started anew.
"""

import os
import ssl
import threading

from storage.errors import Invalid


class Authorities:
    """Those in a file. Used by the threads of a store."""

    def __init__(self, file: str) -> None:
        """Invalid: it cannot be read."""
        self._file = file
        self._lock = threading.Lock()
        try:
            self._seen = _identity(file)
            self.context = ssl.create_default_context(cafile=file)
        except OSError as error:
            raise Invalid(f"cannot use the certificates in {file}: {error}; check AWS_CA_BUNDLE") from error

    def read_anew(self) -> bool:
        """Whether another file lies there than the one that was read, and is `context` now: one for all connections,
        since reading it takes 10 ms. What cannot be read is tried again the next time: who may read it, say, changes
        without a change of the file.
        """
        with self._lock:  # who reads it last has the newest
            try:
                found = _identity(self._file)
                if found == self._seen:
                    return False
                self.context = ssl.create_default_context(cafile=self._file)
            except OSError:
                return False
            self._seen = found
            return True


def _identity(file: str) -> tuple[int, int, int, int]:
    there = os.stat(file)
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns
