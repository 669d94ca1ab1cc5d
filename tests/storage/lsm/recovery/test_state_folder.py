"""Where state lies by default: for services, for root and for users."""

import os
from pathlib import Path

import pytest

from storage.lsm.recovery.state_folder import default_state_folder


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    assert default_state_folder({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == Path("/var/lib/a")
    assert default_state_folder({"XDG_STATE_HOME": "/x"}) == Path("/x/nbdserver")
    assert default_state_folder({}) == Path("/home/u/.local/state/nbdserver")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_folder({"XDG_STATE_HOME": "/x"}) == Path("/var/lib/nbdserver")
