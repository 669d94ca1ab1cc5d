"""The dashboard of the real program: its address, its port, and the page in a real browser."""

import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from nbdserver.protocol.wire import CMD_FLUSH
from tests.support.browser import Browser, browser
from tests.support.messages import FUA
from tests.support.minio import RunningMinio
from tests.support.nbd import Client
from tests.support.processes import unused_port
from tests.support.program import EXIT_CONFLICT, Server
from tests.support.stores import Away, StoreUnderTest, minio_store
from tests.support.wayward import WaywardProxy

pytestmark = pytest.mark.xdist_group("browser")

EXIT_USAGE, EXIT_NOT_FOUND = 2, 10
BLOCK = 1 << 18
AXE = Path(__file__).with_name("axe") / "axe.min.js"
MOVING = {"uptime_seconds", "month_cost", "unlogged_seconds"}
"""Figures that are others at each look."""

TOLERANCE = 0.01

WRITES = 200
"""Each is a request to the store."""


@pytest.fixture
def serve(make_server: Callable[..., Server]) -> Callable[..., Server]:
    def start(store: StoreUnderTest, *arguments: str) -> Server:
        port = ("--dashboard", str(unused_port()), "--prices", "aws-s3-standard")
        server = make_server(store, create={"disk": "64MiB", "other": "1MiB"}, arguments=(*port, *arguments))
        server.start()
        return server

    return start


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """For all tests: it takes a second to start."""
    with browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def page(one_browser: Browser) -> Browser:
    """An empty page; what the one before complained of when its server went does not count."""
    one_browser.open("about:blank")
    one_browser.until("location.href === 'about:blank'")
    one_browser.complaints.clear()
    return one_browser


def address(server: Server, *options: str) -> str:
    return server.host.run("dashboard", "--store", server.location, *options).stdout.strip()


def asked(place: str, path: str, body: object = None) -> tuple[int, Any]:
    """Status and answer, as a page at that address would have them."""
    url, _, token = place.partition("/#token=")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = Request(url + path, headers=headers, data=None if body is None else json.dumps(body).encode())
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_address_and_what_its_tokens_may(
    local_store: StoreUnderTest, serve: Callable[..., Server], make_server: Callable[..., Server]
) -> None:
    server = serve(local_store)
    full, looking = address(server), address(server, "--look-only")
    url = full.partition("#token=")[0]
    assert looking.startswith(f"{url}#token=")
    assert looking != full
    told: Any = server.host.json("dashboard", "--store", server.location)
    assert (told["address"], told["url"]) == (full, url)
    deed = {"type": "create-device", "name": "new", "size": 4096}
    assert asked(looking, "/v1/operations", deed)[0] == 403
    status, made = asked(full, "/v1/operations", deed)
    assert (status, made["name"], made["size"]) == (200, "new", 4096)
    assert "new" in server.host.run("device", "list", "--store", server.location).stdout
    server.stop()
    server.host.run("dashboard", "--store", server.location, status=EXIT_NOT_FOUND)
    server.start()
    assert address(server) == full, "an open page goes on after a restart"
    server.stop()
    server.arguments = []
    server.start()
    said = server.host.run("dashboard", "--store", server.location, status=EXIT_CONFLICT).stderr
    assert "--dashboard 10810" in said
    port = str(unused_port())
    follower = make_server(local_store, on=server.host, arguments=("--read-only", "--dashboard", port), tcp=False)
    follower.start()
    assert address(server).startswith(f"http://127.0.0.1:{port}/#token="), "the writer has none, who follows it has"
    refused = server.host.run(
        "serve", f"{server.location}-2", "--dashboard", "0.0.0.0:10810", "--unix", "x", status=None
    )
    assert refused.returncode == EXIT_USAGE
    assert "--allow-plaintext" in refused.stderr


def load(server: Server) -> Client:
    """Overwrites, snapshots and flushes, so that there is something to show; the client stays."""
    client = server.connect("disk")
    for number in range(30):
        client.write(number % 7 * BLOCK, bytes([number + 1]) * BLOCK)
        client.write(number % 5 * BLOCK + 4096, bytes([number]) * 4096)
        if number % 10 == 9:
            client.flush()
            server.host.run("snapshot", "create", f"disk@s{number}", "--store", server.location)
    for number in range(WRITES):
        client.write(number % 7 * BLOCK, bytes([number % 255 + 1]) * 4096, flags=FUA)
        client.read(number % 7 * BLOCK, 4096)
    server.host.run("flush", "--store", server.location)
    return client


