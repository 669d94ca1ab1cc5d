"""What of a host's files only this user, or root, can have put where it is."""

import os
from pathlib import Path

import pytest

from storage.errors import AccessDenied
from storage.trusted_files import create_new, made_by_root, open_own, replace_file, trusted_folder

NEIGHBOUR = 33

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


def test_a_folder_of_ours_and_what_leads_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True, mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert trusted_folder(folder) == trusted_folder(link) == folder.resolve()
    with pytest.raises(FileNotFoundError):
        trusted_folder(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        trusted_folder(tmp_path / "file")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(AccessDenied, match="other users can write"):
        trusted_folder(folder)
    if mode & 0o1000:
        # As in /tmp nobody touches what is another's, so a folder of ours in it is safe.
        assert trusted_folder(folder / "b") == trusted_folder(folder, shared=True) / "b"
    else:
        for shared in (False, True):
            with pytest.raises(AccessDenied, match=f"can write to {folder}"):
                trusted_folder(folder / "b", shared=shared)


@needs_root
@pytest.mark.parametrize("which", ["folder", "above", "link"])
def test_a_folder_that_is_another_users(tmp_path: Path, which: str) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(folder)
    os.chown({"folder": folder, "above": folder.parent, "link": link}[which], NEIGHBOUR, -1, follow_symlinks=False)
    with pytest.raises(AccessDenied, match=f"user {NEIGHBOUR}"):
        trusted_folder(link)
    if which == "folder":
        assert trusted_folder(link, users=frozenset((0, NEIGHBOUR))) == folder.resolve()


@needs_root
def test_what_only_root_can_have_made(tmp_path: Path) -> None:
    assert made_by_root(Path("/usr/bin"))
    assert not made_by_root(tmp_path), "everybody makes folders in /tmp"
    assert not made_by_root(Path("/usr/bin/missing"))


def test_a_new_file_goes_through_no_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(FileExistsError):
        create_new(link, 0o600)
    assert not target.exists()
    os.close(create_new(target, 0o600))
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_file_of_ours_is_opened_and_no_link(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.close(open_own(path, os.O_RDWR | os.O_CREAT))
    os.close(open_own(path, os.O_RDONLY))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(AccessDenied, match="is a link"):
        open_own(tmp_path / "link", os.O_RDONLY)
    os.link(path, tmp_path / "second")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe"):
        with pytest.raises(AccessDenied, match="no plain file of its own"):
            open_own(tmp_path / name, os.O_RDWR)


@needs_root
def test_a_file_of_another_user_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.chown(path, NEIGHBOUR, -1)
    with pytest.raises(AccessDenied, match=f"belongs to user {NEIGHBOUR}"):
        open_own(path, os.O_RDONLY)


def test_a_file_is_replaced_whole_and_a_link_by_a_file(tmp_path: Path) -> None:
    path, target = tmp_path / "file", tmp_path / "target"
    target.write_text("precious")
    path.symlink_to(target)
    (tmp_path / f".file.{os.getpid()}").symlink_to(target)  # what a crash left, or somebody put there
    replace_file(path, b"new", 0o644)
    assert (path.read_bytes(), path.is_symlink(), target.read_text()) == (b"new", False, "precious")
    assert sorted(os.listdir(tmp_path)) == ["file", "target"]


def test_a_file_is_whole_though_the_kernel_takes_a_byte_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1]))
    replace_file(tmp_path / "file", b"12345\n", 0o644)
    assert (tmp_path / "file").read_bytes() == b"12345\n"
