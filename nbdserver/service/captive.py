"""A server for one command only (`--run`): what it is told, and what becomes of it."""

import asyncio
import contextlib
import dataclasses
import os

from nbdserver.service.announce import Address, Tcp, Unix
from storage.secret import without_secrets

COMMAND_STOP_SECONDS = 5.0
"""How long the command may take to end after it was asked to."""


def variables(address: Address, export: str) -> dict[str, str]:
    """What the command finds in its environment: `$uri`, and as nbdkit has them `$nbd` and `$unixsocket`."""
    match address:
        case Unix(path):
            return {
                "uri": address.uri(export),
                "nbd": f"nbd:unix:{path}:exportname={export}",
                "unixsocket": str(path),
            }
        case Tcp(port=port):
            host = address.reachable
            return {
                "uri": dataclasses.replace(address, host=host, certified=None).uri(export),
                "nbd": f"nbd:{host}:{port}:exportname={export}",
                "unixsocket": "",
            }


async def run(command: str, told: dict[str, str]) -> int:
    """Run a shell command to its end; its exit status, as a shell gives it. It finds no secrets of the store.

    Cancelled, it ends the command.
    """
    process = await asyncio.create_subprocess_shell(command, env={**without_secrets(os.environ), **told})
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(COMMAND_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        raise
    return status if status >= 0 else 128 - status
