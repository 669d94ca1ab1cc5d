"""`nbdserver serve`: run the server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from nbdserver.cli.serving.command_log import CommandLog, check_system_log
from nbdserver.cli.serving.file_options import FileOptions
from nbdserver.cli.shared import passwords
from nbdserver.cli.shared.exit_status import report, sentence_of
from nbdserver.cli.shared.parameters import (
    ADDRESS,
    FILE,
    FOLDER_PATH,
    KEEP,
    NAME,
    PRICES,
    REQUESTS,
    SIZE,
    Place,
    json_option,
    option,
    rollback_option,
    store_argument,
)
from nbdserver.config import DEFAULT_BIND, DEFAULT_PORT, SCRUB_DAYS, ServeSettings, parse_size
from nbdserver.server.limits import Limits
from nbdserver.tls_files import SERVER_KEY

if TYPE_CHECKING:
    from nbdserver.service.announce import Announcement
    from storage.secret import Secret


COUNT = click.IntRange(1, 100_000)
LIMITS = Limits()

SAYING_SECONDS = 0.1
"""How long a reader is waited for with a line for people, of which there are few: once, for the next is left out."""


class NamedSize(click.ParamType[tuple[str, int]]):
    """`NAME=SIZE`."""

    name = "name=size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        name, equals, size = value.rpartition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not NAME=SIZE", param, ctx)
        try:
            return NAME.convert(name, param, ctx), parse_size(size)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@option(
    "--create",
    type=NamedSize(),
    multiple=True,
    help="Make this device if it is not there, so large at least. Repeatable.",
)
@option("--bind", metavar="ADDRESS", help=f"TCP address to listen on.  [default: {DEFAULT_BIND}]")
@option("-p", "--port", type=click.IntRange(0, 65535), help=f"TCP port.  [default: {DEFAULT_PORT}]")
@option("--unix", type=FILE, help="Unix socket to listen on; alone, no TCP port is opened.")
@option("--export", "exports", type=NAME, multiple=True, help="Serve only this device. Repeatable.")
@option("-r", "--read-only", is_flag=True, help="Follow a store that others write; change nothing.")
@option("--default-export", type=NAME, help="What a client gets that names no device.")
@option("--exclusive", is_flag=True, help="Let each device have one connection at a time.")
@option("--tls", type=click.Choice(["off", "on", "require"]), default="off", help="Offer or require TLS.")
@option("--tls-certificates", type=FOLDER_PATH, help="Folder with server-cert.pem, server-key.pem and ca-cert.pem.")
@option("--tls-verify-peer", is_flag=True, help="Require certificates of clients under TLS, signed by ca-cert.pem.")
@option("--allow-plaintext", is_flag=True, help="Serve other machines without requiring TLS.")
@option("--access", type=FILE, help="File that says who may use which devices.")
@option("--max-connections", type=COUNT, help=f"Clients at once.  [default: {LIMITS.connections}]")
@option(
    "--max-connections-per-address",
    type=COUNT,
    help="Of one address, or one user of this host.  [default: four fifths]",
)
@option("--no-create", is_flag=True, help="Never make a new store.")
@option("--fork", is_flag=True, help="Go to the background, and return when clients can connect.")
@option("--pid-file", type=FILE, help="Write the process id there while serving.")
@option("--run", metavar="COMMAND", help="Serve for this command only: $uri names the first export.")
@option("--replace", is_flag=True, help="Get ready, then ask the server of this store on this host to stop.")
@option("--take-over", is_flag=True, help="Take the store from a server that has not closed it.")
@option("--standby", is_flag=True, help="Beside a server that has the store, wait until that has ended; one of a pair.")
@rollback_option
@option(
    "--after-loss",
    type=click.Choice(["refuse", "serve"]),
    default="refuse",
    help="What clients get that may miss what they were answered.",
)
@option("--cache-size", "cache_bytes", type=SIZE, help="Memory for decoded data.")
@option("--keep", type=KEEP, default={}, metavar="hourly=24,daily=7", help="Take snapshots, and keep so many of each.")
@option("--scrub-days", type=click.IntRange(0), default=SCRUB_DAYS, help="Read all data once in so long; 0: never.")
@option("--prices", type=PRICES, default={}, metavar="LIST", help="What the store costs: aws-s3-standard, or prices.")
@option("--request-budget", type=REQUESTS, metavar="N[/month]", help="Slow background work to keep a month to it.")
@option("--metrics", type=ADDRESS, metavar="[ADDRESS:]PORT", help="Serve metrics for Prometheus there, at /metrics.")
@option("--dashboard", type=ADDRESS, metavar="[ADDRESS:]PORT", help="Serve the dashboard, a page for browsers, there.")
@option("--dashboard-host", "dashboard_hosts", multiple=True, help="Further name of this machine for it. Repeatable.")
@option("--log-file", type=FILE, help="Log there; below warnings not on standard error then. SIGHUP reopens it.")
@option("--log-format", type=click.Choice(["console", "json"]), default="console", help="How the log looks.")
@option("-v", "--verbose", is_flag=True, help="Log every connection and every request to the store too.")
@json_option
@store_argument
def serve(
    place: Place,
    bind: str | None,
    port: int | None,
    unix: Path | None,
    fork: bool,
    no_create: bool,
    log_file: Path | None,
    log_format: Literal["console", "json"],
    verbose: bool,
    as_json: bool,
    **rest: Any,
) -> int:
    """Serve the devices of a store to NBD clients.

    \b
    nbdserver serve s3://bucket/disks --create vol1=10GiB
    nbdserver serve /srv/disks --unix /run/nbd.sock --export vol1
    nbdserver serve /srv/disks --run 'qemu-img info $uri'
    nbdserver serve s3://bucket/disks --standby

    A store that is not there yet is made, unless --no-create or --read-only is given. With --read-only, also
    beside a server that writes the store, whoever attaches gets a disk as it was committed last. When it listens, it
    prints one line for every export on standard output: its URI, a tab, and the command that attaches it.
    It ends at SIGTERM or Ctrl-C, after everything written is safe in the store. SIGHUP has it read certificates, access
    list and configuration file again, and reopen the log file; with --fork and no --log-file the system's log is used.

    With --standby on two hosts, one serves and the other waits, with nothing open. It takes the store when the first
    has stopped, or 4 seconds after its last sign of life; on the same host when its process has ended. With --replace
    it takes the place of the server of this host that has the store, or else of the one that waits.
    """
    tcp = _tcp(bind, port, wanted=unix is None and rest["run"] is None)
    make_store = not (no_create or rest["read_only"] or rest["standby"])
    settings = ServeSettings(**dataclasses.asdict(place), tcp=tcp, unix=unix, make_store=make_store, **rest)
    _check(settings, fork=fork)
    if fork and log_file is None:
        check_system_log()
    if settings.tls_certificates is not None:
        with contextlib.suppress(OSError):  # reading it will say what is wrong
            passwords.warn_of_readers(settings.tls_certificates / SERVER_KEY, "the key")
    password = _password(settings, fork=fork)

    make_log = partial(CommandLog, log_format, log_file, detached=fork)
    child = partial(_serve, settings, password, make_log, verbose=verbose, as_json=as_json)
    with password:  # a fork has a copy of its own, which it wipes itself
        if not fork:
            return child(lambda: None)
        from nbdserver.service.daemon import detach

        return detach(child)


def _tcp(bind: str | None, port: int | None, *, wanted: bool) -> tuple[str, int] | None:
    """Where to listen on TCP; `wanted`: even if neither address nor port were given."""
    if bind is None and port is None and not wanted:
        return None
    return DEFAULT_BIND if bind is None else bind, DEFAULT_PORT if port is None else port


def _check(settings: ServeSettings, *, fork: bool) -> None:
    """UsageError: options that exclude or need each other."""
    if settings.read_only and settings.create:
        raise click.UsageError("--read-only and --create exclude each other")
    if settings.read_only and (settings.take_over or settings.accept_rollback):
        raise click.UsageError("--read-only takes no store from anybody, and accepts nothing of one: leave that away")
    if settings.read_only and settings.keep:
        raise click.UsageError("--read-only and --keep exclude each other")
    if settings.read_only and settings.request_budget is not None:
        raise click.UsageError("--read-only and --request-budget exclude each other: it has no work that can wait")
    if settings.standby and (settings.read_only or settings.run is not None):
        raise click.UsageError("--standby excludes --read-only and --run: it waits for the store of a writer")
    if settings.standby and (settings.take_over or settings.accept_rollback):
        raise click.UsageError(
            "--standby waits until a store is free; --take-over and --accept-rollback do not: choose"
        )
    if fork and settings.run is not None:
        raise click.UsageError("--fork and --run exclude each other")
    tls = settings.tls
    if (tls == "off") != (settings.tls_certificates is None):
        raise click.UsageError("--tls on or require and --tls-certificates need each other")
    if tls == "off" and settings.tls_verify_peer:
        raise click.UsageError("--tls-verify-peer needs --tls require")
    if tls == "on" and settings.tls_verify_peer and settings.access is None:
        raise click.UsageError(
            "with --tls on clients get in without TLS, and so without a certificate: use --tls require, or say with "
            "--access what those may use"
        )


def _password(settings: ServeSettings, *, fork: bool) -> Secret:
    """The password; one that is typed for a store that is not there yet is typed twice.

    Whether the store is there is not asked before a fork, since asking takes threads.
    """
    password = passwords.current(os.environ)
    if password.typed and settings.make_store:
        from nbdserver.cli.shared.backend import is_there

        if fork or not is_there(settings.store):
            passwords.confirm(password)
    return password.secret


def _serve(
    settings: ServeSettings,
    password: Secret,
    make_log: Callable[[int], CommandLog],
    ready: Callable[[], None],
    *,
    verbose: bool,
    as_json: bool,
) -> int:
    """Serve until the end, and say how it ended; the exit status."""
    from nbdserver.service.tuning import allow_descriptors, tune

    tune()
    if settings.run is None:
        allow_descriptors()

    log: CommandLog | None = None
    env = None
    try:
        # A command of --run has standard error for itself, unless something is wrong.
        usual = logging.INFO if settings.run is None else logging.WARNING
        log = make_log(logging.DEBUG if verbose else usual)
        log.start(verbose=verbose)
        from storage.fs.early_unlock import OPEN_SECONDS_MAX, EarlyUnlock

        early = EarlyUnlock(settings.store, password, OPEN_SECONDS_MAX)
        # All else is loaded while that is at work: half of what a start takes.
        import uvloop

        from nbdserver.service import life
        from storage.env import RealEnv

        env = RealEnv()
        rereading = FileOptions(click.get_current_context())
        listening = _StartTold(log, ready, quiet=settings.run is not None, as_json=as_json)
        return uvloop.run(life.serve(settings, rereading, password, early, env, listening, _complain))
    except (Exception, KeyboardInterrupt) as error:
        status = report(error, as_json=as_json)
        if log is not None:
            log.end(sentence_of(error), status)
        return status
    finally:
        if env is not None:
            env.close()


class _StartTold:
    """What is done when clients can connect, and before that when this process stands by; of both the first is the end
    of its start."""

    def __init__(self, log: CommandLog, ready: Callable[[], None], *, quiet: bool, as_json: bool) -> None:
        self._log = log
        self._ready: Callable[[], None] | None = ready
        self._quiet = quiet
        self._as_json = as_json

    def __call__(self, announcements: list[Announcement] | None) -> None:
        if not self._quiet:
            _print(announcements, as_json=self._as_json)
        ready, self._ready = self._ready, None
        if ready is not None:
            self._log.serve()
            ready()


def _print(announcements: list[Announcement] | None, *, as_json: bool) -> None:
    """What there is to attach; None: nothing yet, since it stands by."""
    from nbdserver.service.announce import PLACEHOLDER

    if announcements is None:
        if as_json:
            _say(sys.stdout, json.dumps({"message_type": "standing_by"}))
        return
    if as_json:
        exports = [{"name": each.name, "uri": each.uri, "attach": each.attach_line} for each in announcements]
        _say(sys.stdout, json.dumps({"message_type": "listening", "exports": exports}))
    elif announcements:
        _say(sys.stdout, "\n".join(f"{each.uri}\t{each.attach_line}" for each in announcements))
    else:
        _complain("there are no devices yet: make one with: nbdserver device create NAME SIZE")
    if any(f"//{PLACEHOLDER}" in each.uri for each in announcements):
        _complain(f"{PLACEHOLDER} stands for a name of this machine; clients verify that the certificate has it")


def _complain(sentence: str) -> None:
    _say(sys.stderr, f"nbdserver: {sentence}")


def _say(stream: TextIO, text: str) -> None:
    """Print it in the event loop, which waits for no reader: it may stand still, and disks depend on this process."""
    from nbdserver.service.log_outlets import say

    say(stream.fileno(), f"{text}\n".encode(stream.encoding, "backslashreplace"), moment=SAYING_SECONDS)
