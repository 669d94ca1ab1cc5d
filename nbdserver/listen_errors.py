"""What to tell a person whose server cannot listen."""

import errno

from storage.errors import AccessDenied, Conflict, Invalid, StorageError


def listening_failed(error: OSError, what: str) -> StorageError:
    """One sentence for an error of the system; `what` is "port 10809 on 127.0.0.1" or the like."""
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"{what} is in use: stop the other program or choose another one")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDenied(f"{what} may not be used by this user: choose another one")
    return Invalid(f"{what} cannot be listened on: {error.strerror or error}")
