"""The list of images to leave out: written whole or not at all, read back, and refused by name when damaged."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.quarantine import QUARANTINE_FILE, Quarantined, read_list, read_quarantine, write_list
from resnets.specs.errors import DataError


def test_without_a_list_nothing_is_left_out(tmp_path):
    assert read_quarantine(tmp_path) == {}


@given(st.lists(st.tuples(st.text(min_size=1), st.text(), st.sampled_from(["empty", "leak", "manual"]))))
def test_what_is_written_is_read_back(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("list") / QUARANTINE_FILE
    written = [Quarantined(*entry) for entry in entries]
    write_list(path, written)
    assert read_list(path) == written
    assert read_quarantine(path.parent) == {entry.path: entry.reason for entry in written}


def test_the_file_has_the_documented_form_and_holds_any_name(tmp_path):
    write_list(
        tmp_path / QUARANTINE_FILE, [Quarantined("train/caf\u00e9/\udcff.jpg", "it is empty (0 bytes)", "empty")]
    )
    raw = (tmp_path / QUARANTINE_FILE).read_bytes()
    assert json.loads(raw) == {
        "version": 1,
        "images": [{"path": "train/caf\u00e9/\udcff.jpg", "reason": "it is empty (0 bytes)", "kind": "empty"}],
    }
    assert read_quarantine(tmp_path) == {"train/caf\u00e9/\udcff.jpg": "it is empty (0 bytes)"}
    assert [path.name for path in tmp_path.iterdir()] == [QUARANTINE_FILE]


def test_an_entry_of_a_person_needs_a_path_only(tmp_path):
    (tmp_path / QUARANTINE_FILE).write_text('{"version": 1, "images": [{"path": "a/1.jpg"}]}')
    assert read_list(tmp_path / QUARANTINE_FILE) == [Quarantined("a/1.jpg", "no reason is given", "manual")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", 'no list "images"'),
        (b'{"version": 1, "images": {}}', 'no list "images"'),
        (b'{"images": []}', "version None"),
        (b'{"version": 2, "images": []}', "version 2"),
        (b'{"version": true, "images": []}', "version True"),
        (b'{"version": 1, "images": ["a.jpg"]}', "entry 0"),
        (b'{"version": 1, "images": [{"path": "a"}, {"path": 3}]}', "entry 1"),
        (b'{"version": 1, "images": [{"path": "", "reason": "x"}]}', "entry 0"),
    ],
)
def test_a_damaged_list_is_refused_by_name(tmp_path, text, words):
    (tmp_path / QUARANTINE_FILE).write_bytes(text)
    with pytest.raises(DataError, match=words) as refused:
        read_quarantine(tmp_path)
    assert str(tmp_path / QUARANTINE_FILE) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_list_with_the_mark_that_some_editors_set_is_read(tmp_path):
    (tmp_path / QUARANTINE_FILE).write_text('{"version": 1, "images": []}', encoding="utf-8-sig")
    assert read_quarantine(tmp_path) == {}


def test_what_never_ends_in_place_of_the_list_is_refused(tmp_path):
    path = tmp_path / QUARANTINE_FILE
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("nowhere")):
        make(path)
        with pytest.raises(DataError, match=r"quarantine\.json cannot be read: "):
            read_quarantine(tmp_path)
        path.unlink()


def test_a_folder_in_place_of_the_list_is_refused(tmp_path):
    (tmp_path / QUARANTINE_FILE).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_quarantine(tmp_path)
