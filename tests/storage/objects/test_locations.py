"""How a store's address is read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import Invalid
from storage.objects.local import LocalStore
from storage.objects.locations import open_location
from storage.objects.memory import MemoryStore


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/var/disks", "file:///var/disks"),
        ("/var/disks/../other/", "file:///var/other"),
        ("file:///var/disks", "file:///var/disks"),
        ("file://localhost/var/disks", "file:///var/disks"),
        ("file:///with%20space", "file:///with%20space"),
        ("/with space", "file:///with%20space"),
        ("memory://", "memory://"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket/a?endpoint=http://localhost:9000", "s3://bucket/a?endpoint=http://localhost:9000"),
        ("s3://bucket?endpoint=https://minio.example.org", "s3://bucket?endpoint=https://minio.example.org"),
    ],
)
async def test_an_address_names_a_store(env: RealEnv, location: str, url: str) -> None:
    store = open_location(location, env)
    assert store.url == url
    again = open_location(store.url, env)
    assert (type(again), again.url) == (type(store), url)
    await store.close()
    await again.close()


async def test_a_bare_path_is_from_here(env: RealEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_location("disks", env)
    assert isinstance(store, LocalStore)
    assert store.url == (tmp_path / "disks").as_uri()


async def test_every_memory_is_its_own(env: RealEnv) -> None:
    one, other = open_location("memory://", env), open_location("memory://", env)
    assert isinstance(one, MemoryStore)
    await one.create("a", b"")
    assert await other.list("") == []


@pytest.mark.parametrize(
    "location",
    [
        "",
        "s3://",
        "s3:///prefix",
        "s3://bucket/a//b",
        "s3://bucket/../other",
        "s3://bucket/a b",
        "s3://bucket?region=x",
        "s3://bucket?endpoint=x&region=y",
        "s3://bucket#x",
        "s3://user:hunter2@bucket/x",
        "s3://[bucket/x",
        "s3://user:hunter2@[bucket/x",
        "s3://b\u2100/x",
        "http://[",
        "file://host/folder",
        "file://",
        "file:///folder?x=y",
        "memory://x",
        "http://user:hunter2@host/bucket",
        "gs://bucket",
    ],
)
async def test_what_names_no_store_is_refused_without_repeating_secrets(env: RealEnv, location: str) -> None:
    with pytest.raises(Invalid) as caught:
        open_location(location, env)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "meant"),
    [
        ("s3:bucket/x", "s3://bucket/x;"),
        ("s3:/bucket/x", "s3://bucket/x;"),
        ("S3:bucket", "s3://bucket;"),
        ("s3//bucket/x", "s3://bucket/x;"),
        ("s3:", "s3://BUCKET/PREFIX;"),
        ("minio:bucket/x", "s3://bucket/x;"),
        ("file:rel", "write rel;"),
        ("file:/srv/disks", "file:///srv/disks;"),
        ("file//srv", "file:///srv;"),
        ("memory:", "memory://;"),
        ("gs:bucket", "s3://BUCKET/PREFIX"),
        ("c:disks", "./c:disks"),
        ("~/disks", "./~/disks"),
        ("minio://bucket/x", "any S3-compatible store is s3://"),
        ("http://127.0.0.1:9000/bucket", "AWS_ENDPOINT_URL_S3"),
        ("file://rel/x", "three slashes"),
        ("s3:///bucket/x", "s3://BUCKET/PREFIX"),
        ("s3://bucket?x=", "s3://BUCKET/PREFIX"),
    ],
)
async def test_what_looks_like_an_address_is_no_folder(env: RealEnv, location: str, meant: str) -> None:
    with pytest.raises(Invalid) as caught:
        open_location(location, env)
    assert meant in str(caught.value)


async def test_a_folder_of_a_strange_name_can_be_meant(
    env: RealEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("./s3:bucket", "./~", "dir/a:b", "S3", "s3/disks"):
        store = open_location(path, env)
        assert store.url == (tmp_path / path).as_uri()
        await store.close()
    assert open_location("S3://bucket/x", env).url == "s3://bucket/x"


def test_nothing_of_s3_is_loaded_for_a_folder() -> None:
    script = (
        "import sys; from storage.env import RealEnv; from storage.objects.locations import open_location;"
        "open_location('/tmp/x', RealEnv()); sys.exit(any(m in sys.modules for m in ('minio', 'urllib3')))"
    )
    root = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": root}, check=True)
