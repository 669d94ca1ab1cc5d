"""Files that hold disks: holes, pipes, and what is refused."""

import contextlib
import os
import resource
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdserver.cli.devices.disk_images import HOLE_BYTES, PIECE_BYTES, ImageReader, ImageWriter, data_runs
from nbdserver.cli.shared.exit_status import CommandFailed

MIB = 1 << 20


def read_whole(path: str) -> tuple[int | None, list[tuple[int, bytes]], list[int]]:
    reader = ImageReader(path)
    steps: list[int] = []
    pieces = list(reader.pieces(steps.append))
    reader.close()
    return reader.size, pieces, steps


def write_whole(path: str, pieces: list[tuple[int, bytes]], size: int, *, overwrite: bool = False) -> None:
    writer = ImageWriter(path, overwrite=overwrite)
    for offset, data in pieces:
        writer.write(offset, data)
    writer.finish(size)
    writer.close()


@given(st.lists(st.sampled_from([b"\0" * HOLE_BYTES, b"x" * HOLE_BYTES]), max_size=12), st.integers(0, 4095))
def test_runs_are_all_that_is_not_zeros(sectors: list[bytes], tail: int) -> None:
    data = b"".join(sectors) + b"y" * tail
    rebuilt = bytearray(len(data))
    last = -1
    for start, end in data_runs(data):
        assert last < start < end
        assert start % HOLE_BYTES == 0
        assert data[start:end].count(b"\0" * HOLE_BYTES) == 0
        rebuilt[start:end] = data[start:end]
        last = end
    assert rebuilt == data


