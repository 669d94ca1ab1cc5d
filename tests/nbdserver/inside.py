"""What tests look into that is private in `nbdserver`: each thing has a name here, and is reached for nowhere else."""

import asyncio
from pathlib import Path
from typing import Any

from nbdserver import tls
from nbdserver.cli import root
from nbdserver.server.connection import Connection
from nbdserver.server.limits import Budget
from nbdserver.server.listener import Listener
from nbdserver.server.refusal_log import RefusalLog
from nbdserver.server.tls_transport import TlsTransport
from nbdserver.service.log_flood import FloodFilter


def connections(server: Listener) -> list[Connection]:
    """Those that are there, in the order in which they came."""
    return list(server._connections)


def budget_of(server: Listener) -> Budget:
    """The memory that requests of all clients share."""
    return server._budget


def new_connection(server: Listener) -> Connection:
    """What the listener makes of a socket it accepts."""
    return server._make_connection()


def below(secured: TlsTransport) -> asyncio.Transport:
    """The transport that carries what is encrypted."""
    return secured._transport


def put_below(secured: TlsTransport, transport: Any) -> None:
    secured._transport = transport


def files_of(credentials: tls.Credentials) -> object:
    """What was read when certificates were last loaded; another object after each load."""
    return credentials._files


def read_from(credentials: tls.Credentials, folder: Path) -> None:
    """From the next reload on."""
    credentials._folder = folder


def lines_remembered(log: RefusalLog) -> int:
    return len(log._lines)


def events_remembered(flood: FloodFilter) -> int:
    return len(flood._events)


def run_command() -> int:
    """The command line without its end of the process."""
    return root._run()
