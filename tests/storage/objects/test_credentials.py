"""Credentials from variables, files, programs and roles, as the signature of the next request shows them."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio.credentials.providers import IamAwsProvider
from urllib3 import PoolManager

from storage.env import RealEnv
from storage.errors import AccessDenied, Unavailable
from storage.objects import credentials
from storage.objects.retry import RetryingStore
from storage.objects.s3 import S3Store
from tests.storage.objects.stubs import StubServer, http, refusal

CREATED = http(200, ETag='"e"')


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own set-up, and no service that knows roles."""
    for name in ("PROFILE", "DEFAULT_PROFILE", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def provider(http_client: PoolManager) -> IamAwsProvider:
        named = any(os.environ.get(name) for name in credentials.ROLE_VARIABLES)
        return IamAwsProvider(custom_endpoint=None if named else "http://127.0.0.1:1", http_client=http_client)

    monkeypatch.setattr(credentials, "IamAwsProvider", provider)


@dataclass(frozen=True)
class Home:
    """A home folder with the files of AWS."""

    folder: Path

    def credentials(self, text: str) -> None:
        self._write(self.folder / ".aws" / "credentials", text)

    def config(self, text: str) -> None:
        self._write(self.folder / ".aws" / "config", text)

    def program(self, source: str) -> str:
        """A command that runs `source`."""
        self._write(self.folder / "program.py", source)
        return f"{sys.executable} {self.folder / 'program.py'}"

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@asynccontextmanager
async def opened(stub: StubServer, env: RealEnv) -> AsyncIterator[S3Store]:
    store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
    yield store
    await store.close()


async def key_used(stub: StubServer, store: S3Store) -> str:
    """The access key that a request is signed with."""
    stub.requests.clear()
    stub.answer(CREATED)
    await store.put("x", b"")
    return stub.requests[-1].headers["authorization"].partition("Credential=")[2].partition("/")[0]


async def test_credentials_come_from_the_shared_file(
    stub: StubServer, env: RealEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
    with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
        await store.put("x", b"")
    await store.close()
    (tmp_path / ".aws").mkdir()
    file = tmp_path / ".aws" / "credentials"
    file.write_text(
        "[default]\naws_access_key_id = one\naws_secret_access_key = s\n"
        "[work]\naws_access_key_id = two\naws_secret_access_key = s\naws_session_token = token\n"
    )
    store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
    assert await key_used(stub, store) == "one"
    await store.close()
    monkeypatch.setenv("AWS_PROFILE", "work")
    store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
    assert await key_used(stub, store) == "two"
    assert stub.requests[-1].headers["x-amz-security-token"] == "token"

    file.write_text("[work]\naws_access_key_id = renewed\naws_secret_access_key = s\n")
    assert await key_used(stub, store) == "two"
    late = env.monotonic() + 61
    monkeypatch.setattr(env, "monotonic", lambda: late)
    assert await key_used(stub, store) == "renewed"
    file.unlink()
    late += 61
    assert await key_used(stub, store) == "renewed", "known credentials were given up"
    await store.close()


async def test_credentials_come_from_a_role(stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    with StubServer() as metadata:
        role = {"AccessKeyId": "role", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
        metadata.answer(http(200, json.dumps(role).encode()))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.endpoint}/role")
        store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
        assert await key_used(stub, store) == "role"
        assert stub.requests[-1].headers["x-amz-security-token"] == "t"
        await store.close()


async def test_a_role_is_asked_again_when_the_store_does_not_take_what_it_gave(
    stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before it expires: the role was given to another instance, or its sessions were ended."""
    with StubServer() as metadata:
        role = {"SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
        metadata.answer(*(http(200, json.dumps({**role, "AccessKeyId": key}).encode()) for key in ("dead", "living")))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.endpoint}/role")
        store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
        assert await key_used(stub, store) == "dead"
        stub.answer(refusal(403, "InvalidAccessKeyId"))
        with pytest.raises(AccessDenied):
            await store.list("")
        assert await key_used(stub, store) == "living"
        await store.close()


ROLE = {"AccessKeyId": "role", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        1,
        "text",
        {},
        {**ROLE, "Expiration": 1},
        {**ROLE, "AccessKeyId": 1},
        {**ROLE, "Token": ["t"]},
        {**ROLE, "Token": 0},
    ],
    ids=lambda body: json.dumps(body),
)
async def test_what_a_role_answers_in_another_shape_is_asked_for_again(
    stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch, body: object
) -> None:
    """Seen: an error of a kind that nothing expected, which ends a server."""
    with StubServer() as metadata:
        metadata.answer(http(200, json.dumps(body).encode()), http(200, json.dumps(ROLE).encode()))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.endpoint}/role")
        async with opened(stub, env) as store:
            with pytest.raises(Unavailable, match="credentials of the role could not be read"):
                await store.put("x", b"")
            assert await key_used(stub, store) == "role"


async def test_a_refused_web_identity_is_told_without_its_token(
    stub: StubServer, env: RealEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StubServer() as service:
        service.answer(http(403, b"no"))
        token = tmp_path / "token"
        token.write_text("a.secret.token")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))

        def provider(http_client: PoolManager) -> IamAwsProvider:
            return IamAwsProvider(custom_endpoint=service.endpoint, http_client=http_client)

        monkeypatch.setattr(credentials, "IamAwsProvider", provider)
        async with opened(stub, env) as store:
            with pytest.raises(Unavailable, match="403") as refused:
                await store.put("x", b"")
        assert "secret" not in str(refused.value)
        assert "WebIdentityToken" in service.requests[-1].target


async def test_a_role_that_is_away_for_a_moment_is_waited_for(
    stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: said to be without credentials, at once; after a boot who hands them out may come last."""
    with StubServer() as metadata:
        metadata.answer(http(503), http(200, json.dumps(ROLE).encode()))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.endpoint}/role")
        async with opened(stub, env) as store:
            stub.answer(CREATED)
            await RetryingStore(store, env, deadline_seconds=30.0).put("x", b"")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
async def test_a_line_break_within_credentials_is_told_without_them(
    stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for each in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(each, f"{each.lower()}\n")  # at the end of a file there often is one
    async with opened(stub, env) as store:
        assert await key_used(stub, store) == "aws_access_key_id"
    monkeypatch.setenv(name, "hid\nden")
    async with opened(stub, env) as store:
        with pytest.raises(AccessDenied, match="line break") as told:
            await store.list("")
        assert "hid" not in str(told.value)


async def test_credentials_that_are_good_stay_where_new_ones_are_not(
    stub: StubServer, env: RealEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "good")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of MinIO's may have spaces ")
    async with opened(stub, env) as store:
        assert await key_used(stub, store) == "good"
        late = env.monotonic() + 61
        monkeypatch.setattr(env, "monotonic", lambda: late)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half\nwritten")
        assert await key_used(stub, store) == "good"


async def test_variables_go_before_files(
    stub: StubServer, env: RealEnv, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.credentials("[default]\naws_access_key_id = file\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "variable")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    async with opened(stub, env) as store:
        assert await key_used(stub, store) == "variable"


async def test_a_secret_may_hold_a_percent_sign(stub: StubServer, env: RealEnv, home: Home) -> None:
    home.credentials("[default]\naws_access_key_id = file\naws_secret_access_key = 50%s\n")
    async with opened(stub, env) as store:
        assert await key_used(stub, store) == "file"


async def test_credentials_come_from_the_config_file(
    stub: StubServer, env: RealEnv, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.config("[profile work]\naws_access_key_id = config\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    async with opened(stub, env) as store:
        assert await key_used(stub, store) == "config"


async def test_credentials_come_from_a_program(
    stub: StubServer, env: RealEnv, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBDSERVER_PASSWORD", "not for others")
    program = home.program(
        "import json, os\n"
        "key = 'leak' if 'NBDSERVER_PASSWORD' in os.environ else 'program'\n"
        "print(json.dumps(dict(Version=1, AccessKeyId=key, SecretAccessKey='s', SessionToken='t',\n"
        "                      Expiration='2099-01-01T00:00:00Z')))\n"
    )
    home.config(f"[default]\ncredential_process = {program}\n")
    async with opened(stub, env) as store:
        assert await key_used(stub, store) == "program"
        assert stub.requests[-1].headers["x-amz-security-token"] == "t"


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("print('secret-thing')", "did not print credentials"),
        ("print('[]')", "did not print credentials"),
        ("print('{\"Version\": 2}')", "did not print credentials"),
        ("raise SystemExit(3)", "ended with status 3"),
        (None, "No such file"),
    ],
)
async def test_a_program_that_fails_is_named(
    stub: StubServer, env: RealEnv, home: Home, program: str | None, told: str
) -> None:
    command = "/nowhere/at/all" if program is None else home.program(program)
    home.config(f"[default]\ncredential_process = {command}\n")
    async with opened(stub, env) as store:
        with pytest.raises(AccessDenied, match=told) as caught:
            await store.put("x", b"")
        assert "secret-thing" not in str(caught.value)


async def test_expired_credentials_of_a_program_that_fails_are_waited_for(
    stub: StubServer, env: RealEnv, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"Version": 1, "AccessKeyId": "old", "SecretAccessKey": "s", "Expiration": "2001-01-01T00:00:00Z"}
    home.config(f"[default]\ncredential_process = {home.program(f'print({json.dumps(json.dumps(said))})')}\n")
    async with opened(stub, env) as store:
        assert await key_used(stub, store) == "old"
        home.program("raise SystemExit(1)")
        with pytest.raises(Unavailable, match=r"expired.*status 1"):
            await store.put("x", b"")
        home.program(f"print({json.dumps(json.dumps({**said, 'AccessKeyId': 'new'}))})")
        assert await key_used(stub, store) == "new"


async def test_ways_that_are_not_understood_are_named(stub: StubServer, env: RealEnv, home: Home) -> None:
    home.config("[default]\nsso_session = s\nregion = eu-west-1\n")
    async with opened(stub, env) as store:
        with pytest.raises(AccessDenied, match=r"sso_session.*credential_process"):
            await store.put("x", b"")


async def test_half_a_pair_is_named(stub: StubServer, env: RealEnv, home: Home) -> None:
    home.credentials("[default]\naws_access_key_id = lonely\n")
    async with opened(stub, env) as store:
        with pytest.raises(AccessDenied, match="no aws_secret_access_key"):
            await store.put("x", b"")
