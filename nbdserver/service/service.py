"""What runs on an open store: the NBD server, the admin API, the metrics, the command of --run;
and what `status` says of them.
"""

import asyncio
import dataclasses
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from nbdserver.admin.api import Admin
from nbdserver.admin.metrics import CONTENT_TYPE, Metrics
from nbdserver.admin.metrics_listener import MetricsListener
from nbdserver.admin.sockets import runtime_folder, socket_path
from nbdserver.attachments import Attachments
from nbdserver.config import ServeSettings
from nbdserver.exports import Exports
from nbdserver.server.limits import Limits, share_of_one_address
from nbdserver.server.listener import Listener
from nbdserver.service import captive, logs
from nbdserver.service.announce import Address, Announcement, Tcp, Unix, announce
from nbdserver.service.condition import summary
from nbdserver.service.daemon import remove_pid_file, write_pid_file
from nbdserver.service.dashboard_setup import make_dashboard
from nbdserver.service.ending import ENDED_BY_SIGNAL
from nbdserver.service.launch import Launch
from nbdserver.service.rehearsal import check_default, check_size
from nbdserver.service.rereading import CHANGEABLE, OF_WRITERS, Rereading, take_all
from nbdserver.service.serve_policy import ServePolicy
from nbdserver.service.served import Served, tell_of_clients
from nbdserver.service.service_manager import ServiceManager
from nbdserver.service.tuning import warn_of_descriptors
from storage import Store
from storage.env import Env
from storage.errors import Conflict, NotFound
from storage.prices import PriceList

logger = logging.getLogger("nbdserver")


