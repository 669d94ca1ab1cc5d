"""`nbdserver attach`, `detach`, `attached`: exports as disks of this machine's kernel (by which no TLS goes)."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbdserver.cli.serving.command_log import CommandLog, check_system_log
from nbdserver.cli.shared import output
from nbdserver.cli.shared.exit_status import PROBLEMS, report, sentence_of
from nbdserver.cli.shared.parameters import FILE, NAME, json_option, option
from nbdserver.cli.shared.standard import complain, of_use
from nbdserver.config import DEFAULT_BIND, DEFAULT_PORT

if TYPE_CHECKING:
    from nbdserver.kernel_client.attaching import AttachSettings, NbdDevice
    from nbdserver.kernel_client.export_address import ExportAddress
    from nbdserver.kernel_client.kernel_device import KernelDevice

SECONDS = click.IntRange(1, 10**9)
REQUEST_SECONDS = click.IntRange(1, 86_400)


@click.command()
@click.argument("export", type=NAME)
@click.argument("device", required=False)
@option("--unix", type=FILE, help="Unix socket of the server.")
@option("--host", metavar="ADDRESS", help=f"Where the server is.  [default: {DEFAULT_BIND}]")
@option("-p", "--port", type=click.IntRange(1, 65535), help=f"Its TCP port.  [default: {DEFAULT_PORT}]")
@option("--connections", type=click.IntRange(1, 16), default=3, show_default=True, help="Sockets for one disk.")
@option(
    "--request-timeout",
    type=REQUEST_SECONDS,
    help="Seconds without a reply after which a request is sent again.  [default: 10; another machine: 30]",
)
@option("--dead-timeout", type=SECONDS, help="Seconds without a server after which requests fail.  [default: never]")
@option("--fork", is_flag=True, help="Go to the background, and return when the disk is there.")
@option("--log-file", type=FILE, help="Log there; below warnings not on standard error then. SIGHUP reopens it.")
@json_option
def attach(
    export: str,
    device: str | None,
    unix: Path | None,
    host: str | None,
    port: int | None,
    connections: int,
    request_timeout: int | None,
    dead_timeout: int | None,
    fork: bool,
    log_file: Path | None,
    as_json: bool,
) -> int:
    """Attach an export as a disk of this machine, and keep it attached while servers come and go.

    \b
    nbdserver attach vol1 /dev/nbd0
    nbdserver attach vol1 --unix /run/nbd.sock --fork
    nbdserver attach nbd://10.0.0.5/vol1

    EXPORT is a name, or a URI as serve prints it. Without DEVICE a free one is taken; its name is printed.
    While the server is away, whoever reads or writes the disk waits. If the server comes back with another
    disk under the name, the disk is detached and everything that waits fails (status 20). At SIGTERM or
    Ctrl-C it detaches the disk; one that is in use stays attached, and the same command keeps it again
    (status 3). Needs root, and the kernel's module: modprobe nbd. The kernel speaks no TLS.
    """
    from nbdserver.kernel_client.attaching import FOR_EVER_SECONDS, AttachSettings
    from nbdserver.kernel_client.kernel_device import parse_device

    settings = AttachSettings(
        _address(export, unix, host, port),
        None if device is None else parse_device(device),
        connections,
        request_timeout,
        dead_timeout or FOR_EVER_SECONDS,
    )
    _check_root()
    if fork and log_file is None:
        check_system_log()
    make_log = partial(CommandLog, "plain", log_file, logging.INFO, detached=fork)
    child = partial(_attach, settings, make_log, as_json=as_json)
    if not fork:
        return child(lambda: None)
    from nbdserver.service.daemon import detach as to_background

    return to_background(child)


@click.command()
@click.argument("device")
@click.option("--force", is_flag=True, help="Also if it is in use: whatever waits for it fails.")
@json_option
def detach(device: str, force: bool, as_json: bool) -> None:
    """Detach a disk, whoever attached it. One that is mounted, or part of a pool, is refused.

    \b
    nbdserver detach /dev/nbd0
    """
    from nbdserver.kernel_client import attaching
    from nbdserver.kernel_client.kernel_device import parse_device
    from nbdserver.kernel_client.netlink_socket import KernelClient

    found = parse_device(device)
    _check_root()
    with KernelClient() as kernel:
        attaching.detach(kernel, found, force=force)
    if as_json:
        output.document({"detached": str(found.path)})
    else:
        output.line(f"{found.path}: detached")


@click.command()
@json_option
def attached(as_json: bool) -> int:
    """List the NBD disks of this machine, by whatever they were attached.

    In a pipe: device, size, export, process that keeps it attached, what that waits for, separated by tabs.
    Status 3: a disk of nbdserver attach waits for its server, or nobody keeps it attached.
    """
    from nbdserver.kernel_client.attaching import devices
    from nbdserver.kernel_client.export_address import is_uri
    from nbdserver.kernel_client.netlink_socket import KernelClient

    with KernelClient() as kernel:
        found = devices(kernel)
    if as_json:
        output.document([_facts(each) for each in found])
    else:
        output.table(("DEVICE", "SIZE", "EXPORT", "KEPT BY", "WAITS FOR"), [_row(each) for each in found])
    ours = [each for each in found if is_uri(each.device.backend or "")]
    return PROBLEMS if any(each.keeper is None or each.waits_for for each in ours) else 0


def _facts(found: NbdDevice) -> dict[str, object]:
    device = found.device
    return {
        "device": str(device.path),
        "bytes": device.size,
        "export": device.backend,
        "keeper": found.keeper,
        "waits_for": found.waits_for,
    }


def _row(found: NbdDevice) -> list[str]:
    device = found.device
    keeper = "-" if found.keeper is None else str(found.keeper)
    return [str(device.path), output.size(device.size), device.backend or "-", keeper, found.waits_for or "-"]


def _address(export: str, unix: Path | None, host: str | None, port: int | None) -> ExportAddress:
    """UsageError: a URI that is none, or two ways to the server."""
    from nbdserver.kernel_client.export_address import ExportAddress, is_uri, parse_uri

    said = click.get_current_context().get_parameter_source
    typed = [name for name in ("unix", "host", "port") if said(name) is click.core.ParameterSource.COMMANDLINE]
    if is_uri(export):
        if typed:
            raise click.UsageError(f"the URI says where the server is: leave out --{typed[0]}")
        try:
            return parse_uri(export)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    if "unix" in typed and len(typed) > 1:
        raise click.UsageError(f"--unix and --{typed[1]} exclude each other")
    if "unix" in typed or (unix is not None and not typed):
        return ExportAddress(export, unix=unix)
    return ExportAddress(export, host or DEFAULT_BIND, port or DEFAULT_PORT)


def _check_root() -> None:
    """AccessDenied: the kernel would refuse, and with less of a sentence."""
    from storage.errors import AccessDenied

    if os.geteuid() != 0:
        raise AccessDenied("only root attaches and detaches disks: run it as root")


def _attach(
    settings: AttachSettings, make_log: Callable[[], CommandLog], ready: Callable[[], None], *, as_json: bool
) -> int:
    """Attach, keep attached until the end, and say how it ended; the exit status."""
    import asyncio

    from nbdserver.kernel_client.staying import Ending, stay
    from nbdserver.service.logs import reopen_files

    log: CommandLog | None = None

    def attached(device: KernelDevice, log: CommandLog) -> None:
        facts = {"device": str(device.path), "export": settings.address.uri, "bytes": device.size}
        with of_use():  # the disk needs who keeps it all the same
            click.echo(json.dumps({"message_type": "attached", **facts}) if as_json else device.path)
        log.serve()
        ready()

    try:
        log = make_log()
        log.start(verbose=False)
        device, ending = asyncio.run(stay(settings, partial(attached, log=log), reopen_files))
    except (Exception, KeyboardInterrupt) as error:
        status = report(error, as_json=as_json)
        if log is not None:
            log.end(sentence_of(error), status)
        return status
    if ending is Ending.LEFT_ATTACHED:
        complain(f"{device.path} is in use and stays attached; nobody keeps it so until you run this again")
        return PROBLEMS
    return 0
