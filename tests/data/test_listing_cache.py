"""The kept listing of a large folder is used only while nothing in it has changed."""

import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from resnets.data import listing_cache, open
from resnets.data.open import open_folder
from resnets.specs.data import ImageFolder

LONG_AGO = 1_600_000_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNETS_DATA_ROOT", str(tmp_path / "home"))
    monkeypatch.setattr(listing_cache, "SMALLEST", 10)
    monkeypatch.setattr(listing_cache, "_SETTLED_NS", 0)
    root = tmp_path / "photos"
    for name in ("cat", "dög"):
        (root / name / "deep").mkdir(parents=True)
        for number in range(6):
            Image.new("L", (4, 4)).save(root / name / f"{number}.png")
        Image.new("L", (4, 4)).save(root / name / "deep/x.png")
    settle(root)
    return root


def settle(root):
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def listings(monkeypatch):
    """Count how often a folder is really listed."""
    count = []
    listed = open.list_folder
    monkeypatch.setattr(open, "list_folder", lambda *given, **named: (count.append(1), listed(*given, **named))[1])
    return count


def content(dataset):
    return {
        split: ([images.images.path(index) for index in range(len(images))], images.labels.tolist())
        for split, images in dataset.splits.items()
    }


def test_an_unchanged_folder_is_listed_once_and_the_kept_dataset_is_the_same(folder, listings):
    first = open_folder(ImageFolder(), folder)
    again = open_folder(ImageFolder(), folder)
    assert len(listings) == 1
    assert content(first) == content(again)
    assert (first.name, first.classes, first.fingerprint) == (again.name, again.classes, again.fingerprint)
    assert first.notes == again.notes
    assert again.splits["train"].labels.dtype == np.int64
    assert again.splits["train"].images.read(0) == first.splits["train"].images.read(0)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "cat/new.png").write_bytes((root / "cat/0.png").read_bytes()),
        lambda root: (root / "cat/0.png").unlink(),
        lambda root: (root / "cat/0.png").rename(root / "cat/zero.png"),
        lambda root: (root / "cat/deep/x.png").rename(root / "dög/deep/y.png"),
        lambda root: shutil.copytree(root / "cat", root / "third"),
        lambda root: shutil.rmtree(root / "cat/deep"),
        lambda root: (root / "quarantine.json").write_text(
            '{"version": 1, "images": [{"path": "cat/0.png", "reason": "blank"}]}'
        ),
    ],
)
def test_every_change_of_names_is_seen(folder, listings, change):
    before = open_folder(ImageFolder(), folder)
    change(folder)
    after = open_folder(ImageFolder(), folder)
    assert len(listings) == 2
    assert after.fingerprint != before.fingerprint


def test_a_change_is_seen_though_the_time_of_modification_was_set_back(folder, listings, tmp_path):
    before = open_folder(ImageFolder(), folder)
    probe = tmp_path / "probe"
    probe.touch()
    while probe.stat().st_ctime_ns <= (folder / "cat").stat().st_ctime_ns:
        time.sleep(0.01)  # the clock of the file system ticks less often than ours
        probe.touch()
    (folder / "cat/new.png").write_bytes((folder / "cat/0.png").read_bytes())
    settle(folder)
    assert open_folder(ImageFolder(), folder).fingerprint != before.fingerprint
    assert len(listings) == 2


def test_what_else_the_dataset_depends_on_is_kept_apart(folder, listings):
    first = open_folder(ImageFolder(validation_fraction=0.2), folder)
    second = open_folder(ImageFolder(validation_fraction=0.5), folder)
    third = open_folder(ImageFolder(validation_fraction=0.5, split_seed=4), folder)
    assert len(listings) == 3
    assert len({one.fingerprint for one in (first, second, third)}) == 3


def test_a_folder_is_kept_once_whatever_was_made_of_it(folder, tmp_path):
    kept = tmp_path / "home/folders"
    for seed in range(3):
        open_folder(ImageFolder(split_seed=seed), folder)
        (one,) = kept.iterdir()
    killed = kept / f"{one.name}.0a1b2c3d.part"
    killed.write_bytes(b"")
    os.utime(killed, (LONG_AGO, LONG_AGO))
    open_folder(ImageFolder(split_seed=4), folder)
    assert list(kept.iterdir()) == [one]


def test_a_folder_that_was_changed_just_now_is_not_kept(folder, listings, monkeypatch):
    monkeypatch.setattr(listing_cache, "_SETTLED_NS", 3_600_000_000_000)
    for _ in range(2):
        open_folder(ImageFolder(), folder)
    assert len(listings) == 2


def test_a_small_folder_is_not_kept(folder, listings, monkeypatch):
    monkeypatch.setattr(listing_cache, "SMALLEST", 15)
    for _ in range(2):
        open_folder(ImageFolder(), folder)
    assert len(listings) == 2


def test_a_damaged_or_unwritable_cache_costs_time_only(folder, listings, tmp_path):
    expected = content(open_folder(ImageFolder(), folder))
    (kept,) = (tmp_path / "home/folders").iterdir()
    whole = kept.read_bytes()
    random = np.random.default_rng(0)
    directory = whole.index(b"PK\x01\x02")
    for number in range(120):
        damaged = bytearray(whole)
        at = int(random.integers(0 if number % 4 else directory, len(whole)))
        damaged[at] ^= 1 << int(random.integers(0, 8))
        kept.write_bytes(whole[:at] if number % 8 == 1 else damaged)
        assert content(open_folder(ImageFolder(), folder)) == expected
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("in the way")
    assert content(open_folder(ImageFolder(), folder)) == expected
