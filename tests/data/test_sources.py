"""Names packed into bytes, and files read by number."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data import sources
from resnets.data.sources import FolderFiles, PackedNames, read_file
from resnets.specs.errors import ImageError

NAMES = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9) | st.just("a\udcff.jpg")
)


@given(NAMES, st.data())
def test_packed_names_are_the_names(names, data):
    packed = PackedNames.of(names)
    assert list(packed) == names
    assert [packed[index - len(names)] for index in range(len(names))] == names
    assert list(pickle.loads(pickle.dumps(packed))) == names
    with pytest.raises(IndexError):
        packed[len(names)]
    chosen = data.draw(st.lists(st.sampled_from(range(len(names))))) if names else []
    assert list(packed.taken(np.array(chosen, dtype=np.int64))) == [names[index] for index in chosen]
    assert list(packed[1:-1:2]) == names[1:-1:2]


def test_files_are_read_by_number_whole_or_at_their_start(tmp_path):
    (tmp_path / "cat").mkdir()
    names = [f"cat/{number}.png" for number in range(3)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([number]) * 5)
    files = FolderFiles(tmp_path, PackedNames.of(names))
    assert len(files) == 3
    assert files.read(1) == b"\1" * 5
    assert files.read(1, most=2) == b"\1" * 2
    assert files.read(1, most=9) == b"\1" * 5
    assert files.name(2) == "cat/2.png"
    assert files.path(2) == str(tmp_path / "cat/2.png")
    some = files.taken(np.array([2, 0]))
    assert [some.read(index)[0] for index in range(len(some))] == [2, 0]


def test_a_large_file_that_comes_in_parts_is_whole(tmp_path, monkeypatch):
    content = np.random.default_rng(0).bytes(10_000)
    (tmp_path / "image").write_bytes(content)
    read = os.read
    monkeypatch.setattr(sources.os, "read", lambda file, size: read(file, min(size, 999)))
    assert read_file(tmp_path / "image") == content


def test_what_is_no_file_to_read_is_an_image_error_with_the_reason(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(11))
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 10)
    reasons = {
        "missing": "there is no such file",
        "": "it is a folder",
        "pipe": "not a regular file",
        "large": r"11 bytes, above the limit of 10",
        "null\0": "cannot be opened",
        "x" * 300: "cannot be opened .File name too long",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            read_file(os.fspath(tmp_path) + "/" + name)
    assert read_file(tmp_path / "large", most=3) == bytes(3)
