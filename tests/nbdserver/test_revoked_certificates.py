"""Lists of revoked certificates: whom they refuse, and which of several counts."""

import ssl
from pathlib import Path

import pytest

from nbdserver.tls import Credentials
from storage.env import RealEnv
from storage.errors import Invalid
from tests.nbdserver.test_tls import client_of, credentials, shake_hands
from tests.support.certificates import Authority, write_folder

AUTHORITY = Authority()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path, AUTHORITY)
    return tmp_path


def test_a_revoked_client_is_refused_once_the_list_is_read(folder: Path) -> None:
    revoked = write_folder(folder, AUTHORITY, client="once good")
    env = RealEnv()
    used = Credentials(folder, verify_peer=True, env=env)
    shake_hands(used.make_context(), client_of(folder))
    (folder / "ca-crl.pem").write_bytes(AUTHORITY.revoke(revoked))
    used.reload()
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        shake_hands(used.make_context(), client_of(folder))
    write_folder(folder, AUTHORITY, client="another")
    shake_hands(used.make_context(), client_of(folder))
    env.close()


def test_a_list_of_revoked_certificates_that_is_gone_stays_in_force(folder: Path) -> None:
    revoked = write_folder(folder, AUTHORITY, client="once good")
    (folder / "ca-crl.pem").write_bytes(AUTHORITY.revoke(revoked))
    used = credentials(folder)
    (folder / "ca-crl.pem").unlink()
    with pytest.raises(Invalid, match=r"ca-crl.pem is gone: certificates that it revoked would be taken again"):
        used.reload()
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        shake_hands(used.make_context(), client_of(folder))


@pytest.mark.parametrize(
    "lists",
    [
        AUTHORITY.revoke() + AUTHORITY.revoke(days=-1),
        AUTHORITY.revoke(days=-1) + AUTHORITY.revoke(),
        AUTHORITY.revoke() + AUTHORITY.revoke(begin=1),
        AUTHORITY.revoke() + Authority("another").revoke(days=-1),
    ],
    ids=["old behind", "old before", "next one", "of another"],
)
def test_one_list_that_is_valid_is_enough(folder: Path, lists: bytes) -> None:
    (folder / "ca-crl.pem").write_bytes(lists)
    shake_hands(credentials(folder).make_context(), client_of(folder))


def test_a_list_of_revoked_certificates_from_the_future_leaves_the_old_one(folder: Path) -> None:
    """It would refuse everybody until the clock is there."""
    env = RealEnv()
    used = Credentials(folder, verify_peer=True, env=env)
    (folder / "ca-crl.pem").write_bytes(AUTHORITY.revoke())
    used.reload()
    (folder / "ca-crl.pem").write_bytes(AUTHORITY.revoke(begin=120 / 86400))
    with pytest.raises(Invalid, match="is not valid before"):
        used.reload()
    shake_hands(used.make_context(), client_of(folder))
    env.close()
