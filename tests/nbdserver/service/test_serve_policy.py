"""What is refused before a store is opened, and what a reload does."""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdserver.config import ServeSettings
from nbdserver.service.serve_policy import ServePolicy
from storage.env import RealEnv
from storage.errors import Invalid
from tests.nbdserver.inside import files_of
from tests.support.certificates import Authority, write_folder

GRANT = '[[grant]]\nuser = 0\nexports = "*"\nmode = "read-only"\n'
CERTIFICATE = '[[grant]]\ncertificate = "x"\nexports = "*"\nmode = "read-only"\n'


@pytest.fixture
def env() -> Iterator[RealEnv]:
    made = RealEnv()
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    write_folder(tmp_path / "pki", Authority())
    (tmp_path / "access.toml").write_text(GRANT)
    return ServeSettings(
        store="memory://", tls="require", tls_certificates=tmp_path / "pki", access=tmp_path / "access.toml"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "no-such-host.invalid"])
def test_this_machine_may_be_talked_to_in_clear(host: str, env: RealEnv) -> None:
    ServePolicy(ServeSettings(store="memory://", tcp=(host, 0)), env)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "fe80::1%lo", "::ffff:192.0.2.1"])
def test_others_only_when_that_is_said(host: str, env: RealEnv, settings: ServeSettings) -> None:
    plain = ServeSettings(store="memory://", tcp=(host, 0))
    for refused in (plain, dataclasses.replace(settings, tcp=(host, 0), tls="on")):
        with pytest.raises(Invalid, match="in clear: use --tls require, or say --allow-plaintext"):
            ServePolicy(refused, env)
    ServePolicy(dataclasses.replace(plain, allow_plaintext=True), env)
    ServePolicy(dataclasses.replace(settings, tcp=(host, 0)), env)


def test_certificates_must_be_verified_to_be_granted_anything(settings: ServeSettings, env: RealEnv) -> None:
    assert settings.access is not None
    settings.access.write_text(CERTIFICATE)
    with pytest.raises(Invalid, match="names certificates, which only --tls-verify-peer checks"):
        ServePolicy(settings, env)
    ServePolicy(dataclasses.replace(settings, tls_verify_peer=True), env)


def test_a_reload_keeps_what_is_good(settings: ServeSettings, env: RealEnv, caplog: pytest.LogCaptureFixture) -> None:
    """Each of the two by itself, with one sentence about the other."""
    assert settings.access is not None
    assert settings.tls_certificates is not None
    used = ServePolicy(settings, env)
    assert used.credentials is not None
    certificates, access = files_of(used.credentials), used.access
    caplog.set_level(logging.ERROR)
    for text in ("nonsense", CERTIFICATE):
        settings.access.write_text(text)
        used.reload()
        assert used.access is access
        assert files_of(used.credentials) is not certificates
    (settings.tls_certificates / "server-key.pem").unlink()
    settings.access.write_text(GRANT * 2)
    certificates = files_of(used.credentials)
    used.reload()
    assert files_of(used.credentials) is certificates
    assert used.access is not None
    assert len(used.access.grants) == 2
    said = [record.getMessage() for record in caplog.records]
    assert said == ["access_list_not_reloaded"] * 2 + ["certificates_not_reloaded"]


def test_tls_without_certificates_is_refused(settings: ServeSettings, env: RealEnv) -> None:
    with pytest.raises(Invalid, match="give --tls-certificates"):
        ServePolicy(dataclasses.replace(settings, tls_certificates=None), env)
