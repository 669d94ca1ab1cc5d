"""The errors of the storage package. The class says what the caller should do; the message is one sentence for a
person.

    StorageError
    ├── Unavailable      the store did not answer or asked for a pause: the outcome is unknown, try again
    ├── Unreadable       the store withholds one object and gives others: what needs that one fails, nothing else
    ├── NotFound         no such object, store or device
    ├── NoBucket         no such bucket: make it, or name the right one; says nothing of any object
    ├── Untrusted        the store's certificate does not verify: fix the set-up
    ├── AlreadyExists    a create met something that is there already
    ├── Conflict         not possible in the present state (attached, another size, not empty): the caller decides
    ├── Invalid          the call makes no sense (name, size, range): fix the call
    ├── Fenced           another writer holds or took the store (this one is superseded): stop, acknowledge nothing
    ├── AccessDenied     credentials or permissions: fix the set-up
    ├── WrongPassword    no key slot opens with this password
    ├── Corrupt          authentication or an invariant failed: never data, never zeros
    │   └── KeyChanged   it is sealed under a newer data key than this process has: start it again
    ├── RolledBack       the store is not, or not any more, what this host remembers of it
    ├── Unsupported      format version or capability this program does not have
    ├── OutOfSpace       the local disk or the bucket's quota is full
    ├── Unfinished       done and in force, but something is left to be done
    └── Closed           used after close, or after the store failed

Storage knows neither errno values nor exit statuses; `nbdserver` maps these classes to both.

`BrokenInvariant` is none of them: it is a mistake in this program, noticed before it did harm.
"""


class StorageError(Exception):
    """Base of everything this package raises on purpose."""


class BrokenInvariant(Exception):
    """This program was about to do what loses data, or to answer with wrong data. Nobody handles it: like any other
    mistake in here it poisons the engine, and nothing more is acknowledged.
    """


class Unavailable(StorageError):
    """The store did not answer, or asked for a pause. A write may or may not have happened.

    `retry_after` is the pause in seconds the store asked for, if it did; `too_large`: something on the way answered,
    which takes no body of that size.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, too_large: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.too_large = too_large


class Unreadable(StorageError):
    """The store withholds one object for long, and gives others. What needs it fails, and nothing else."""


class NotFound(StorageError):
    """No such object, store or device."""


class NoBucket(StorageError):
    """There is no such bucket. Says nothing of any object: a bucket that is renamed or not mounted comes back."""


class Untrusted(StorageError):
    """The certificate of the store does not verify, so nobody knows who answers there."""


class AlreadyExists(StorageError):
    """A create met something that is there already."""


class Conflict(StorageError):
    """Not possible in the present state; the message says what stands in the way."""


class Invalid(StorageError):
    """The call makes no sense: a bad name, size or range."""


class Fenced(StorageError):
    """Another writer holds or took the store. Nothing may be acknowledged any more."""

    def __init__(
        self,
        message: str = "another server has taken over this store: this one acknowledges nothing more and stops",
    ) -> None:
        super().__init__(message)


class AccessDenied(StorageError):
    """Credentials or permissions do not allow it."""


class WrongPassword(StorageError):
    """No key slot opens with this password."""


class Corrupt(StorageError):
    """Authentication or an invariant failed in the named object. Never data, never zeros, never retried into
    success.
    """

    def __init__(self, object_name: str, detail: str) -> None:
        super().__init__(f"{object_name} is damaged: {detail}")
        self.object_name = object_name
        self.detail = detail


class KeyChanged(Corrupt):
    """The object names a data key that is newer than all that this process has: the key was rotated since it asked for
    it. To whoever has just asked for it that is damage like any other, since nothing vouches for the name of a key.
    """

    key_id = 0
    """Of that key; 0, of an error that a server told: not known here."""

    def __init__(self, object_name: str, key_id: int) -> None:
        super().__init__(object_name, f"it is sealed under data key {key_id}, and no such key is known")
        self.key_id = key_id
        self.args = (
            f"{object_name} is sealed under data key {key_id}, which this process does not have: the data key was "
            "changed since it was started; start it again (if that says the same, the object is damaged)",
        )


class RolledBack(StorageError):
    """The store was emptied, exchanged or set back: it is not what this host remembers of it."""


class Unsupported(StorageError):
    """A format version, or a store capability, that this program cannot work with."""


class OutOfSpace(StorageError):
    """The local disk or the bucket's quota is full."""


class Unfinished(StorageError):
    """What was asked for is done and in force, but something is left to be done; the message says what."""


class Closed(StorageError):
    """The store was closed, or has failed; nothing more will be done."""
