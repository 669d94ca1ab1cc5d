"""Completion by a shell: what it offers is what the program has, also where the configuration file is wrong."""

import subprocess
from pathlib import Path

import pytest

from tests.support.program import COMMAND, Host
from tests.support.requirements import require

pytestmark = pytest.mark.integration

ASK = r"""
PATH=$1:$PATH
source <(nbdserver completion bash)
echo "this is = not right" > nbdserver.toml
COMP_WORDS=(nbdserver "${@:2}") COMP_CWORD=$(($# - 1))
_nbdserver_completion nbdserver
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["dev"], {"device"}),
        (["device", ""], {"clone", "create", "delete", "export", "import", "list"}),
        (["serve", "--rea"], {"--read-only"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["nothing-of-this-name"], {""}),
    ],
)
def test_bash_offers_what_there_is(host: Host, work: Path, words: list[str], offered: set[str]) -> None:
    require("bash")
    (work / "nbdserver").write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    (work / "nbdserver").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", work, *words],
        cwd=host.folder, env=host.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert offered <= set(done.stdout.splitlines()), done.stderr
    assert not done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_theirs(host: Host, shell: str) -> None:
    script = host.run("completion", shell).stdout
    assert f"_NBDSERVER_COMPLETE={shell}_complete" in script