class Service:
    """What runs on an open store: the NBD server, the admin API, the command of --run."""

    def __init__(
        self,
        served: Served,
        settings: ServeSettings,
        rereading: Rereading,
        env: Env,
        security: ServePolicy,
        attachments: Attachments,
        launch: Launch,
        manager: ServiceManager,
        stop: Callable[[], None],
    ) -> None:
        """`launch` is how this process was started; `stop` is what has it end, in the end by `until_the_end`."""
        self._served, self._env, self._manager = served, env, manager
        self._attachments = attachments
        self._security = security
        self._settings, self._rereading = settings, rereading
        self._exports = Exports(
            lambda name: served.newest.device(name),
            lambda: served.newest.names(),
            read_only=settings.read_only,
            only=list(settings.exports) or None,
            default=settings.default_export,
            exclusive=settings.exclusive,
            access=security.access,
            incarnation=lambda: served.newest.incarnation,
            attachments=attachments,
        )
        self._server = Listener(
            self._exports,
            limits=_limits(settings),
            env=env,
            credentials=security.credentials,
            tls_required=settings.tls == "require",
        )
        metrics = Metrics(lambda: served.newest, self._server, env, security.expiry)
        self._metrics = MetricsListener(metrics.text, CONTENT_TYPE)
        self._dashboard = make_dashboard(lambda: self._settings, env, served, self._server, security, self._serving)
        self._admin = Admin(
            lambda: served.newest,
            self._serving,
            self._server,
            process=partial(msgspec.to_builtins, launch),
            stop=stop,
            metrics=self._metrics.answer,
            dashboard=self._show_dashboard,
        )
        self._addresses: list[Address] = []
        self._folder: Path | None = None  # of the socket of --run, where no address was asked for
        tell_of_clients(served, self._exports)

    async def start(self) -> list[Announcement]:
        """Make the devices that were asked for and listen; gives what there is to attach."""
        await _make_devices(self._served.newest, self._settings.create)
        self._check_exports(self._settings)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        await self._admin.start(admin_socket(self._settings))
        if self._settings.metrics is not None:
            await self._metrics.listen(*self._settings.metrics)
        if self._settings.dashboard is not None and self._dashboard is not None:
            await self._dashboard.listen(*self._settings.dashboard)
            logger.info("dashboard_listening", extra={"url": self._dashboard.url})
        await self._listen()
        if self._settings.pid_file is not None:
            write_pid_file(self._settings.pid_file)
        return announce(self._addresses, self._exports.names(), verify_peer=self._settings.tls_verify_peer)

    async def until_the_end(self, stopped: asyncio.Event) -> int:
        """The exit status, once a signal came or the command of --run ended.

        Raises what the store failed with.
        """
        warn_of_descriptors(_limits(self._settings).connections)  # now that warnings are shown
        waiting: list[asyncio.Future[Any]] = [asyncio.create_task(stopped.wait())]
        command = None
        if self._settings.run is not None:
            told = captive.variables(self._addresses[-1], next(iter(self._exports.names()), ""))
            command = asyncio.create_task(captive.run(self._settings.run, told))
            waiting.append(command)
        try:
            await asyncio.wait([*waiting, self._served.failed], return_when=asyncio.FIRST_COMPLETED)
            if self._served.failed.done():
                raise self._served.failed.result()
            if command is None:
                return 0
            return command.result() if command.done() else ENDED_BY_SIGNAL
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    async def stop(self, *, grace_seconds: float) -> None:
        """Let go of everything but the store. Clients have `grace_seconds` for what is under way.

        Only the status is answered from here on: the store may take long to close, and somebody will ask why.
        """
        await self._server.stop(grace_seconds)
        await self._admin.quiesce()
        if self._dashboard is not None:
            await self._dashboard.quiesce()

    def waits_for(self, _: float) -> str:
        """What `stop` waits for."""
        return f"{len(self._server.clients())} clients end what is under way"

    async def end(self) -> None:
        """The store is closed: leave nothing behind but who may miss something."""
        await self._attachments.write()
        await self._metrics.stop()
        if self._dashboard is not None:
            await self._dashboard.stop()
        if self._settings.pid_file is not None:
            remove_pid_file(self._settings.pid_file)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._addresses:
            logger.info("stopped_serving", extra={"store": self._served.newest.url})
        # Last: who waits for our end goes on right behind it.
        await self._admin.stop(released=True)

    async def _listen(self) -> None:
        """Open the sockets that were asked for; --run has one of its own where none was."""
        tls = self._settings.tls == "require"
        if self._settings.tcp is not None:
            host, port = await self._server.listen_tcp(*self._settings.tcp)
            credentials = self._security.credentials
            certified = credentials.name_for(host) if credentials is not None else None
            self._addresses.append(Tcp(host, port, tls=tls, certified=certified))
        unix = self._settings.unix
        if unix is None and self._settings.tcp is None:
            self._folder = Path(tempfile.mkdtemp(prefix="nbdserver-"))
            unix = self._folder / "nbd.sock"
        if unix is not None:
            await self._server.listen_unix(unix)
            self._addresses.append(Unix(unix, tls=tls))

    def _check_exports(self, settings: ServeSettings) -> None:
        """NotFound, Invalid: a device that is to be served is not there, or the default one is not served."""
        for name in settings.exports:
            self._served.newest.device(name)
        default = settings.default_export
        if default is not None:
            self._served.newest.device(default)
            check_default(settings)

    def _reload(self) -> None:
        """SIGHUP: read certificates, access list and configuration again, and reopen the log; clients that are
        attached stay. While the server ends, the log alone: it may be moved away then, too."""
        if self._server.stopping:
            logs.reopen_files()
            return
        self._manager.reloading(self._env.monotonic())
        take_all((logs.reopen_files, self._reload_security, self._reread))
        self._manager.ready(self.summary())

    def _reload_security(self) -> None:
        self._security.reload()
        self._exports.use_access_list(self._security.access)

    def _reread(self) -> None:
        """Go by what changed in the configuration file. A StorageError, and nothing changes: it is not right."""
        changes = self._rereading.changes()
        changeable = CHANGEABLE - OF_WRITERS if self._settings.read_only else CHANGEABLE
        taken = [change for change in changes if change.field in changeable]
        settings = dataclasses.replace(self._settings, **{change.field: change.value for change in taken})
        self._check_exports(settings)
        self._settings = settings
        self._exports.use(only=settings.exports, default=settings.default_export, exclusive=settings.exclusive)
        self._server.use_limits(_limits(settings))
        warn_of_descriptors(_limits(settings).connections)
        store = self._served.newest
        store.upkeep.change(settings.keep, scrub_seconds(settings))
        store.governor.change(settings.request_budget)
        store.prices = price_list(settings)
        self._rereading.accept(taken)
        if taken:
            logger.info("configuration_reloaded", extra={"options": [change.option for change in taken]})
        if len(taken) < len(changes):
            rest = [change.option for change in changes if change.field not in changeable]
            logger.warning("configuration_needs_a_restart", extra={"options": rest})

    def summary(self) -> str:
        """How it does, in a sentence."""
        return summary(msgspec.to_builtins(self._served.newest.status()), len(self._server.clients()))

    def _show_dashboard(self) -> dict[str, object]:
        """Where the dashboard is, with its tokens; for who has the admin socket."""
        if self._dashboard is None:
            raise Conflict("this server has no dashboard: start it with --dashboard 10810")
        return {"url": self._dashboard.url, **dataclasses.asdict(self._dashboard.tokens)}

    def _serving(self) -> dict[str, object]:
        """The server's part of the status."""
        signs = self._served.newest.signs
        return {
            "stopping": self._server.stopping,
            "listening": [address.uri("") for address in self._addresses],
            "exports": self._exports.names(),
            "clients": self._server.clients(),
            "incarnation": self._served.newest.incarnation.id,
            "sign_age_seconds": None if signs is None else signs.age_seconds,
            "refused": [{"export": each.export, "client": each.client} for each in self._attachments.refused],
        }


def admin_socket(settings: ServeSettings) -> Path:
    """Where commands of this host reach this server."""
    return socket_path(runtime_folder(os.environ), settings.store, role="follower" if settings.read_only else "writer")


def scrub_seconds(settings: ServeSettings) -> float | None:
    """In how long all data is read once; None: never."""
    return settings.scrub_days * 24 * 3600.0 or None


def price_list(settings: ServeSettings) -> PriceList | None:
    """What the store costs; None: nobody said."""
    return PriceList(**settings.prices) if settings.prices else None  # type: ignore[arg-type]


def _limits(settings: ServeSettings) -> Limits:
    connections = settings.max_connections or Limits().connections
    of_one = settings.max_connections_per_address or share_of_one_address(connections)
    return dataclasses.replace(Limits(), connections=connections, connections_per_address=of_one)


async def _make_devices(store: Store, wanted: tuple[tuple[str, int], ...]) -> None:
    """Make the devices that are not there yet; one that was made larger since is left. Conflict: one is smaller."""
    for name, size in wanted:
        try:
            found = store.device(name).size
        except NotFound:
            await store.create_device(name, size)
            continue
        check_size(name, found, size)
