"""The keys object of a store for tests: its password costs as little as the program accepts.

What a password costs stands in the keys object (docs/format.md), and a store with that object and no other is one whose
making was interrupted, with which the program goes on. So a server of a test starts without the second of Argon2id that
the default cost takes. Stores that the program makes itself, as in the tests of `init`, have that.
"""

import asyncio
import contextlib
import io
import os
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from minio import Minio
from minio.error import MinioException
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from storage.crypto import keys
from storage.crypto.keyslots import MEMORY_KIB_MIN, Cost
from storage.env import RealEnv
from storage.objects.local import LocalStore
from storage.objects.memory import MemoryStore

T = TypeVar("T")

LEAST = Cost(memory_kib=MEMORY_KIB_MIN, passes=1, lanes=1)


def prepare(location: str, variables: Mapping[str, str], password: str) -> None:
    """Put a keys object into the store at `location`, a URL reached with these variables or a path, unless it has one.
    A store that cannot be reached is left to the program, which says so.
    """
    url = urlsplit(location)
    if url.scheme == "s3":
        with contextlib.suppress(HTTPError, MinioException):
            _into_bucket(url.netloc, url.path.strip("/"), variables, password)
    else:
        _into_folder(Path(unquote(url.path) if url.scheme == "file" else location), password)


def _into_folder(folder: Path, password: str) -> None:
    if any(folder.glob(f"{keys.KEYS_PREFIX}*")) or any(folder.glob("spare/*.keys")):
        return
    env = RealEnv()

    async def make() -> None:
        store = LocalStore(folder, env)  # the modes of files and folders are those of the program
        await keys.create(store, os.fsencode(password), env, LEAST)
        await store.close()

    _run(make)
    env.close()


def _into_bucket(bucket: str, prefix: str, variables: Mapping[str, str], password: str) -> None:
    client = Minio(
        variables["AWS_ENDPOINT_URL_S3"].removeprefix("http://"),
        access_key=variables["AWS_ACCESS_KEY_ID"],
        secret_key=variables["AWS_SECRET_ACCESS_KEY"],
        region=variables["AWS_REGION"],
        secure=False,
        http_client=PoolManager(timeout=10, retries=False),
    )
    if any(any(client.list_objects(bucket, prefix=f"{prefix}/{part}")) for part in (keys.KEYS_PREFIX, "spare/")):
        return
    env = RealEnv()

    async def make() -> bytes:
        store = MemoryStore()
        await keys.create(store, os.fsencode(password), env, LEAST)
        return await store.get(keys.keys_name(1))

    content = _run(make)
    env.close()
    client.put_object(bucket, f"{prefix}/{keys.keys_name(1)}", io.BytesIO(content), len(content))


def _run(make: Callable[[], Coroutine[None, None, T]]) -> T:
    """In a thread of its own, since the test may run in a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(make())).result()