FIGURES = """Object.fromEntries([...document.querySelectorAll("[data-stat]")].map((one) => {
    const device = one.parentElement.dataset.device;
    return [(device ? device + " " : "") + one.dataset.stat, Number(one.dataset.value)];
}))"""
VIOLATIONS = """axe.run().then((all) =>
    all.violations.map((one) => [one.id, one.nodes[0].html, one.nodes[0].failureSummary].join(": ")))"""


def counted(server: Server) -> dict[str, float]:
    """What the server's own counters say, under the names of the page."""
    found = {}
    for device in (None, "disk", "other"):
        told: Any = server.host.json("stats", *([device] if device else []), "--store", server.location)
        for one in told["stats"]:
            values = one["value"] if isinstance(one["value"], dict) else {"": one["value"]}
            for verb, value in values.items():
                name = one["name"] + (f".{verb}" if verb else "")
                found[f"{device} {name}" if device else name] = value
    return found


def differences(shown: dict[str, float], wanted: dict[str, float]) -> dict[str, tuple[float, float]]:
    """The figures of the page that are not those of the server: the page is new once a second, what takes long to
    count every quarter of a minute, and the server counts on."""
    assert len(shown) > 25
    return {
        name: (value, wanted[name])
        for name, value in shown.items()
        if name not in MOVING and value != pytest.approx(wanted[name], rel=TOLERANCE, abs=1e-9)
    }


@pytest.mark.parametrize("store", ["minio"], indirect=True)
def test_the_page_says_what_the_server_counts(
    store: StoreUnderTest, minio: RunningMinio, serve: Callable[..., Server], page: Browser
) -> None:
    page.shape(1280, 4000)
    server = serve(store)
    place = address(server)
    page.open(place)
    page.until("document.querySelectorAll('[data-claim]').length === 5")
    before = minio.counters(), requests_shown(page)
    with load(server) as client:
        page.until("document.querySelectorAll('#snapshots tbody tr').length === 3")
        assert page.evaluate("location.hash") == "", "the token does not stay in the address"
        client.write(0, b"z" * 8192)
        client.flush()
        asked(place, "/v1/operations", {"type": "flush"})
        end = time.monotonic() + 60
        while differing := differences(page.evaluate(FIGURES), counted(server)):
            assert time.monotonic() < end, differing
            time.sleep(1)
        page.until("document.querySelector('[data-map=allocated]').dataset.value === '7'")
        assert page.evaluate("document.querySelector('#clients tbody').rows.length") == 1
        assert page.evaluate(
            "[...document.querySelectorAll('[data-claim]')].every((one) => one.querySelector('.red').textContent)"
        )
        assert page.evaluate("document.getElementById('live').textContent") == "live"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.shape(360, 800)
        page.until("innerWidth === 360")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a phone needs no scrolling aside"
        accessible(page)
        # MinIO says what it counted some seconds ago, and the server asks something every ten.
        counted_there = sum(minio.counters().since(before[0]).requests.values())
        assert requests_shown(page) - before[1] == pytest.approx(counted_there, rel=TOLERANCE, abs=2)
        assert counted_there > WRITES
    assert page.complaints == []


def requests_shown(page: Browser) -> float:
    """All requests to the store, as the page says it now."""
    return float(sum(value for name, value in page.evaluate(FIGURES).items() if name.startswith("requests.")))


def accessible(page: Browser) -> None:
    """axe-core finds nothing, in light and in dark."""
    page.evaluate(AXE.read_text() + "; true")
    for dark in (False, True):
        page.shape(1280, 4000, dark=dark)
        found = page.evaluate(VIOLATIONS)
        assert found == []
        assert page.evaluate("axe.run().then((all) => all.passes.length)") > 20, "it looked"


