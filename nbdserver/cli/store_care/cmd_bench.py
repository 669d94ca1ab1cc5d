"""`nbdserver bench`: what a place for a store can do, before anything rests on it, and what a client of a disk gets."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbdserver.cli.shared import output
from nbdserver.cli.shared.parameters import (
    FOLDER_PATH,
    NAME,
    SIZE,
    Place,
    SecondsRange,
    json_option,
    option,
    optional_store_option,
    store_argument,
)
from nbdserver.cli.shared.standard import complain
from nbdserver.config import format_size

if TYPE_CHECKING:
    from nbdserver.admin.client import AdminClient
    from nbdserver.cli.store_care.device_trial import TrialLoad, TrialResult
    from nbdserver.cli.store_care.tls_trial import TrialTarget
    from storage.env import Env
    from storage.objects.retry import RetryingStore
    from storage.objects.trial import Speed

SECONDS_EACH = 2.0

GONE_LOOKS, GONE_SECONDS = 200, 0.05
"""So often, with such pauses, it is looked whether the server has seen that the client of a trial has left."""


@click.group()
def bench() -> None:
    """Try what a bucket, a folder or a disk can do."""


@bench.command()
@option(
    "--seconds",
    type=SecondsRange(0.1, 600),
    default=SECONDS_EACH,
    show_default=True,
    help="For each kind of request.",
)
@json_option
@store_argument
def store(place: Place, seconds: float, as_json: bool) -> None:
    """Try whether a place can hold a store safely, and how fast it is.

    \b
    nbdserver bench store s3://bucket/disks
    nbdserver bench store /srv/disks --seconds 10

    First what safety rests on, ten times: of creates that race exactly one wins, an object reads back as it was made,
    in all its ranges, and listings show at once what was made and deleted. A place that fails is named with the reason
    (status 14), and no server uses it. Then each kind of request is timed: a flush costs one create of a few KiB, a
    read that the cache does not have one get. Objects are written below probe/ in the place, of 2 GiB in all at most,
    and deleted again; what an interrupted run leaves there may be deleted. No password is needed.
    """
    from nbdserver.cli.shared.backend import without_keys
    from storage.objects.trial import PROBES, look_for_faults, measure

    speeds: list[Speed] = []

    def told(speed: Speed) -> None:
        speeds.append(speed)
        if not as_json:
            output.line(_sentence(speed))

    def looked(times: int) -> None:
        if times == PROBES and not as_json:
            output.line(f"safety: nothing wrong in {PROBES} tries of races, ranges and listings")

    async def run(objects: RetryingStore, env: Env) -> None:
        await look_for_faults(objects, env, looked)
        await measure(objects, env, seconds, told)

    complain(f"trying {place.store}, for about {9 * seconds:.0f} s")
    without_keys(place.store, "what it can do", run)
    if as_json:
        output.document({"store": place.store, "safe": True, "requests": [dataclasses.asdict(each) for each in speeds]})


def _sentence(speed: Speed) -> str:
    what = f"{speed.request} of {format_size(speed.size)}" if speed.size else speed.request
    rate = f", {format_size(int(speed.bytes_per_second))}/s" if speed.size else ""
    times = f"median {1000 * speed.median:.1f} ms, slowest of 100 {1000 * speed.slowest:.1f} ms"
    return f"{what}, {speed.parallel} at a time: {times}{rate} ({speed.count} requests)"


@bench.command()
@click.argument("export", metavar="[EXPORT|URI]", type=NAME, required=False)
@option("--size", type=SIZE, default="256MiB", show_default=True, help="Of the disk that is made for the trial.")
@option("--seconds", type=SecondsRange(0.1, 600), default=SECONDS_EACH, show_default=True, help="For each load.")
@option("--tls-certificates", type=FOLDER_PATH, help="Folder with ca-cert.pem, and client-cert.pem and client-key.pem.")
@json_option
@optional_store_option
def device(
    place: Place | None,
    export: str | None,
    size: int,
    seconds: float,
    tls_certificates: Path | None,
    as_json: bool,
) -> None:
    """Measure what one client gets of a running server: reads of a disk, or all that a new disk can do.

    \b
    nbdserver bench device --store /srv/disks
    nbdserver bench device vol1 --store /srv/disks
    nbdserver bench device nbd://10.0.0.5/vol1
    nbdserver bench device nbds://disks.example.com/vol1 --tls-certificates ~/pki

    A disk that is named is only read: nothing that is there is ever written to. Without a name a disk of its own is
    made (bench- and eight digits), written, flushed, read, and deleted; what it writes goes into the store, and is paid
    for. Reads of what was never written, or is in the server's memory, ask the store nothing. The disk is reached over
    TCP or a Unix socket, on one connection; this process takes its part of the time. With TLS only where the server
    requires it, or the URI says nbds: then the server's certificate is checked, against --tls-certificates if given.

    In a pipe: load, block in bytes, how many at a time, requests a second, bytes a second, median and the time within
    which 99 of 100 were done in seconds, requests, separated by tabs.
    """
    from nbdserver.cli.store_care.device_trial import READS, WRITES
    from nbdserver.cli.store_care.tls_trial import parse_target
    from nbdserver.kernel_client.export_address import is_uri

    if export is not None and is_uri(export):
        try:
            target = parse_target(export, tls_certificates)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        _try_loads(target, READS, seconds, as_json=as_json)
        return
    if place is None:
        raise click.UsageError("which server? Give --store, or the disk as nbd://HOST/NAME")
    server = _server_of(place)
    if export is not None:
        _try_loads(_target(server, export, tls_certificates), READS, seconds, as_json=as_json)
        return
    with _disk_of_its_own(server, size) as name:
        _try_loads(_target(server, name, tls_certificates), (*WRITES, *READS), seconds, as_json=as_json)


@contextlib.contextmanager
def _disk_of_its_own(server: AdminClient, size: int) -> Iterator[str]:
    """The name of a new disk, which is deleted at the end. A crash leaves it: its name says what it was."""
    from nbdserver.admin.operations import CreateDevice, DeleteDevice
    from storage.env import RealEnv
    from storage.errors import Conflict

    env = RealEnv()
    name = f"bench-{env.random_bytes(4).hex()}"
    env.close()
    server.perform(CreateDevice(name, size))  # a name that is there already is refused
    complain(f"made the disk {name}; it is deleted at the end")
    try:
        yield name
    finally:
        for left in reversed(range(GONE_LOOKS)):
            try:
                server.perform(DeleteDevice(name))
                break
            except Conflict:  # the client has left, and the server has not seen it yet
                if not left:
                    raise
                time.sleep(GONE_SECONDS)


def _server_of(place: Place) -> AdminClient:
    from nbdserver.admin.client import find_reader, find_server
    from storage.errors import NotFound

    server = find_server(place.store, os.environ) or find_reader(place.store, os.environ)
    if server is None:
        raise NotFound(f"no server of {place.store} runs on this machine: nbdserver serve {place.store}")
    return server


def _target(server: AdminClient, name: str, certificates: Path | None) -> TrialTarget:
    """Where a server of this machine has a disk; a Unix socket is rather taken."""
    from nbdserver.cli.store_care.tls_trial import parse_target

    first = min(server.status()["listening"], key=lambda uri: "+unix" not in uri)
    return parse_target(first, certificates).named(name)


def _try_loads(target: TrialTarget, loads: tuple[TrialLoad, ...], seconds: float, *, as_json: bool) -> None:
    import asyncio

    from nbdserver.cli.store_care.device_trial import DeviceTrial
    from nbdserver.cli.store_care.tls_trial import reach
    from storage.env import RealEnv

    env = RealEnv()
    connection = asyncio.run(reach(target))
    complain(f"trying {target.uri}, for about {len(loads) * seconds:.0f} s")
    with connection.sock:
        trial = DeviceTrial(connection.sock, connection.export.size, env)
        results = []
        for load in loads:
            results.append(trial.run(load, seconds))
            if not as_json:
                _tell(results[-1])
        trial.leave()
    env.close()
    if as_json:
        document = [{**dataclasses.asdict(each), "rate": each.rate} for each in results]
        output.document({"export": target.uri, "size": connection.export.size, "loads": document})


def _tell(result: TrialResult) -> None:
    bandwidth = result.rate * result.block_bytes
    if not sys.stdout.isatty():
        figures = (f"{result.rate:.1f}", f"{bandwidth:.0f}", f"{result.median:.6f}", f"{result.p99:.6f}")
        click.echo("\t".join((result.name, str(result.block_bytes), str(result.depth), *figures, str(result.count))))
    else:
        times = f"median {1000 * result.median:.2f} ms, 99 of 100 within {1000 * result.p99:.2f} ms"
        what = f"{result.name} of {format_size(result.block_bytes)}, {result.depth} at a time"
        output.line(f"{what}: {result.rate:,.0f} a second, {format_size(int(bandwidth))}/s, {times}")
    sys.stdout.flush()
