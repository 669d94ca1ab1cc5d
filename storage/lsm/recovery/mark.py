"""The mark: the highest number of the log that a writer of this host acknowledged, in a file of its own."""

import os
import struct
from contextlib import suppress
from pathlib import Path

from storage.lsm.recovery.locks import give_to_owner
from storage.trusted_files import open_own

MARK = struct.Struct("<Q")


class Mark:
    """The highest WAL number that this writer acknowledged, known to this host from the moment it is set.

    Setting it is one write into the page cache: two microseconds on the way of a flush, and it survives kill -9. A
    power cut may set it back to an earlier number, and so does a full disk; then the end of the log can be cut off
    unnoticed since that one. (Mapped memory is cheaper still, but there a full disk ends the process by a signal.)
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = open_own(path, os.O_WRONLY | os.O_CREAT)
        give_to_owner(self._descriptor, path.parent)

    def set(self, number: int) -> None:
        """`number` exists in the store and is about to be acknowledged."""
        with suppress(OSError):
            os.pwrite(self._descriptor, MARK.pack(number), 0)

    def close(self) -> None:
        """Give back the file; what was set stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
