"""The rules of the dashboard's port: whom it answers, what may be done with which token, what a browser is told."""

import asyncio
import re

import pytest
from yarl import URL

from nbdserver.dashboard.page_files import ASSETS, CONTENT_TYPES
from nbdserver.dashboard.web import STREAMS_MAX, Dashboard
from storage import Store
from tests.nbdserver.dashboard.conftest import TOKENS, Asker

MIB = 1 << 20
CREATE = {"type": "create-device", "name": "disk", "size": MIB}
GETS = ("/v1/about", "/v1/events", "/v1/map/disk")
FILE_LINES_MAX = 350


async def test_the_page_needs_no_token_and_says_nothing_of_the_server(asker: Asker, store: Store) -> None:
    await store.create_device("secret-name", MIB)
    paths = ["/", *(f"/assets/{path.name}" for path in ASSETS.iterdir() if path.suffix in CONTENT_TYPES)]
    assert len(paths) > 10
    for path in paths:
        status, headers, content = await asker.ask("GET", path)
        assert status == 200
        assert b"secret-name" not in content
        assert headers["Content-Type"].startswith(("text/", "image/svg"))


async def test_all_that_the_page_loads_is_here(asker: Asker) -> None:
    content = (await asker.ask("GET", "/"))[2].decode()
    wanted = {name.removeprefix("/assets/") for name in re.findall(r'(?:href|src)="([^"#]+)"', content)}
    for path in ASSETS.glob("*.js"):
        wanted |= {name.removeprefix("./") for name in re.findall(r'from "([^"]+)"', path.read_text())}
    assert {path.name for path in ASSETS.iterdir()} == wanted | {"index.html"}


def test_no_file_of_the_page_is_too_long_or_sets_anything_but_text() -> None:
    for path in ASSETS.iterdir():
        text = path.read_text()
        assert len(text.splitlines()) <= FILE_LINES_MAX, path.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|https?://(?!www\.w3\.org)", text
        )
        assert not re.search(r'\sstyle="|\son[a-z]+="', text), path.name


@pytest.mark.parametrize("path", ["/", "/assets/main.js", "/assets/none.js", "/v1/about", "/v1/none"])
async def test_every_answer_tells_the_browser_what_it_may_do(asker: Asker, path: str) -> None:
    for token in (None, TOKENS.full):
        _, headers, _ = await asker.ask("GET", path, token)
        policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in headers
        assert "Access-Control-Allow-Origin" not in headers


async def test_nothing_of_the_server_without_a_token(asker: Asker) -> None:
    for path in GETS:
        for token in (None, "", "0" * 40, TOKENS.full[:-1], TOKENS.full.upper() + "\u00e9"):
            given = {} if token is None else {"Authorization": f"Bearer {token}"}
            status, headers, answer = await asker.ask("GET", path, **given)
            assert status == 401
            assert headers["WWW-Authenticate"].startswith("Bearer")
            assert "nbdserver dashboard" in answer["message"]
        assert await asker.status("GET", f"{path}?token={TOKENS.full}") == 401
        assert await asker.status("GET", path, Cookie=f"token={TOKENS.full}") == 401
        assert await asker.status("GET", path, Authorization=f"Basic {TOKENS.full}") == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.1.2.3", "localhost.", "", "a b", "x@localhost"]
)
async def test_a_name_that_was_made_to_lead_here_is_refused(asker: Asker, host: str) -> None:
    for path in ("/", "/assets/main.js", "/v1/about"):
        assert await asker.status("GET", path, TOKENS.full, Host=host) in (400, 421)
        assert await asker.status("GET", path, TOKENS.full, Host=f"{host}:{asker.url.rpartition(':')[2]}") in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "disks.example", "disks.example:10810"])
async def test_its_own_names_are_answered(asker: Asker, host: str) -> None:
    assert await asker.status("GET", "/v1/about", TOKENS.full, Host=host) == 200


async def test_a_change_comes_from_the_page_itself(asker: Asker, store: Store) -> None:
    own = asker.url
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": own.replace("http:", "https:")},
        {"Origin": own.rpartition(":")[0] + ":1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": own},
    ):
        status, _, answer = await asker.ask("POST", "/v1/operations", TOKENS.full, CREATE, **headers)
        assert (status, answer["message"]) == (403, "only the dashboard's own page may ask for that")
    assert store.names() == ()
    for headers in ({}, {"Origin": own}, {"Origin": own, "Sec_Fetch_Site": "same-origin"}):
        name = f"disk{len(store.names())}"
        assert (await asker.ask("POST", "/v1/operations", TOKENS.full, {**CREATE, "name": name}, **headers))[0] == 200
    assert store.names() == ("disk0", "disk1", "disk2")


