"""The access list: which client may use which exports, read from a file in TOML.

    [[grant]]
    certificate = "backup.example.com"      # a name in a client's certificate, or a list of them
    exports = ["vol1", "tenant-a/*"]        # names, NAME/* for everything below NAME, or * for everything
    mode = "read-only"                      # or "read-write"

    [[grant]]
    user = "www-data"                       # of a Unix socket: a name or number, or a list of them
    exports = ["*"]
    mode = "read-write"

Who matches several grants has all they give, and may write where one of them lets it. Who matches none sees
nothing. Nothing is granted by a file that has a mistake anywhere.
"""

import pwd
import re
import tomllib
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from storage.errors import AccessDenied, Invalid
from storage.units import MIB

ACCESS_LIST_BYTES_MAX = MIB
"""Some ten thousand grants; a device file or a log given by mistake is not read to its end."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is, as far as that was proven."""

    uid: int | None = None
    """The user id of the process at the other end of a Unix socket; None: it came another way."""
    names: tuple[str, ...] = ()
    """The names in its verified certificate."""


class Mode(Enum):
    """What may be done with an export."""

    READ_ONLY = "read-only"
    READ_WRITE = "read-write"


@dataclass(frozen=True, slots=True)
class Grant:
    """One entry of the list."""

    certificates: frozenset[str]
    users: frozenset[int]
    exports: tuple[str, ...]
    mode: Mode

    def is_for(self, identity: Identity) -> bool:
        """Whether this client is meant."""
        return identity.uid in self.users or not self.certificates.isdisjoint(identity.names)

    def covers(self, export: str) -> bool:
        """Whether this export is meant."""
        return any(_matches(pattern, export) for pattern in self.exports)


@dataclass(frozen=True, slots=True)
class Rights:
    """What one client may use."""

    grants: tuple[Grant, ...]

    def to(self, export: str) -> Mode | None:
        """What it may do with an export; None: it may not even know of it."""
        modes = {grant.mode for grant in self.grants if grant.covers(export)}
        if Mode.READ_WRITE in modes:
            return Mode.READ_WRITE
        return Mode.READ_ONLY if modes else None


@dataclass(frozen=True, slots=True)
class AccessList:
    """The grants of a file."""

    grants: tuple[Grant, ...] = field(default=())

    @property
    def names_certificates(self) -> bool:
        """Whether any grant is for a certificate, so that certificates must be verified."""
        return any(grant.certificates for grant in self.grants)

    def rights(self, identity: Identity) -> Rights:
        """What this client may use."""
        return Rights(tuple(grant for grant in self.grants if grant.is_for(identity)))


def read_access_list(path: Path) -> AccessList:
    """Read a file. Invalid, AccessDenied: it cannot be read, or is wrong; the message names line and key."""
    try:
        with path.open("rb") as file:
            data = file.read(ACCESS_LIST_BYTES_MAX + 1)
    except PermissionError:
        raise AccessDenied(f"the access list {path} may not be read by this user") from None
    except OSError as error:
        raise Invalid(f"the access list {path} cannot be read: {error.strerror}") from error
    if len(data) > ACCESS_LIST_BYTES_MAX:
        raise Invalid(f"the access list {path} is longer than {ACCESS_LIST_BYTES_MAX} bytes")
    try:
        return parse_access_list(data.decode())
    except UnicodeDecodeError:
        raise Invalid(f"the access list {path} is not text in UTF-8") from None
    except Invalid as error:
        raise Invalid(f"the access list {path} is wrong: {error}") from None


def parse_access_list(text: str) -> AccessList:
    """The grants of a text. Invalid: it is wrong; the message names line and key."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(str(error)) from None
    for key in document:
        if key != "grant":
            raise Invalid(f"line {_line_of(text, key)}: {key}: there is nothing but [[grant]]")
    entries = document.get("grant", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Invalid(f"line {_line_of(text, 'grant')}: grant: write [[grant]], in double brackets")
    return AccessList(tuple(_grant(_Entry(text, index, entry)) for index, entry in enumerate(entries)))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One `[[grant]]` of a text, for messages that say where."""

    text: str
    index: int
    values: dict[str, Any]

    def wrong(self, key: str, what: str) -> Invalid:
        line = _line_in_entry(self.text, self.index, key)
        return Invalid(f"line {line}: {key}: {what}")

    def strings(self, key: str) -> list[str]:
        """A string, or a list of them; none if the key is not there."""
        value = self.values.get(key, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(each, str) and each for each in values):
            raise self.wrong(key, "must be a name or a list of names")
        return values


def _grant(entry: _Entry) -> Grant:
    for key in entry.values:
        if key not in ("certificate", "user", "exports", "mode"):
            raise entry.wrong(key, "is not known: a grant has certificate or user, exports and mode")
    certificates, users = entry.strings("certificate"), _users(entry)
    if not certificates and not users:
        raise entry.wrong("[[grant]]", "needs certificate or user: whom is it for?")
    exports = entry.strings("exports")
    if not exports:
        raise entry.wrong("exports", 'is missing: name exports, or write ["*"]')
    for pattern in exports:
        if "*" in pattern.removesuffix("*") or (pattern.endswith("*") and pattern != "*" and pattern[-2] != "/"):
            raise entry.wrong("exports", f"{pattern!r}: * may stand alone, or at the end behind a slash")
    modes = [mode.value for mode in Mode]
    mode = entry.values.get("mode")
    if mode not in modes:
        raise entry.wrong("mode", f"must be {' or '.join(modes)}")
    return Grant(frozenset(certificates), frozenset(users), tuple(exports), Mode(mode))


def _users(entry: _Entry) -> list[int]:
    value = entry.values.get("user", [])
    found = []
    for user in value if isinstance(value, list) else [value]:
        if isinstance(user, int) and not isinstance(user, bool) and 0 <= user < 2**32 - 1:
            found.append(user)
        elif isinstance(user, str):
            try:
                found.append(pwd.getpwnam(user).pw_uid)
            except (KeyError, ValueError):
                raise entry.wrong("user", f"there is no user {user!r} on this machine") from None
        else:
            raise entry.wrong("user", "must be the name or number of a user, or a list of them")
    return found


def _matches(pattern: str, export: str) -> bool:
    if pattern == "*":
        return True
    return export.startswith(pattern[:-1]) if pattern.endswith("/*") else export == pattern


def _line_of(text: str, key: str) -> int:
    """The line where a top-level key or table is first named; 1 if it cannot be told."""
    quoted = rf"[\"']?{re.escape(key)}[\"']?"
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*\[?\[?\s*{quoted}\s*[].=]", line):
            return number
    return 1


def _line_in_entry(text: str, index: int, key: str) -> int:
    """The line of a key in one `[[grant]]`, or that of the entry itself."""
    entry, seen = 1, -1
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[\[\s*[\"']?grant[\"']?\s*\]\]", line):
            seen += 1
            if seen > index:
                break
            entry = number
        elif seen == index and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
            return number
    return entry
