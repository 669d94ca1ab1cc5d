"""Secrets: bytes that nothing prints, and the environment without them.

A `Secret` is a bytearray, so that the libraries take it without a copy and it can be overwritten. Text made of it
(`repr`, `str`, a format, the fields of a structure around it) shows nothing, and neither `pickle`, `copy` nor a JSON
encoder takes it by accident. What is asked for by name (`bytes(secret)`, `hex`, a slice) gives the bytes. Whoever makes
a secret wipes it, best by `with`.
"""

import ctypes
import os
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import NoReturn, Self

PASSWORD_VARIABLES = ("NBDSERVER_PASSWORD", "NBDSERVER_NEW_PASSWORD", "NBDSERVER_TO_PASSWORD")
"""What begins like these holds a password, or says where one comes from."""

STORE_VARIABLES = frozenset(
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN")
)
"""The credentials of the store that come in variables."""


class Secret(bytearray):
    """A password or a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not copied or written down")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def wipe(self) -> None:
        """Overwrite it with zeros. Copies made elsewhere stay."""
        self[:] = bytes(len(self))


def taken(environ: MutableMapping[str, str], name: str) -> Secret:
    """The value of a variable, which is gone from the environment afterwards: KeyError if it was not there.

    Where it is this process's own (`os.environ`), it is overwritten where the kernel keeps it too, so that
    /proc/PID/environ does not show it any more. Copies stay in memory that the interpreter has freed.
    """
    secret = Secret(os.fsencode(environ[name]))
    if environ is os.environ:
        _overwrite(os.fsencode(name), bytes(secret))
    del environ[name]
    return secret


def without_passwords(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that helps to find a secret: without the passwords of the store, and without where
    they lie or which command prints them.
    """
    return {name: value for name, value in environ.items() if not name.startswith(PASSWORD_VARIABLES)}


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that has no use for the store itself: without the credentials of the bucket too."""
    left_out = {*STORE_VARIABLES, "CREDENTIALS_DIRECTORY"}
    return {name: value for name, value in without_passwords(environ).items() if name not in left_out}


def _overwrite(name: bytes, value: bytes) -> None:
    """Zero the value of a variable in the memory of the C library, if it is this one."""
    try:
        getenv = ctypes.CDLL(None).getenv
    except (OSError, AttributeError):
        return
    getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_void_p
    address = getenv(name)
    if address and ctypes.string_at(address) == value:
        ctypes.memset(address, 0, len(value))
