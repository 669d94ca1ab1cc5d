"""How to run the real program: `nbdserver serve` on a store, and its other commands.

Every server has a folder of its own for its runtime files; the state folder, which outlives a server as it
does on a host, is shared by all servers of one `Host`.
"""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import keys
from tests.support.nbd import Client
from tests.support.processes import end, kill_quietly, unused_port

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "nbdserver")

START_SECONDS = 60.0
"""Far above what a start takes: Argon2id with 256 MiB is about 0.6 s of it, more on a busy machine."""

EXIT_FENCED = 11
EXIT_WRONG_PASSWORD = 12
EXIT_EXISTS = 15
EXIT_CONFLICT = 16
EXIT_CORRUPT = 20
EXIT_UNAVAILABLE = 21
EXIT_NO_SPACE = 22


_WAITS = re.compile(r"nbdserver: (still waiting: |opening |waiting for |.* not durable yet, the oldest for )")


def without_waits(said: str) -> str:
    """What a command said but for what it waited for longer than usual, which is a machine's business."""
    return "".join(line for line in said.splitlines(keepends=True) if not _WAITS.match(line))


@dataclass
class Host:
    """A machine as the program sees it: state folder, runtime folder, credentials of the store, the password.

    `folder` must have a short path: Unix sockets are put into it.
    """

    folder: Path
    store_environment: Mapping[str, str] = field(default_factory=dict)
    password: str = "a password for tests"

    @property
    def runtime(self) -> Path:
        """Where servers have their admin sockets."""
        return self.folder / "run"

    def environment(self) -> dict[str, str]:
        state, runtime = self.folder / "state", self.runtime
        for made in (state, runtime):
            made.mkdir(mode=0o700, exist_ok=True)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("NBDSERVER_", "AWS_", "XDG_"))
        }
        python_path = os.pathsep.join(filter(None, (str(REPOSITORY), inherited.get("PYTHONPATH"))))
        return {
            **inherited,
            **self.store_environment,
            "PYTHONPATH": python_path,
            "NBDSERVER_PASSWORD": self.password,
            "NBDSERVER_STATE_FOLDER": str(state),
            "NBDSERVER_RUNTIME_FOLDER": str(runtime),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }

    def run(
        self, *arguments: str, status: int | None = 0, seconds: float = 120, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run `nbdserver ARGUMENTS` to its end and check its exit status (None: any).

        What it waited for is left out of what it said: on a busy machine any command may say so.
        """
        done = subprocess.run(
            [*COMMAND, *arguments],
            env={**self.environment(), **variables},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        done.stderr = without_waits(done.stderr)
        if status is not None:
            assert done.returncode == status, (
                f"nbdserver {' '.join(arguments)} ended with {done.returncode}, not {status}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def prepare(self, location: str) -> None:
        """Of a store that the program is to make: its password costs next to nothing then (`tests.support.keys`)."""
        keys.prepare(location, self.store_environment, self.password)

    def json(self, *arguments: str) -> object:
        """The one document that a command prints with --json."""
        return json.loads(self.run(*arguments, "--json").stdout)


class NotListening(AssertionError):
    """The server ended before it listened; `status` is how, `output` what it said."""

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"the server ended with status {status} before it listened:\n{output}")
        self.status = status
        self.output = output


class Server:
    """`nbdserver serve` on `location`, over TCP and a Unix socket, with its standard error in a file.

    A server can be started again after it ended: the ports stay, as they would on a host. A store that it is to make
    (`create`) gets a password that costs next to nothing (`tests.support.keys`).
    """

    _count = 0

    def __init__(
        self,
        host: Host,
        location: str,
        *,
        create: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        tcp: bool = True,
        after_loss: str = "serve",
    ) -> None:
        self.after_loss = after_loss
        """What clients get that may miss what they were answered: a test that kills a server without a journal is one
        that knows."""
        Server._count += 1
        self.host = host
        self.location = location
        self.arguments = list(arguments)
        self.create = dict(create or {})
        self.port = unused_port() if tcp else None
        self.socket = host.folder / f"s{Server._count}"
        self.log = host.folder / f"server{Server._count}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.announced = ""
        self._life_begins = 0

    def command(self) -> list[str]:
        """The command line of this server."""
        listen = ["--unix", str(self.socket)]
        if self.port is not None:
            listen += ["--bind", "127.0.0.1", "--port", str(self.port)]
        made = [word for name, size in self.create.items() for word in ("--create", f"{name}={size}")]
        return [*COMMAND, "serve", self.location, *listen, "--after-loss", self.after_loss, *made, *self.arguments]

    def spawn(self, *extra: str) -> "subprocess.Popen[bytes]":
        """Start the process without waiting for it to listen."""
        assert self.process is None, "it runs already"
        if self.create and not self.said():
            self.host.prepare(self.location)
        self._life_begins = len(self.said())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command(), *extra],
                env=self.host.environment(),
                cwd=self.host.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        return self.process

    def start(self, *extra: str) -> float:
        """Start, wait until it says on standard output that it listens; returns the seconds that took.

        NotListening: it ended instead.
        """
        before = self.said()
        started = time.monotonic()
        process = self.spawn(*extra)
        assert process.stdout is not None
        output = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in output:
                if not selector.select(max(0.0, started + START_SECONDS - time.monotonic())):
                    self.kill()
                    raise AssertionError(f"not listening after {START_SECONDS} s:\n{self.said()}")
                piece = os.read(process.stdout.fileno(), 65536)
                if not piece:
                    raise NotListening(self.wait(), without_waits(self.said()[len(before) :]))
                output += piece
        self.announced = output.decode()
        return time.monotonic() - started

    def said(self) -> str:
        """What the server wrote to standard error so far, in all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None, "it does not run"
        return self.process.pid

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, sign: signal.Signals) -> None:
        assert self.process is not None, "it does not run"
        self.process.send_signal(sign)

    def wait(self, seconds: float = 60) -> int:
        """Wait for the process to end by itself; returns its status."""
        assert self.process is not None, "it does not run"
        status = self.process.wait(seconds)
        end(self.process)
        self.process = None
        return status

    def stop(self, *, seconds: float = 60) -> int:
        """SIGTERM and the exit status, which after a clean stop is 0."""
        assert self.process is not None, "it does not run"
        process, self.process = self.process, None
        return end(process, seconds=seconds)

    def kill(self) -> None:
        """SIGKILL: the process has no say in what it leaves."""
        assert self.process is not None, "it does not run"
        process, self.process = self.process, None
        end(process, sign=signal.SIGKILL)

    def close(self) -> None:
        """Whatever state the test left it in, it is gone after this."""
        if self.process is not None:
            kill_quietly(self.process)
            self.process = None

    def uri(self, export: str = "disk") -> str:
        """The export over TCP."""
        return f"nbd://127.0.0.1:{self.port}/{export}"

    def unix_uri(self, export: str = "disk") -> str:
        """The export over the Unix socket."""
        return f"nbd+unix:///{export}?socket={self.socket}"

    def connect(self, export: str = "disk", *, structured: bool = True, timeout: float = 60) -> Client:
        """Our own client, over the Unix socket."""
        return Client(self.socket, export, structured=structured, timeout=timeout)
