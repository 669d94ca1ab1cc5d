"""The package: what is in the wheel, and that it works where nothing else is installed."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.program import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("package")]

TOOLS = ("pytest", "hypothesis", "mypy", "ruff", "import-linter", "coverage")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=REPOSITORY)
    return folder


def test_the_wheel_has_the_program_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"nbdserver", "storage"}
    sources = {
        str(path.relative_to(REPOSITORY))
        for top in ("nbdserver", "storage")
        for path in (REPOSITORY / top).rglob("*.py")
    }
    assert sources == {name for name in names if name.endswith(".py")}
    assets = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "nbdserver/dashboard/assets").iterdir()}
    assert len(assets) > 10
    assert assets == {name for name in names if not name.endswith(".py") and ".dist-info/" not in name}
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_source_archive_has_what_a_reader_needs(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"README.md", "LICENSE", "scripts/recover", "docs/format.md", "docs/systemd/nbdserver.service"} <= names


def test_it_works_without_development_tools(built: Path, work: Path) -> None:
    (wheel,) = built.glob("*.whl")
    pins = re.findall(r"^[a-z0-9-]+==[^\\\n]+", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    constraints = work / "constraints.txt"
    constraints.write_text("\n".join(pins))
    place = work / "venv"
    run(sys.executable, "-m", "venv", place)
    pip = (str(place / "bin" / "pip"), "--quiet", "--disable-pip-version-check")
    run(*pip, "install", "--no-compile", "--constraint", constraints, wheel)
    installed = {line.split("==")[0] for line in run(*pip, "list", "--format=freeze").splitlines()}
    assert not installed & set(TOOLS)
    environment = {
        "PYTHONPATH": "",
        "NBDSERVER_PASSWORD": "a password",
        "NBDSERVER_STATE_FOLDER": str(work / "state"),
        "NBDSERVER_RUNTIME_FOLDER": str(work / "run"),
    }
    program = place / "bin" / "nbdserver"
    assert "0.1.0" in run(program, "--version", environment=environment, cwd=work)
    store = str(work / "store")
    said = run(
        program, "serve", store, "--create", "disk=1MiB", "--run", f"{program} status --store {store} --json",
        environment=environment, cwd=work,
    )  # fmt: skip
    assert '"devices":1' in said.replace(" ", ""), said
    assert run(program, "device", "list", "--store", store, environment=environment, cwd=work).startswith("disk")