async def test_a_form_of_another_page_is_no_operation(asker: Asker, store: Store) -> None:
    """What a browser sends without asking first: a form, or plain text."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        async with asker.session.post(
            asker.url + "/v1/operations",
            data=b'{"type":"create-device","name":"disk","size":4096}',
            headers={"Content-Type": kind, "Authorization": f"Bearer {TOKENS.full}"},
        ) as answer:
            assert answer.status == 415
    assert store.names() == ()


async def test_nothing_changes_by_get_and_other_methods_are_none(asker: Asker, store: Store) -> None:
    assert await asker.status("GET", "/v1/operations", TOKENS.full) == 405
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
        for path in ("/", "/v1/about", "/v1/operations"):
            assert await asker.status(method, path, TOKENS.full) == 405
            assert await asker.status(method, path, Origin="http://evil.example") == 403
    for path in GETS:
        assert await asker.status("POST", path, TOKENS.full) in (404, 405)
    assert store.names() == ()


async def test_a_mistake_of_the_server_is_an_answer_like_any_other(
    asker: Asker, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(store.pictures, "device_map", fails)
    status, headers, answer = await asker.ask("GET", "/v1/map/disk", TOKENS.full)
    assert (status, answer["message"]) == (500, "the server met an error of its own; its log says more")
    assert "Content-Security-Policy" in headers
    assert "dashboard_request_failed" in caplog.text


async def test_a_stream_has_no_head(asker: Asker) -> None:
    assert await asker.status("HEAD", "/v1/events", TOKENS.full) == 405
    assert await asker.status("HEAD", "/v1/about", TOKENS.full) == 200


async def test_a_token_that_only_looks_changes_nothing(asker: Asker, store: Store) -> None:
    await store.create_device("there", MIB)
    for operation in (CREATE, {"type": "delete-device", "name": "there"}, {"type": "flush"}, {"type": "list-devices"}):
        status, _, answer = await asker.ask("POST", "/v1/operations", TOKENS.read_only, operation)
        assert (status, answer["message"]) == (403, "this token may only look")
    assert store.names() == ("there",)
    assert (await asker.ask("GET", "/v1/about", TOKENS.read_only))[2]["access"] == "read-only"
    assert (await asker.ask("GET", "/v1/about", TOKENS.full))[2]["access"] == "full"
    assert (await asker.ask("GET", "/v1/map/there", TOKENS.read_only))[0] == 200


async def test_deeds_are_the_operations_of_commands(asker: Asker, store: Store) -> None:
    async def done(**operation: object) -> object:
        status, _, answer = await asker.ask("POST", "/v1/operations", TOKENS.full, operation)
        assert status == 200, answer
        return answer

    await done(**CREATE)
    await done(type="resize-device", name="disk", size=2 * MIB, shrink=False)
    await done(type="create-snapshot", devices=["disk"], snapshot="monday")
    await done(type="clone-device", device="disk", snapshot="monday", new="copy")
    assert [(info.name, info.size) for info in store.devices()] == [("copy", 2 * MIB), ("disk", 2 * MIB)]
    await done(type="delete-snapshot", device="disk", snapshot="monday")
    await done(type="delete-device", name="disk")
    assert store.names() == ("copy",)


@pytest.mark.parametrize(
    ("operation", "status", "sentence"),
    [
        ({"type": "list-clients"}, 403, "use the command"),
        ({"type": "disconnect-client", "id": 1}, 403, "use the command"),
        ({"type": "format-everything"}, 422, "does not know this operation"),
        ({"type": "create-device", "name": "disk"}, 422, "does not know this operation"),
        ([1], 422, "does not know this operation"),
        ({"type": "delete-device", "name": "no such"}, 422, "no such"),
        ({"type": "create-device", "name": "a", "size": 7}, 422, "512"),
    ],
)
async def test_what_is_not_done_says_why(asker: Asker, operation: object, status: int, sentence: str) -> None:
    found, _, answer = await asker.ask("POST", "/v1/operations", TOKENS.full, operation)
    assert found == status
    assert sentence in answer["message"]


async def test_no_name_leads_out_of_the_assets(asker: Asker) -> None:
    for path in (
        "/assets/../web.py",
        "/assets/..%2fweb.py",
        "/assets/%2e%2e/web.py",
        "/assets/",
        "/web.py",
        "//etc/passwd",
    ):
        async with asker.session.get(URL(asker.url + path, encoded=True)) as answer:
            assert answer.status == 404


async def test_too_much_is_not_taken(asker: Asker) -> None:
    long = {**CREATE, "name": "x" * (1 << 17)}
    assert (await asker.ask("POST", "/v1/operations", TOKENS.full, long))[0] == 413


async def test_a_server_that_stops_does_nothing_more_and_ends_its_streams(asker: Asker, board: Dashboard) -> None:
    headers = {"Authorization": f"Bearer {TOKENS.full}"}
    async with asker.session.get(asker.url + "/v1/events", headers=headers) as stream:
        assert (await stream.content.readuntil(b"\n\n")).startswith(b"data: {")
        await board.quiesce()
        status, _, answer = await asker.ask("POST", "/v1/operations", TOKENS.full, CREATE)
        assert status == 422
        assert "stopping" in answer["message"]
        async with asyncio.timeout(10):
            await board.stop()
            while await stream.content.readany():
                pass


async def test_so_many_pages_and_no_more(asker: Asker) -> None:
    headers = {"Authorization": f"Bearer {TOKENS.read_only}"}
    streams = [await asker.session.get(asker.url + "/v1/events", headers=headers) for _ in range(STREAMS_MAX)]
    status, _, answer = await asker.ask("GET", "/v1/events", TOKENS.full)
    assert (status, answer["message"]) == (503, f"{STREAMS_MAX} pages are open already: close one")
    for stream in streams:
        await stream.content.readuntil(b"\n\n")
        stream.close()
