"""What to tell a person whose server cannot listen."""

import errno
import socket

from storage.errors import AccessDenied, Conflict, Invalid, StorageError

PASSING = frozenset({errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, socket.EAI_AGAIN})
"""What may be well in a moment: an address that is not up yet, a name service that does not answer, no room.

The start is tried again then, by the service manager, as with a port that is in use. Numbers of a name service are
below zero, and never those of anything else.
"""


def listening_failed(error: OSError, what: str) -> StorageError:
    """One sentence for an error of the system; `what` is "port 10809 on 127.0.0.1" or the like."""
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"{what} is in use: stop the other program or choose another one")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDenied(f"{what} may not be used by this user: choose another one")
    kind = Conflict if error.errno in PASSING else Invalid
    return kind(f"{what} cannot be listened on: {error.strerror or error}")


def in_use(failed: StorageError) -> bool:
    """Whether what `listening_failed` gave, raised from its error, is about another program that listens there."""
    return isinstance(failed.__cause__, OSError) and failed.__cause__.errno == errno.EADDRINUSE
