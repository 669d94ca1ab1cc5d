"""Errors of the storage package on their way over the admin socket, where they come out as themselves."""

from typing import cast

import msgspec

from storage import errors
from storage.errors import Corrupt, StorageError


class Failure(msgspec.Struct, frozen=True):
    """The kind of an error, which is the name of its class, and its sentence."""

    kind: str
    message: str
    object_name: str = ""
    detail: str = ""


def from_error(error: StorageError) -> Failure:
    """What to send for an error."""
    kind = type(error).__name__
    if isinstance(error, Corrupt):
        return Failure(kind, str(error), error.object_name, error.detail)
    return Failure(kind, str(error))


def to_error(failure: Failure) -> StorageError:
    """The error to raise for what was sent; a kind this version does not know is a plain StorageError."""
    kind = getattr(errors, failure.kind, StorageError)
    if not (isinstance(kind, type) and issubclass(kind, StorageError)):
        kind = StorageError
    if issubclass(kind, Corrupt):
        # Of whatever kind of damage: each begins with other facts, and its sentence is sent.
        damaged = cast(Corrupt, kind.__new__(kind))
        Corrupt.__init__(damaged, failure.object_name, failure.detail)
        damaged.args = (failure.message,)
        return damaged
    error: StorageError = kind(failure.message)
    return error
