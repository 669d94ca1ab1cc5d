"""The access list: whom a grant is for, what it covers, and what is said of a file that is wrong."""

import os
import pwd
from pathlib import Path

import pytest

from nbdserver.access import Identity, Mode, parse_access_list, read_access_list
from storage.errors import AccessDenied, Invalid
from storage.units import MIB

GOOD = """
# Two grants.
[[grant]]
certificate = ["backup.example.com", "urn:host:backup"]
exports = ["vol1", "tenant-a/*"]
mode = "read-only"

[[grant]]
user = [1000, "root"]
exports = ["vol1"]
mode = "read-write"
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "access.toml"
    path.write_text(GOOD)
    found = read_access_list(path)
    assert found.names_certificates
    for name in ("backup.example.com", "urn:host:backup"):
        rights = found.rights(Identity(names=("other", name)))
        assert rights.to("vol1") is Mode.READ_ONLY
        assert rights.to("tenant-a/x/y") is Mode.READ_ONLY
    for uid in (1000, pwd.getpwnam("root").pw_uid):
        assert found.rights(Identity(uid=uid)).to("vol1") is Mode.READ_WRITE
        assert found.rights(Identity(uid=uid)).to("tenant-a/x") is None


def test_who_matches_nothing_has_nothing() -> None:
    found = parse_access_list(GOOD)
    for identity in (Identity(), Identity(uid=1001), Identity(names=("backup",)), Identity(names=("vol1",))):
        assert found.rights(identity).to("vol1") is None
    assert parse_access_list("").rights(Identity(uid=0)).to("vol1") is None


def test_grants_add_up_and_the_widest_counts() -> None:
    both = parse_access_list(GOOD).rights(Identity(uid=1000, names=("backup.example.com",)))
    assert both.to("vol1") is Mode.READ_WRITE
    assert both.to("tenant-a/x") is Mode.READ_ONLY


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("vol1", ["vol1"], ["vol", "vol10", "vol1/", "a/vol1", "VOL1"]),
        ("a/*", ["a/b", "a/b/c"], ["a", "ab", "b/a/c"]),
        ("*", ["a", "a/b"], []),
        ("v[o]l?", ["v[o]l?"], ["vol1"]),
    ],
)
def test_what_a_name_covers(pattern: str, covered: list[str], not_covered: list[str]) -> None:
    text = f'[[grant]]\nuser = 0\nexports = "{pattern}"\nmode = "read-only"\n'
    rights = parse_access_list(text).rights(Identity(uid=0))
    assert [name for name in covered + not_covered if rights.to(name)] == covered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[grant]\n", "line 1"),
        ("\nallow = 1\n", "line 2: allow: there is nothing but [[grant]]"),
        ("\n[rules]\n", "line 2: rules: there is nothing but [[grant]]"),
        ("[grant]\nuser = 0\n", "line 1: grant: write [[grant]], in double brackets"),
        ("grant = 1\n", "line 1: grant: write [[grant]], in double brackets"),
        ('[[grant]]\nexports = "a"\nmode = "read-only"', "line 1: [[grant]]: needs certificate or user"),
        ('[[grant]]\nuser = 0\nmode = "read-only"', "line 1: exports: is missing"),
        ('[[grant]]\nuser = 0\nexports = []\nmode = "read-only"', "line 3: exports: is missing"),
        ('[[grant]]\nuser = 0\nexports = [1]\nmode = "read-only"', "line 3: exports: must be a name or a list"),
        ('[[grant]]\nuser = 0\nexports = [""]\nmode = "read-only"', "line 3: exports: must be a name or a list"),
        ('[[grant]]\nuser = 0\nexports = "a*"\nmode = "read-only"', "line 3: exports: 'a*': * may stand alone"),
        ('[[grant]]\nuser = 0\nexports = "*/b"\nmode = "read-only"', "line 3: exports: '*/b': * may stand alone"),
        ('[[grant]]\nuser = 0\nexports = "a"\n', "line 1: mode: must be read-only or read-write"),
        ('[[grant]]\nuser = 0\nexports = "a"\nmode = "rw"', "line 4: mode: must be read-only or read-write"),
        ('[[grant]]\nuser = 0\nexports = "a"\nmode = ["read-only"]', "line 4: mode: must be"),
        ('[[grant]]\nuser = -1\nexports = "a"\nmode = "read-only"', "line 2: user: must be the name or number"),
        ('[[grant]]\nuser = true\nexports = "a"\nmode = "read-only"', "line 2: user: must be the name or number"),
        ('[[grant]]\nuser = 4294967295\nexports = "a"\nmode = "read-only"', "line 2: user: must be the name"),
        ('[[grant]]\nuser = "no such"\nexports = "a"\nmode = "read-only"', "line 2: user: there is no user 'no such'"),
        ('[[grant]]\nuser = "\\u0000"\nexports = "a"\nmode = "read-only"', "line 2: user: there is no user"),
        ('[[grant]]\ncertificate = 1\nexports = "a"\nmode = "read-only"', "line 2: certificate: must be a name"),
        (GOOD + "colour = 1\n", "line 12: colour: is not known"),
        (GOOD + '[[grant]]\nuser = 0\n"exports" = ["x"]\nmode = 1\n', "line 15: mode: must be"),
    ],
)
def test_a_mistake_is_named_with_line_and_key(text: str, message: str) -> None:
    with pytest.raises(Invalid) as wrong:
        parse_access_list(text)
    assert message in str(wrong.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "access.toml"
    with pytest.raises(Invalid, match="cannot be read: No such file"):
        read_access_list(path)
    with pytest.raises(Invalid, match="cannot be read: Is a directory"):
        read_access_list(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="is not text in UTF-8"):
        read_access_list(path)
    path.write_text("x = = 1")
    with pytest.raises(Invalid, match=r"the access list .*access.toml is wrong: .*line 1, column"):
        read_access_list(path)
    path.write_text(GOOD + "#" * MIB)
    with pytest.raises(Invalid, match=f"longer than {MIB} bytes"):
        read_access_list(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "access.toml"
    path.write_text(GOOD)
    path.chmod(0o600)
    for folder in path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        with pytest.raises(AccessDenied, match="may not be read by this user"):
            read_access_list(path)
    finally:
        os.seteuid(0)
