"""The facts about a client that people and programs are told."""

from nbdserver.protocol.agreement import Dialect
from nbdserver.server.connection import Connection


def describe(connection: Connection, since: float) -> dict[str, object]:
    """A JSON document about a client. What is settled by the handshake is None until it is over; `since` is when that
    was, or before it when the client connected, in seconds since 1970."""
    agreement = connection.agreement
    client, traffic = connection.client, connection.traffic
    return {
        "id": client.number,
        "peer": client.peer.name,
        "user": client.identity.uid,
        "certificate": list(client.identity.names),
        "export": None if connection.export is None else connection.export.name,
        "since": since,
        "tls": client.tls_version,
        "structured": None if agreement is None else agreement.structured,
        "extended": None if agreement is None else agreement.dialect is Dialect.EXTENDED,
        "read_only": None if agreement is None else agreement.export.read_only,
        "exclusive": None if agreement is None else agreement.export.exclusive,
        "requests": traffic.requests,
        "bytes_received": traffic.received,
        "bytes_sent": traffic.sent,
    }
