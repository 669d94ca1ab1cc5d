"""Rows of TLS: what is said in clear to servers that offer or require it, and what only inside it."""

import dataclasses

from tests.nbdserver.cases.case import FIXED, PLAIN, STRUCTURED, Case, Start, Then
from tests.support import messages as m

STARTTLS, FORCED, UNFIXED = "NBD_OPT_STARTTLS", "FORCEDTLS mode", "Server-side requirements"

ACK = "STARTTLS ACK"
MAYBE_ACK = "?STARTTLS ACK"
"""A server that sees at once that the client goes on in clear need not acknowledge."""

REQUIRED = "ERR_TLS_REQD"


def told(name: str, row: int, server: str, say: bytes, *expect: str, start: Start = FIXED) -> Case:
    """An option in clear, behind which negotiation goes on in clear."""
    section = FORCED if server == "required" else STARTTLS
    return Case(name, row, section, start, say, expect, Then.HANDSHAKE, server)


def closes(name: str, row: int, server: str, say: bytes, *expect: str, start: Start = FIXED) -> Case:
    section = UNFIXED if start is PLAIN else FORCED
    return Case(name, row, section, start, say, expect, Then.CLOSED, server)


IN_CLEAR = (
    *(
        closes(f"{name} without the fix, {server}", 5, server, say, start=PLAIN)
        for server in ("tls", "required")
        for name, say in (("STARTTLS", m.option(m.STARTTLS)), ("LIST", m.option(m.LIST)))
    ),
    closes("EXPORT_NAME without the fix, required", 5, "required", m.export_name(), start=PLAIN),
    told("STARTTLS with data, offered", 27, "tls", m.option(m.STARTTLS, b"x"), "STARTTLS ERR_INVALID"),
    told(
        "STARTTLS with data, required", 27, "required", m.option(m.STARTTLS, b"x"), f"STARTTLS (ERR_INVALID|{REQUIRED})"
    ),
    told("LIST, offered", 28, "tls", m.option(m.LIST), "LIST ACK .*"),
    told("LIST, required", 28, "required", m.option(m.LIST), f"LIST {REQUIRED}"),
    told("LIST with data, required", 28, "required", m.option(m.LIST, b"xy"), f"LIST (ERR_INVALID|{REQUIRED})"),
    told("INFO, required", 28, "required", m.info("disk", 1, 3), f"INFO {REQUIRED}"),
    told("INFO of an unknown export, required", 28, "required", m.info("no"), f"INFO {REQUIRED}"),
    told("unknown option with data, required", 28, "required", m.option(77, b"hello"), f"77 {REQUIRED}"),
    told("unknown option of 100,000 bytes, required", 28, "required", m.option(99, bytes(100_000)),
        f"99 ({REQUIRED}|ERR_TOO_BIG)"),
    told("STRUCTURED_REPLY, required", 28, "required", m.option(m.STRUCTURED_REPLY), f"STRUCTURED_REPLY {REQUIRED}"),
    told("EXTENDED_HEADERS, required", 28, "required", m.option(m.EXTENDED_HEADERS), f"EXTENDED_HEADERS {REQUIRED}"),
    told("LIST_META_CONTEXT, required", 28, "required", m.list_contexts("disk"), f"LIST_META_CONTEXT {REQUIRED}"),
    told("SET_META_CONTEXT, required", 28, "required", m.set_contexts("disk", m.BASE), f"SET_META_CONTEXT {REQUIRED}"),
    closes("EXPORT_NAME, required", 29, "required", m.export_name()),
    told("GO, required", 29, "required", m.go(), f"GO {REQUIRED}"),
    told("GO for an unknown export, required", 29, "required", m.go("no"), f"GO {REQUIRED}"),
    closes("ABORT, required", 29, "required", m.option(m.ABORT), "ABORT ACK"),
    closes("a request behind GO, required", 29, "required", m.go() + m.request(m.READ, 0, 4096), f"GO {REQUIRED}"),
)  # fmt: skip

UPGRADE = (
    *(
        closes(f"{name} in clear behind STARTTLS, {server}", 30, server, m.option(m.STARTTLS) + say, MAYBE_ACK)
        for server in ("tls", "required")
        for name, say in (
            ("LIST", m.option(m.LIST)),
            ("GO and a READ", m.go() + m.request(m.READ, 0, 4096)),
        )
    ),
    *(
        closes(f"{name} for ClientHello, {server}", 33, server, m.option(m.STARTTLS) + say, MAYBE_ACK)
        for server in ("tls", "required")
        for name, say in (
            ("zeros", bytes(512)),
            ("a record of another kind", bytes.fromhex("1703030010") + bytes(16)),
            ("an alert", bytes.fromhex("15030300020228")),
            ("SSL 2", bytes.fromhex("802e0100020015001000000010") + bytes(40)),
            ("a record of 64 KiB", bytes.fromhex("160301ffff") + bytes(70_000)),
        )
    ),
    closes("one byte in clear behind STARTTLS", 30, "hasty-tls", m.option(m.STARTTLS) + b"\0", MAYBE_ACK),
    closes("silence behind STARTTLS", 33, "hasty-tls", m.option(m.STARTTLS), ACK),
    closes(
        "silence in ClientHello", 33, "hasty-tls", m.option(m.STARTTLS) + bytes.fromhex("1603010200010001fc"), MAYBE_ACK
    ),
)  # fmt: skip

INSIDE = tuple(
    dataclasses.replace(one, encrypted=True)
    for server in ("tls", "required")
    for one in (
        Case(
            f"STARTTLS inside TLS, {server}", 32, STARTTLS, FIXED, m.option(m.STARTTLS), ("STARTTLS ERR_INVALID",),
            Then.HANDSHAKE, server,
        ),
        Case(
            f"STARTTLS inside TLS behind other options, {server}", 32, STARTTLS, STRUCTURED,
            m.option(m.STARTTLS) + m.set_contexts("disk", m.BASE),
            ("STARTTLS ERR_INVALID", "SET_META_CONTEXT ACK base:allocation"), Then.HANDSHAKE, server,
        ),
        Case(
            f"STARTTLS with data inside TLS, {server}", 32, STARTTLS, FIXED, m.option(m.STARTTLS, b"x"),
            ("STARTTLS ERR_INVALID",), Then.HANDSHAKE, server,
        ),
    )
)  # fmt: skip

CASES = (*IN_CLEAR, *UPGRADE, *INSIDE)
