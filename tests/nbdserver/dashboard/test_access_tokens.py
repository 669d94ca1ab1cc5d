"""The tokens of the dashboard, and the file that they are kept in."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdserver.dashboard.access_tokens import SECRET_BYTES, TOKEN_HEX, kept_tokens
from storage.env import RealEnv
from storage.errors import AccessDenied, Invalid


@pytest.fixture
def env() -> Iterator[RealEnv]:
    made = RealEnv()
    yield made
    made.close()


def test_they_stay_until_their_file_is_deleted(work: Path, env: RealEnv) -> None:
    path = work / "state" / "dashboard.secret"
    first = kept_tokens(path, env)
    assert first == kept_tokens(path, env)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len({first.full, first.read_only}) == 2
    assert all(len(token) == TOKEN_HEX for token in (first.full, first.read_only))
    assert first.full.encode() not in path.read_bytes()
    path.unlink()
    assert kept_tokens(path, env) != first


def test_what_each_allows(work: Path, env: RealEnv) -> None:
    tokens = kept_tokens(work / "secret", env)
    assert tokens.allows(tokens.full) == "full"
    assert tokens.allows(tokens.read_only) == "read-only"
    for other in ("", tokens.full[:-1], tokens.full + "0", tokens.full.upper(), "\udce9", "0" * TOKEN_HEX):
        assert tokens.allows(other) is None


def test_a_file_that_is_not_safe_is_not_used(work: Path, env: RealEnv) -> None:
    path = work / "secret"
    path.write_bytes(b"x" * SECRET_BYTES)
    path.chmod(0o640)
    with pytest.raises(AccessDenied, match="other users may read"):
        kept_tokens(path, env)
    path.chmod(0o600)
    kept_tokens(path, env)
    for content in (b"short", b"x" * (SECRET_BYTES + 1)):
        path.write_bytes(content)
        with pytest.raises(Invalid, match="delete it"):
            kept_tokens(path, env)
    path.unlink()
    path.symlink_to(work / "elsewhere")
    with pytest.raises(AccessDenied, match="link"):
        kept_tokens(path, env)
    assert not os.path.exists(work / "elsewhere")
    open_to_all = work / "open"
    open_to_all.mkdir(mode=0o777)
    open_to_all.chmod(0o777)
    with pytest.raises(AccessDenied, match="other users can write"):
        kept_tokens(open_to_all / "secret", env)
