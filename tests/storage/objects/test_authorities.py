"""The file of authorities changes while a store is open: the next request reads it, and no restart is needed."""

import contextlib
import resource
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.env import RealEnv
from storage.errors import Unavailable, Untrusted
from storage.objects.authorities import Authorities
from storage.objects.s3 import S3Store
from tests.storage.objects.stubs import StubServer, certificate, hang_up, http

CREATED = http(200, ETag='"e"')

pytestmark = pytest.mark.usefixtures("aws")


def made(folder: Path) -> Path:
    folder.mkdir()
    return certificate(folder)


def serving(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process may open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_store_with_a_new_authority_is_reached_once_the_file_has_it(
    env: RealEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, bundle = made(tmp_path / "old"), made(tmp_path / "new"), tmp_path / "bundle.pem"
    shutil.copy(old, bundle)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    context = serving(old)
    with StubServer(tls=context) as stub:
        stub.answer(CREATED, hang_up, CREATED, hang_up)
        store = S3Store.from_environment("bucket", "", env, endpoint=stub.endpoint)
        await store.put("x", b"1")
        context.load_cert_chain(new)
        with pytest.raises(Unavailable):
            await store.put("x", b"the connection ends")
        for _ in range(2):
            with pytest.raises(Untrusted):
                await store.put("x", b"2")
        bundle.write_text("in the midst of being written")
        with pytest.raises(Untrusted):
            await store.put("x", b"3")
        shutil.copy(new, tmp_path / "next")
        (tmp_path / "next").rename(bundle)
        with pytest.raises(Untrusted):
            await store.put("x", b"4")
        await store.put("x", b"5")
        # And back: what is not in the file any more vouches for nobody.
        context.load_cert_chain(old)
        with pytest.raises(Unavailable):
            await store.put("x", b"the connection ends")
        for _ in range(2):
            with pytest.raises(Untrusted):
                await store.put("x", b"6")
        await store.close()
        assert len(stub.requests) == 4


def test_a_file_that_could_not_be_read_for_a_moment_is_read_as_soon_as_it_can(tmp_path: Path) -> None:
    """What changes then is who may read it, or how many files this process may open: the file itself does not."""
    bundle = tmp_path / "bundle.pem"
    shutil.copy(made(tmp_path / "a"), bundle)
    authorities = Authorities(str(bundle))
    shutil.copy(made(tmp_path / "b"), bundle)
    with no_descriptors():
        assert not authorities.read_anew()
    assert authorities.read_anew()
    assert not authorities.read_anew()


def test_a_file_is_read_once_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    shutil.copy(made(tmp_path / "a"), bundle)
    authorities = Authorities(str(bundle))
    assert not authorities.read_anew()
    shutil.copy(made(tmp_path / "b"), bundle)
    assert authorities.read_anew()
    assert not authorities.read_anew()
    bundle.unlink()
    assert not authorities.read_anew()
