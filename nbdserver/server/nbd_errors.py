"""The number that a client is given for an error of the storage. The NBD protocol has few, and kernels know fewer."""

from nbdserver.protocol import wire
from storage.errors import Closed, Fenced, OutOfSpace, StorageError


def nbd_error(error: StorageError) -> int:
    """ENOSPC: the store has no room. ESHUTDOWN: this server is of no use any more, and another one may be. EIO:
    anything else.
    """
    if isinstance(error, OutOfSpace):
        return wire.ENOSPC
    if isinstance(error, (Fenced, Closed)):
        return wire.ESHUTDOWN
    return wire.EIO
