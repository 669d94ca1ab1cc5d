"""Access tokens of the dashboard: one that may change things, and one that only looks.

Both are made of one secret in a file of this user's, so that an open page, and an address that somebody kept, work on
after a restart. Who deletes the file has new tokens from the next start on.
"""

import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from storage.env import Env
from storage.errors import AccessDenied, Invalid
from storage.trusted_files import open_own, trusted_folder

SECRET_BYTES = 32
TOKEN_HEX = 40
"""160 bits."""


@dataclass(frozen=True, slots=True)
class AccessTokens:
    """What a browser must show."""

    full: str
    read_only: str

    def allows(self, shown: str) -> str | None:
        """`full` or `read-only`, by the token that is shown; None: it is none. Takes as long for any."""
        given = shown.encode("utf-8", "replace")
        is_full = hmac.compare_digest(given, self.full.encode())
        is_read_only = hmac.compare_digest(given, self.read_only.encode())
        return "full" if is_full else "read-only" if is_read_only else None


def tokens_of(secret: bytes) -> AccessTokens:
    """The tokens that are made of a secret."""
    full, read_only = (hmac.digest(secret, f"dashboard {kind}".encode(), "sha256").hex() for kind in ("full", "look"))
    return AccessTokens(full[:TOKEN_HEX], read_only[:TOKEN_HEX])


def kept_tokens(path: Path, env: Env) -> AccessTokens:
    """Those of the secret in the file at `path`, which is made for this user alone if it is not there. AccessDenied: it
    cannot be, or others could read it. Invalid: it holds something else.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = trusted_folder(path.parent) / path.name
        # One write and no rename: of a file that was cut short by a crash the next start says what to do.
        with os.fdopen(open_own(path, os.O_RDWR | os.O_CREAT), "r+b") as file:
            secret = _read(file, path)
            if not secret:
                secret = env.random_bytes(SECRET_BYTES)
                file.write(secret)
    except OSError as error:
        raise AccessDenied(f"the tokens of the dashboard cannot be kept in {path}: {error.strerror}") from error
    return tokens_of(secret)


def check_kept(path: Path) -> None:
    """Raise what `kept_tokens` would of what is there, and make nothing."""
    try:
        path = trusted_folder(path.parent) / path.name
        with os.fdopen(open_own(path, os.O_RDWR), "rb") as file:
            _read(file, path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise AccessDenied(f"the tokens of the dashboard cannot be kept in {path}: {error.strerror}") from error


def _read(file: BinaryIO, path: Path) -> bytes:
    """The secret in an open file; nothing: there is none yet."""
    if os.fstat(file.fileno()).st_mode & 0o077:
        raise AccessDenied(f"other users may read {path}: delete it, and a new one is made")
    secret = file.read(SECRET_BYTES + 1)
    if secret and len(secret) != SECRET_BYTES:
        raise Invalid(f"{path} holds no secret of the dashboard: delete it, and a new one is made")
    return secret