def test_standard_input_begins_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `(head -c 1M > boot; nbdserver device import vol1 -) < image`, which imported the first MiB too."""
    path = tmp_path / "image"
    path.write_bytes(b"x" * MIB + bytes(MIB) + b"y" * MIB)
    with path.open() as file:
        os.lseek(file.fileno(), MIB, os.SEEK_SET)
        monkeypatch.setattr("sys.stdin", file)
        size, pieces, steps = read_whole("-")
    assert size == 2 * MIB
    assert b"".join(data for _, data in pieces) == b"y" * MIB
    assert pieces[0][0] == MIB
    assert steps[-1] == size


def test_holes_and_zeros_are_not_read_into_pieces(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(64 * MIB + 700)
        os.pwrite(file.fileno(), b"a", 5 * MIB + 17)
        os.pwrite(file.fileno(), bytes(MIB), 20 * MIB)
        os.pwrite(file.fileno(), b"b", 64 * MIB + 600)
    size, pieces, steps = read_whole(str(path))
    assert size == 64 * MIB + 700
    assert [(offset, len(data)) for offset, data in pieces] == [(5 * MIB, PIECE_BYTES), (64 * MIB, 700)]
    assert pieces[0][1].index(b"a") == 17
    assert steps == sorted(steps)
    assert steps[-1] == size


def test_a_file_that_is_one_hole(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.touch()
    assert read_whole(str(path)) == (0, [], [0])
    os.truncate(path, 10 * MIB)
    assert read_whole(str(path)) == (10 * MIB, [], [10 * MIB])


def test_a_pipe_has_no_size_and_no_holes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = bytes(PIECE_BYTES) + os.urandom(PIECE_BYTES + 5)
    feeder = threading.Thread(target=lambda: path.write_bytes(data))
    feeder.start()
    size, pieces, steps = read_whole(str(path))
    feeder.join()
    assert size is None
    assert [offset for offset, _ in pieces] == [PIECE_BYTES, 2 * PIECE_BYTES]
    assert b"".join(piece for _, piece in pieces) == data[PIECE_BYTES:]
    assert steps[-1] == len(data)


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"x" * 4 * PIECE_BYTES)
    reader = ImageReader(str(path))
    pieces = reader.pieces(lambda _: None)
    next(pieces)
    os.truncate(path, PIECE_BYTES + 10)
    with pytest.raises(CommandFailed, match="became shorter"):
        next(pieces)
    reader.close()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CommandFailed, match=str(path)):
            ImageReader(str(path))


def test_written_files_are_sparse(tmp_path: Path) -> None:
    path = tmp_path / "out"
    piece = bytes(HOLE_BYTES) + b"d" * HOLE_BYTES + bytes(MIB)
    write_whole(str(path), [(8 * MIB, piece), (32 * MIB, b"e" * 100)], 64 * MIB)
    expected = bytearray(64 * MIB)
    expected[8 * MIB : 8 * MIB + len(piece)] = piece
    expected[32 * MIB : 32 * MIB + 100] = b"e" * 100
    assert path.read_bytes() == expected
    assert path.stat().st_blocks * 512 <= 4 * HOLE_BYTES
    assert path.stat().st_mode & 0o077 == 0


def test_a_write_that_is_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    """As on a disk that gets full: the part that there is room for is written, and the next one says why not."""
    path, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.closing(ImageWriter(str(path), overwrite=False)) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB + 1000, limits[1]))
        try:
            with pytest.raises(CommandFailed, match="File too large"):
                writer.write(0, b"x" * 2 * MIB)
            assert path.stat().st_size == MIB + 1000
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not path.exists()


def test_a_pipe_gets_the_zeros_too(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received: list[bytes] = []
    drain = threading.Thread(target=lambda: received.append(path.read_bytes()))
    drain.start()
    write_whole(str(path), [(3 * MIB, b"x")], 4 * MIB, overwrite=True)
    drain.join()
    assert received == [bytes(3 * MIB) + b"x" + bytes(MIB - 1)]


def test_data_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"precious" * 1000)
    with pytest.raises(CommandFailed, match="--overwrite"):
        ImageWriter(str(path), overwrite=False)
    assert path.read_bytes() == b"precious" * 1000
    write_whole(str(path), [(0, b"new")], 512, overwrite=True)
    assert path.read_bytes() == b"new" + bytes(509)


@pytest.mark.parametrize("pieces", [[], [(64 * HOLE_BYTES, b"new")]])
def test_what_is_there_stays_until_something_comes(tmp_path: Path, pieces: list[tuple[int, bytes]]) -> None:
    """An export may fail before that; and then nothing of what was there shows through the holes."""
    path = tmp_path / "out"
    path.write_bytes(b"x" * MIB)
    with contextlib.closing(ImageWriter(str(path), overwrite=True)):
        assert path.stat().st_size == MIB
    assert path.read_bytes() == b"x" * MIB
    write_whole(str(path), pieces, MIB, overwrite=True)
    assert path.read_bytes().replace(b"new", b"") == bytes(MIB - 3 * len(pieces))


def test_an_empty_file_is_fair_game(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch()
    write_whole(str(path), [(0, b"new")], 512)
    assert path.stat().st_size == 512


def test_a_file_that_was_not_finished_is_gone_again(tmp_path: Path) -> None:
    path = tmp_path / "out"
    writer = ImageWriter(str(path), overwrite=False)
    writer.write(0, b"half")
    writer.close()
    assert not path.exists()
    path.touch()
    writer = ImageWriter(str(path), overwrite=False)
    writer.close()
    assert path.exists(), "it was somebody else's"


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="No space left"):
        write_whole("/dev/full", [(0, b"x")], 1)


def test_nothing_is_written_to_a_file_that_has_another_name(tmp_path: Path) -> None:
    path, other = tmp_path / "out", tmp_path / "other"
    other.touch()
    os.link(other, path)
    for overwrite in (False, True):
        with pytest.raises(CommandFailed, match="has another name"):
            ImageWriter(str(path), overwrite=overwrite)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
@pytest.mark.parametrize("kind", ["file", "link", "link to ours", "dangling link", "pipe"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_nobody_gets_the_data_by_having_been_first(tmp_path: Path, kind: str, overwrite: bool) -> None:
    path, target = tmp_path / "out", tmp_path / "target"
    if kind == "file":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
        if kind != "dangling link":
            target.touch()
            os.chown(target, 0 if kind == "link to ours" else 33, -1)
    os.chown(path, 33, -1, follow_symlinks=False)
    path.chmod(0o666) if kind == "file" else None
    with pytest.raises(CommandFailed, match="user 33, who would get the data"):
        ImageWriter(str(path), overwrite=overwrite)
    assert not target.exists() or target.stat().st_size == 0


def test_a_link_of_ours_leads_where_it_says(tmp_path: Path) -> None:
    """As those below /dev/disk do, and /dev/stdout."""
    path, target = tmp_path / "out", tmp_path / "target"
    target.touch()
    path.symlink_to(target)
    write_whole(str(path), [(0, b"new")], 512)
    assert target.stat().st_size == 512
    assert path.is_symlink()


def test_what_took_the_place_of_an_unfinished_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    writer = ImageWriter(str(path), overwrite=False)
    path.unlink()
    path.write_text("somebody else's")
    writer.close()
    assert path.read_text() == "somebody else's"
