"""A real browser, headless Chromium, told what to do through a pipe: pages are opened as people open them.

It says what a page complains of: errors on its console, exceptions, refusals of its own policy.
"""

import base64
import contextlib
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.requirements import find, require

ANSWER_SECONDS = 120.0
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--hide-scrollbars",
    "--password-store=basic",
    "about:blank",
)

KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, "")}
"""The number of a key, and the text that it makes."""

Message = dict[str, Any]


class Browser:
    """One browser with one page."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process = process
        self._to, self._back = to, back
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.complaints: list[str] = []
        """What the page said that no page should have to say."""
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Message:
        """One command of the protocol of the developer tools, to the page; its result."""
        return self._ask(method, parameters, self._session)

    def open(self, address: str) -> None:
        """Go to a page; `until` says when it is there."""
        failed = self.ask("Page.navigate", url=address).get("errorText")
        assert not failed, failed

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, a promise waited for."""
        found = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, *, seconds: float = 120.0) -> Any:
        """Wait until an expression is true in the page; its value. A page that is being loaded has nothing yet."""
        end, last = time.monotonic() + seconds, ""
        while True:
            try:
                if value := self.evaluate(expression):
                    return value
            except AssertionError as error:
                last = str(error)
            assert time.monotonic() < end, f"{expression} is not so after {seconds:g} s; {last} {self.complaints}"
            time.sleep(0.05)

    def shape(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window, and what its reader likes."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key: str) -> None:
        """One of `KEYS`, down and up."""
        code, text = KEYS[key]
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **pressed)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def write(self, text: str) -> None:
        """Text, as somebody types it into what has the focus."""
        self.ask("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """The page, all of it, as a PNG."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _ask(self, method: str, parameters: Message, session: str | None = None) -> Message:
        number = next(self._numbers)
        message: Message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            found = self._read(end)
            if found.get("id") == number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: Message = found["result"]
                return result
            self._hear(found)

    def _read(self, end: float) -> Message:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._back], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            part = os.read(self._back, 1 << 16)
            assert part, f"the browser ended with status {self._process.poll()}"
            self._buffer += part
        raw, _, self._buffer = self._buffer.partition(b"\0")
        found: Message = json.loads(raw)
        return found

    def _hear(self, event: Message) -> None:
        told = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.complaints.append(" ".join(str(each.get("value")) for each in told["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that keeps what it keeps in `folder`; the test is skipped, or failed in CI, where there is none."""
    require("chromium")
    (inward, to), (back, outward) = os.pipe(), os.pipe()
    options = [*OPTIONS, f"--user-data-dir={folder}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    # The browser reads from descriptor 3 and writes to 4, whatever they are called here.
    command = ["bash", "-c", f'exec "$@" 3<&{inward} 4>&{outward}', "bash", str(find("chromium")), *options]
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
    process = subprocess.Popen(
        command,
        pass_fds=(inward, outward),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    os.close(inward)
    os.close(outward)
    try:
        yield Browser(process, to, back)
    finally:
        os.close(to)
        os.close(back)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(30)
