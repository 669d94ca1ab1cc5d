"""A folder store whose filesystem goes and comes back as another one, as a network's does."""

import errno
import os
from pathlib import Path

import pytest

from storage.errors import Unavailable
from storage.objects.local import LocalStore


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.ENODEV])
async def test_it_is_told_that_only_a_restart_helps(
    local: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What was opened of it stays stale, though the path works again."""
    await local.create("manifest/1", b"x")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").mkdir()

    def stale(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", stale)
        with pytest.raises(Unavailable, match="put it back, or restart"):
            await local.get("manifest/1")
