"""Folders of images: layouts, classes, splits made and refused, and everything odd that lies about."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.data.listing import listed
from resnets.data.open import open_folder, open_test_folder
from resnets.specs.data import ImageFolder
from resnets.specs.errors import DataError


def _add(root, *paths):
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number % 256, 0, 0)).save(root / path)


def _fill(root, counts):
    """Write images: {"train/cat": 3} gives train/cat/0.png to 2.png."""
    _add(root, *(f"{folder}/{number}.png" for folder, count in counts.items() for number in range(count)))
    return root


def _relative(dataset, split, root):
    images = dataset.splits[split].images
    return [images.name(index) for index in range(len(images))]


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
@pytest.mark.parametrize("test", [True, False])
def test_split_folders_are_read_by_their_names(tmp_path, validation, test):
    counts = {"train/cat": 3, "train/dog": 2, f"{validation}/cat": 1, f"{validation}/dog": 2}
    _fill(tmp_path, counts | ({"test/dog": 1, "test/cat": 1} if test else {}))
    dataset = open_folder(ImageFolder(), tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.splits["train"].labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.splits["validation"].labels.tolist() == [0, 1, 1]
    assert _relative(dataset, "validation", tmp_path)[0] == f"{validation}/cat/0.png"
    assert ("test" in dataset.splits) == test
    assert any("no test folder" in note for note in dataset.notes) == (not test)


def test_images_in_nested_folders_belong_to_the_class_and_extensions_have_any_case(tmp_path):
    _add(tmp_path, "cat/0.png", "cat/deep/er/1.JPG", "cat/2.WebP", "dog/0.bmp", "dog/1.TIF", "dog/2.pgm", "dog/3.gif")
    dataset = open_folder(ImageFolder(), tmp_path)
    together = sorted(_relative(dataset, "train", tmp_path) + _relative(dataset, "validation", tmp_path))
    assert len(together) == 7
    assert "cat/deep/er/1.JPG" in together


@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=4), share=st.floats(0.01, 0.99), seed=st.integers(0, 99)
)
def test_a_split_that_is_made_is_stratified_complete_and_repeatable(tmp_path_factory, counts, share, seed):
    root = tmp_path_factory.mktemp("unsplit")
    _fill(root, {f"class{number}": count for number, count in enumerate(counts)} | {"other": 2})
    spec = ImageFolder(validation_fraction=share, split_seed=seed)
    dataset = open_folder(spec, root)
    train, validation = (_relative(dataset, split, root) for split in ("train", "validation"))
    assert len({*train, *validation}) == len(train) + len(validation) == sum(counts) + 2
    for label, count in enumerate(counts):
        held_out = int((dataset.splits["validation"].labels == label).sum())
        assert held_out == min(count - 1, max(1, round(count * share)))
    copy = root.with_name(root.name + "-copy")
    shutil.copytree(root, copy)
    again = open_folder(spec, copy)
    assert _relative(again, "validation", copy) == validation
    assert again.fingerprint == dataset.fingerprint
    shutil.rmtree(copy)


def test_the_split_depends_on_its_seed_and_an_added_image_moves_few_others(tmp_path):
    _fill(tmp_path, {"cat": 60, "dog": 60})
    first = set(_relative(open_folder(ImageFolder(), tmp_path), "validation", tmp_path))
    other = set(_relative(open_folder(ImageFolder(split_seed=1), tmp_path), "validation", tmp_path))
    assert first != other
    _add(tmp_path, "cat/new.png")
    assert len(first - set(_relative(open_folder(ImageFolder(), tmp_path), "validation", tmp_path))) <= 1


def test_a_split_that_is_made_is_the_same_on_every_machine(tmp_path):
    _fill(tmp_path, {"cat": 10, "dog": 10})
    dataset = open_folder(ImageFolder(validation_fraction=0.2), tmp_path)
    expected = []
    for name in ("cat", "dog"):
        paths = [f"{name}/{number}.png" for number in range(10)]
        expected += sorted(sorted(paths, key=lambda path: hashlib.sha256(f"0/{path}".encode()).digest())[:2])
    assert _relative(dataset, "validation", tmp_path) == expected
    assert dataset.fingerprint.startswith("48563c24bff64099")


def test_a_test_folder_without_a_validation_folder_has_one_made(tmp_path):
    _fill(tmp_path, {"train/cat": 10, "train/dog": 10, "test/cat": 1, "test/dog": 1})
    dataset = open_folder(ImageFolder(), tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 18, "validation": 2, "test": 2}
    assert any("2 of 20 training images were held out" in note for note in dataset.notes)


def test_the_only_image_of_a_class_stays_in_train(tmp_path):
    _fill(tmp_path, {"cat": 1, "dog": 5})
    dataset = open_folder(ImageFolder(), tmp_path)
    assert (dataset.splits["train"].labels == 0).sum() == 1
    assert any("The only image of class 'cat' stays in train" in note for note in dataset.notes)


def test_the_fingerprint_changes_with_names_classes_and_splits(tmp_path):
    _fill(tmp_path, {"train/cat": 2, "train/dog": 2, "val/cat": 2, "val/dog": 2})
    seen = {open_folder(ImageFolder(), tmp_path).fingerprint}
    for old, new in [("train/cat/0.png", "train/cat/9.png"), ("val/dog/1.png", "val/cat/7.png"), ("val", "valid")]:
        (tmp_path / old).rename(tmp_path / new)
        seen.add(open_folder(ImageFolder(), tmp_path).fingerprint)
    (tmp_path / "train/dog/0.png").unlink()
    seen.add(open_folder(ImageFolder(), tmp_path).fingerprint)
    assert len(seen) == 5


def test_what_is_no_image_is_named_and_ignored(tmp_path):
    _fill(tmp_path, {"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 1, "raw/cat": 1, ".cache/x": 1})
    for name in ("README.md", "train/list.csv", "train/cat/notes.txt", ".DS_Store", "train/cat/Thumbs.db"):
        (tmp_path / name).write_text("text")
    _add(tmp_path, "train/loose.png", "train/dog/._0.png")
    (tmp_path / "train/cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    dataset = open_folder(ImageFolder(), tmp_path)
    notes = " ".join(dataset.notes)
    assert len(dataset.splits["train"]) == 4
    for name in (".cache", "train/dog/._0.png", "README.md", "train/list.csv", "train/cat/notes.txt"):
        assert name in notes
    assert all(name in notes for name in ("train/loose.png", "raw", "train/cat/gone.png"))
    assert not any(name in notes for name in ("DS_Store", "Thumbs"))


def test_many_names_are_counted():
    assert listed(f"{number:02}.txt" for number in range(42)) == "00.txt, 01.txt, 02.txt, 03.txt, 04.txt and 37 more"


@pytest.mark.parametrize("link", ["..", "../..", "../../train"])
def test_a_link_to_the_folder_of_the_classes_gives_no_class_the_images_of_another(tmp_path, link):
    _fill(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 2, "val/dog": 2})
    before = open_folder(ImageFolder(), tmp_path)
    (tmp_path / "train/cat/up").symlink_to(link)
    after = open_folder(ImageFolder(), tmp_path)
    assert after.fingerprint == before.fingerprint
    assert any("train/cat/up" in note for note in after.notes)


def test_links_are_followed_but_not_in_circles(tmp_path):
    _fill(tmp_path / "store", {"cats": 4})
    root = _fill(tmp_path / "set", {"dog": 4})
    (root / "cat").symlink_to(tmp_path / "store" / "cats")
    (root / "dog" / "self").symlink_to(root / "dog")
    (root / "dog" / "knot.png").symlink_to(root / "dog" / "knot.png")
    dataset = open_folder(ImageFolder(), root)
    assert dataset.classes == ("cat", "dog")
    assert sum(map(len, dataset.splits.values())) == 8
    assert any("dog/knot.png" in note and "dog/self" in note for note in dataset.notes)


def test_classes_missing_from_a_split_are_named(tmp_path):
    _fill(tmp_path, {"train/cat": 2, "train/dog": 2, "train/owl": 2, "val/dog": 1, "test/cat": 1, "test/dog": 1})
    (tmp_path / "test" / "owl").mkdir()
    (tmp_path / "test" / "yak").mkdir()
    dataset = open_folder(ImageFolder(), tmp_path)
    assert dataset.classes == ("cat", "dog", "owl")
    assert dataset.splits["validation"].labels.tolist() == [1]
    assert "The validation split has no images of 2 classes (cat, owl)." in dataset.notes
    assert "The test split has no images of class 'owl'." in dataset.notes
    assert any("'yak' of the test split is empty" in note for note in dataset.notes)


def _broken(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("no image")


def test_broken_files_stay_in_their_split_as_long_as_one_can_be_read(tmp_path):
    _fill(tmp_path, {"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    _broken(tmp_path, "train/cat/0.png", "train/cat/1.png")
    dataset = open_folder(ImageFolder(), tmp_path)
    expected = [f"train/cat/{number}.png" for number in range(3)] + ["train/dog/0.png", "train/dog/1.png"]
    assert _relative(dataset, "train", tmp_path) == expected
    _fill(tmp_path, {"train/cat": 3})
    assert open_folder(ImageFolder(), tmp_path).fingerprint == dataset.fingerprint


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_a_readable_image_is_refused_by_name(tmp_path, split):
    _fill(tmp_path, {"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    shutil.rmtree(tmp_path / split / "dog")
    _broken(tmp_path, f"{split}/dog/a.jpg", f"{split}/dog/b.jpg")
    with pytest.raises(DataError, match=r"'dog' in the (train|validation) split can be read \(2 tried\).*text file"):
        open_folder(ImageFolder(), tmp_path)


@pytest.mark.parametrize(
    ("counts", "empty", "reason"),
    [
        ({}, [], "is empty"),
        ({".": 3}, [], "3 images but no class folders"),
        ({"val/cat": 1, "val/dog": 1}, [], "no train/"),
        ({"train/cat": 2, "train/dog": 2, "val/cat": 1, "validation/cat": 1}, [], "name the same split"),
        ({"Training/cat": 2, "Testing/cat": 2}, [], "Testing looks like a split"),
        ({"cat": 3, "dog": 3}, ["owl"], "no image files for class 'owl'"),
        ({"train/cat": 3, "train/dog": 3}, ["train/owl", "train/yak"], r"2 classes \(owl, yak\)"),
        ({"train/cat": 3, "train/dog": 3, "val/dogs": 1}, [], "validation split has the class 'dogs'.*mean dog?"),
        ({"train/cat": 3, "train/dog": 3, "test/cat": 3}, ["val/cat"], "validation split has no images"),
        ({"train/cat": 3}, [], "single class"),
        ({"cat": 1, "dog": 1}, [], "none can be held out"),
        ({}, ["cat", "dog"], "no training images"),
        ({}, ["train"], "no training images"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_the_reason(tmp_path, counts, empty, reason):
    _fill(tmp_path, counts)
    for name in empty:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match=reason):
        open_folder(ImageFolder(), tmp_path)


def test_a_missing_folder_and_a_file_are_refused_with_the_layout(tmp_path):
    (tmp_path / "file").write_text("")
    for name, reason in [("none", "does not exist"), ("file", "is a file")]:
        with pytest.raises(DataError, match=f"{reason}.*Expected: .*/CLASS/"):
            open_folder(ImageFolder(), tmp_path / name)


def test_accents_have_one_spelling_and_two_are_refused(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    _fill(tmp_path, {f"train/{composed}": 2, "train/bar": 2, f"val/{decomposed}": 1, "val/bar": 1})
    assert open_folder(ImageFolder(), tmp_path).classes == ("bar", composed)
    _fill(tmp_path, {f"train/{decomposed}": 1})
    with pytest.raises(DataError, match="different Unicode"):
        open_folder(ImageFolder(), tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems alone")
def test_a_class_name_that_is_not_utf8_is_refused(tmp_path):
    _fill(tmp_path, {"cat": 2})
    (tmp_path / os.fsdecode(b"dog\xff")).mkdir()
    with pytest.raises(DataError, match="not valid UTF-8"):
        open_folder(ImageFolder(), tmp_path)


def test_real_photographs_open_with_their_classes(testdata):
    dataset = open_folder(ImageFolder(), testdata / "flowers")
    assert dataset.classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert np.bincount(dataset.splits["validation"].labels).tolist() == [152, 210, 156, 146, 196]


def test_a_class_that_the_quarantine_empties_is_said_to_be(tmp_path):
    _fill(tmp_path, {"cat": 1, "dog": 3})
    (tmp_path / "quarantine.json").write_text('{"version": 1, "images": [{"path": "cat/0.png"}]}')
    with pytest.raises(DataError, match=r"class 'cat' to train on; .* quarantine\.json leaves out all images of"):
        open_folder(ImageFolder(), tmp_path)
    (note,) = [note for note in open_test_folder(tmp_path).notes if "quarantine" in note]
    assert note.startswith("1 image of 4 is left out")


def test_a_quarantined_name_may_be_spelt_in_another_unicode_form(tmp_path):
    _fill(tmp_path, {"caf\u00e9": 3, "tea": 3})
    images = [{"path": "cafe\u0301/1.png", "reason": "blank"}]
    (tmp_path / "quarantine.json").write_text(json.dumps({"version": 1, "images": images}))
    assert sum(map(len, open_folder(ImageFolder(), tmp_path).splits.values())) == 5


def test_quarantined_images_are_left_out_of_every_split_and_counted(tmp_path):
    _fill(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 2, "val/dog": 2})
    whole = open_folder(ImageFolder(), tmp_path)
    images = [{"path": path, "reason": "blank"} for path in ("train/cat/1.png", "val/dog/0.png", "train/cat/gone.png")]
    (tmp_path / "quarantine.json").write_text(json.dumps({"version": 1, "images": images}))
    dataset = open_folder(ImageFolder(), tmp_path)
    assert _relative(dataset, "train", tmp_path) == [
        name for name in _relative(whole, "train", tmp_path) if name != "train/cat/1.png"
    ]
    assert _relative(dataset, "validation", tmp_path) == ["val/cat/0.png", "val/cat/1.png", "val/dog/1.png"]
    assert [note for note in dataset.notes if "quarantine" in note] == [
        f"2 images of 10 are left out: quarantine.json in {tmp_path} names them and says why.",
        f"quarantine.json in {tmp_path} names 1 image that {tmp_path} does not have, as paths below it with forward "
        "slashes: train/cat/gone.png.",
    ]
    (tmp_path / "quarantine.json").write_text("{")
    with pytest.raises(DataError, match=r"quarantine\.json"):
        open_folder(ImageFolder(), tmp_path)