def test_deeds_by_keyboard_and_a_deletion_only_once_its_name_was_typed(
    local_store: StoreUnderTest, serve: Callable[..., Server], page: Browser
) -> None:
    page.shape(1280, 2000)
    server = serve(local_store)
    page.open(address(server))

    def begin(deed: str, name: str = "") -> None:
        button = f"document.querySelector('[data-deed={deed}]{f'[data-name={name}]' if name else ''}')"
        page.until(f"!!{button}")
        page.evaluate(f"{button}.focus()")
        page.press("Enter")
        page.until("document.getElementById('deed').open")

    begin("create")
    page.write("made")
    page.press("Tab")
    page.write("10MiB")
    page.press("Enter")
    page.until("!document.getElementById('deed').open && !!document.querySelector('[data-name=made]')")
    begin("delete", "made")
    disabled = "document.querySelector('#deed [type=submit]').disabled"
    page.write("mad")
    assert page.evaluate(disabled)
    page.press("Enter")
    assert page.evaluate("document.getElementById('deed').open")
    page.write("e")
    assert not page.evaluate(disabled)
    page.press("Enter")
    page.until("!document.getElementById('deed').open && !document.querySelector('[data-name=made]')")
    names = [
        row.split("\t")[0] for row in server.host.run("device", "list", "--store", server.location).stdout.splitlines()
    ]
    assert names == ["disk", "other"]
    begin("create")
    page.write("disk")
    page.press("Tab")
    page.write("1GiB")
    page.press("Enter")
    page.until("document.querySelector('#deed .error').textContent.includes('disk')")
    page.press("Escape")
    page.until("!document.getElementById('deed').open")
    page.open(address(server, "--look-only"))
    page.until("document.getElementById('devices').textContent.includes('This token may look')")
    assert page.evaluate("document.querySelectorAll('[data-deed]').length") == 0
    # The browser itself says that a deed was refused: the name that exists already.
    assert [each for each in page.complaints if "422" not in each] == []


STATE = "document.querySelector('[data-claim={}]')?.dataset.state"


def test_what_goes_wrong_is_seen(local_store: StoreUnderTest, serve: Callable[..., Server], page: Browser) -> None:
    server, store = serve(local_store), Away(local_store.location)
    with server.connect("disk") as client:
        client.write(0, b"x" * 4096)
        client.flush()
        page.open(address(server))
        page.until(f"{STATE.format('answers')} === 'good' && {STATE.format('durable')} === 'good'")
        store.leave()
        client.write(0, b"y" * 4096)
        page.until(f"{STATE.format('answers')} === 'bad' && {STATE.format('durable')} === 'bad'")
        assert "the store fails since" in page.evaluate("document.getElementById('problems').textContent")
        assert page.evaluate("document.title").startswith("! ")
        store.come_back()
        page.until(f"{STATE.format('answers')} === 'good' && {STATE.format('durable')} === 'good'")
        server.send(signal.SIGSTOP)
        try:
            page.until("document.querySelectorAll('[data-state=unknown]').length === 5")
            assert "nothing heard since" in page.evaluate("document.getElementById('live').textContent")
        finally:
            server.send(signal.SIGCONT)
        page.until(f"{STATE.format('durable')} === 'good'")
        client.flush()
    server.stop()
    page.until("document.getElementById('live').textContent.includes('cannot be reached')")


AWAY = b"HTTP/1.1 503 So\r\nContent-Length: 0\r\n\r\n"
SLOW_ROWS = """[...document.querySelectorAll("[data-slow]")].map((one) =>
    [one.dataset.slow, Number(one.dataset.value), one.closest("tr").textContent])"""


def test_what_a_client_waited_for_is_seen(minio: RunningMinio, serve: Callable[..., Server], page: Browser) -> None:
    """A flush while the store is away, and after it; and the curves, which begin before the page is opened."""
    with WaywardProxy(minio.endpoint) as proxy:
        server = serve(minio_store(minio, f"slow-{uuid.uuid4().hex[:12]}", endpoint=proxy.endpoint))
        with server.connect("disk") as client:
            proxy.decide = lambda method, path: AWAY
            client.write(0, b"x" * 4096)
            client.submit(CMD_FLUSH)
            page.open(address(server))
            page.until("document.querySelector('[data-slow=flush]')?.closest('tr').textContent.includes('under way')")
            assert "under way for" in page.evaluate("document.querySelector('#clients tbody tr').textContent")
            proxy.decide = lambda method, path: None
            assert not client.receive().error
            page.until("document.querySelector('[data-slow=flush]')?.closest('tr').textContent.includes('done')")
            told: Any = server.host.json("trace", "--store", server.location)
            shown = page.evaluate(SLOW_ROWS)
            assert [(one["operation"], pytest.approx(one["seconds"])) for one in reversed(told)] == [
                (name, took) for name, took, _ in shown
            ]
            assert "log " in next(text for name, _, text in shown if name == "flush")
            page.until("document.querySelector('[data-curve=received] .line').getAttribute('d').startsWith('M')")
            accessible(page)
    assert page.complaints == []
