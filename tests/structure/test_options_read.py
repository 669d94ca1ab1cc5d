"""Every option of an engine is read by the part that owns it: one that nobody asks for is none."""

import re

import msgspec

from storage.lsm import options
from tests.structure.sources import ROOT


def option_names() -> set[str]:
    structs = (one for one in vars(options).values() if isinstance(one, type) and issubclass(one, msgspec.Struct))
    return {name for one in structs if one.__module__ == options.__name__ for name in one.__struct_fields__}


def read_names() -> set[str]:
    files = [path for path in (ROOT / "storage").rglob("*.py") if path.name != "options.py"]
    return {name for path in files for name in re.findall(r"\.([a-z_]+)\b", path.read_text())}


def test_every_option_is_read() -> None:
    assert option_names() - read_names() == set()


def test_the_test() -> None:
    assert {"atomic_bytes_max", "prune_after", "rows_per_part"} <= option_names()
    assert "no_such_option" not in read_names()
