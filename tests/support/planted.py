"""Secrets that are planted into a run, and the search for them in all that it said."""

import base64
import json
import os
from collections.abc import Iterable, Iterator


def unique(size: int = 24) -> bytes:
    """A secret that nothing else holds, with bytes that every way of escaping treats differently."""
    return b'"\\\xfe\n' + base64.b64encode(os.urandom(size))[: size - 4]


def found_in(output: bytes, secrets: dict[str, bytes]) -> list[str]:
    """Which secrets, or their beginnings as a shortened text shows them, are in an output, and in which form.

    A line is searched once, however often it is there: logs of many failures are tracebacks of the same lines. What of
    a secret is on one line is enough to find it.
    """
    lines = b"\n".join(dict.fromkeys(output.split(b"\n")))
    return [f"{name} as {form}" for name, secret in secrets.items() for form in _forms_in(lines, secret)]


def _forms_in(output: bytes, secret: bytes) -> Iterator[str]:
    for piece in (secret, secret[:9], secret[4:16]):
        for form, needle in _forms(piece):
            if needle in output:
                yield f"{form} ({needle!r})"


def _forms(piece: bytes) -> Iterable[tuple[str, bytes]]:
    return {
        "bytes": piece,
        "hex": piece.hex().encode(),
        "HEX": piece.hex().upper().encode(),
        "Base64": base64.b64encode(piece).rstrip(b"="),
        "Base64 of URLs": base64.urlsafe_b64encode(piece).rstrip(b"="),
        "repr of bytes": repr(piece)[2:-1].encode(),
        "repr of text": repr(os.fsdecode(piece))[1:-1].encode(errors="backslashreplace"),
        "JSON": json.dumps(os.fsdecode(piece))[1:-1].encode(),
        "numbers": ", ".join(map(str, piece)).encode(),
    }.items()
