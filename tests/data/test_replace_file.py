"""A file is whole or as it was, whoever else writes it."""

import os
import threading

import pytest

from resnets.data.replace_file import clear_parts, replace_file


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, b"old")
    monkeypatch.setattr("resnets.data.replace_file.os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_at_once_leave_one_whole_content(tmp_path):
    contents = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=replace_file, args=(tmp_path / "file", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() in contents
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    for name in ("file[1]", "file[1].0a1b2c3d.part", "file[1].00000000.part", "file1.0a1b2c3d.part", "other.part"):
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / "file[1].0a1b2c3d.part", (1, 1))
    clear_parts(tmp_path / "file[1]", older_than_seconds=60.0)
    assert {path.name for path in tmp_path.glob("*.part")} == {
        "file[1].00000000.part",
        "file1.0a1b2c3d.part",
        "other.part",
    }
    clear_parts(tmp_path / "file[1]")
    assert {path.name for path in tmp_path.iterdir()} == {"file[1]", "file1.0a1b2c3d.part", "other.part"}
