"""Where a salvaged disk and its map are written to: with the real program."""

import os
import stat
from pathlib import Path

import pytest

from tests.support.other_users import NEIGHBOUR
from tests.support.program import Host
from tests.support.requirements import require

pytestmark = pytest.mark.integration


def test_the_map_is_not_written_where_somebody_elses_link_leads(host: Host, work: Path) -> None:
    """A link that leads to nothing does not exist to who follows it, and what it names was made."""
    require("root")
    store = work / "store"
    host.run("serve", str(store), "--create", "disk=1M", "--run", "true")
    shared = work / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    target, image, link = work / "target", shared / "disk.img", shared / "disk.img.map"
    link.symlink_to(target)
    os.chown(link, NEIGHBOUR, -1, follow_symlinks=False)
    salvage = ("device", "salvage", "disk", str(image), "--store", str(store))
    for more in ((), ("--overwrite",)):
        done = host.run(*salvage, *more, status=1)
        assert f"{link} is a link of user {NEIGHBOUR}, who would get the data" in done.stderr
        assert not target.exists()
        assert not image.exists(), "it was opened before anything was salvaged"
    link.unlink()
    host.run(*salvage)
    assert stat.S_IMODE(link.stat().st_mode) == 0o600
    assert "mapfile" in link.read_text().lower()
    image.unlink()
    again = host.run(*salvage, status=15)
    assert f"{link} is there already: give --overwrite" in again.stderr
    assert not image.exists()
    host.run(*salvage, "--overwrite")
    before = image.read_bytes()
    done = host.run(*salvage, "--overwrite", "--map", str(work / "typo" / "map"), status=None)
    assert done.returncode != 0
    assert image.read_bytes() == before, "what keeps the map from being written costs no image"
    done = host.run(*salvage, "--overwrite", "--map", str(shared / "." / image.name), status=1)
    assert "the map and the disk image are one file" in done.stderr
    assert image.read_bytes() == before
