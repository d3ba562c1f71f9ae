"""What lies in a folder: images with split and class as training has them, and everything else as a finding."""

import os

import pytest
from PIL import Image

from resnets.data.image_tree import read_tree
from resnets.data.open import open_folder
from resnets.specs.data import ImageFolder
from resnets.specs.errors import DataError


def add(root, *paths, image=True):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if image:
            Image.new("RGB", (4, 4)).save(root / path, "PNG")
        else:
            (root / path).write_bytes(b"a note")


def found(root):
    return sorted((finding.kind, finding.paths[0]) for finding in read_tree(root).findings)


def test_images_are_those_of_training_in_its_order(tmp_path):
    add(tmp_path, *(f"{split}/{name}/{n}.PNG" for split in ("train", "valid") for name in ("b", "a") for n in range(3)))
    add(tmp_path, "train/a/deep/er/x.jpeg")
    entries = list(read_tree(tmp_path).entries())
    dataset = open_folder(ImageFolder(), tmp_path)
    assert {(entry.split, entry.label) for entry in entries} == {
        (split, name) for split in dataset.splits for name in dataset.classes
    }
    for split, images in dataset.splits.items():
        labels = [dataset.classes[label] for label in images.labels]
        assert [entry.label for entry in entries if entry.split == split] == labels
    assert len(entries) == 13
    assert entries[0].read() == (tmp_path / entries[0].path).read_bytes()
    assert read_tree(tmp_path).findings == []


def test_a_folder_without_splits_is_one(tmp_path):
    add(tmp_path, "a/1.jpg", "b/2.jpg")
    assert [entry[:3] for entry in read_tree(tmp_path).entries()] == [
        ("train", "a", "a/1.jpg"),
        ("train", "b", "b/2.jpg"),
    ]


def test_what_lies_about_is_named(tmp_path):
    add(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "train/a/.hidden.jpg")
    add(tmp_path, "train/a/photo", "train/a/photo.heic.bak")
    add(tmp_path, "read.me", "train/notes.txt", "train/a/x.xml", "train/a/.DS_Store", "quarantine.json", image=False)
    (tmp_path / "train/a/x.tar").write_bytes(b"x" * 257 + b"ustar")
    (tmp_path / "train/a/x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "train/a/gone.jpg").symlink_to("nowhere")
    (tmp_path / "train/a/self").symlink_to("self")
    (tmp_path / "train/a/again").symlink_to(".")
    (tmp_path / "train/a/up").symlink_to("..")
    for folder in ("extra", "Training", "val/__MACOSX"):
        (tmp_path / folder).mkdir()
    os.mkfifo(tmp_path / "train/a/pipe")
    assert found(tmp_path) == [
        ("broken-link", "train/a/again"),
        ("broken-link", "train/a/gone.jpg"),
        ("broken-link", "train/a/self"),
        ("broken-link", "train/a/up"),
        ("hidden", "train/a/.hidden.jpg"),
        ("hidden", "val/__MACOSX"),
        ("ignored-file", "read.me"),
        ("ignored-file", "train/a/pipe"),
        ("ignored-file", "train/a/x.tar"),
        ("ignored-file", "train/a/x.xml"),
        ("ignored-file", "train/notes.txt"),
        ("ignored-image", "train/a/photo"),
        ("ignored-image", "train/a/photo.heic.bak"),
        ("ignored-image", "train/a/x.heic"),
        ("misnamed-split", "Training"),
        ("other-folder", "extra"),
    ]
    details = {finding.paths[0]: finding.detail for finding in read_tree(tmp_path).findings}
    assert "unpack" in details["train/a/x.tar"]
    assert "HEIC" in details["train/a/x.heic"]
    assert "PNG image" in details["train/a/photo"]
    assert "train/" in details["Training"]


def test_imagenets_flat_validation_folder_is_named(tmp_path):
    add(tmp_path, "train/n01440764/1.JPEG", "train/n01443537/1.JPEG")
    add(tmp_path, *(f"val/ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 4)))
    tree = read_tree(tmp_path)
    (finding,) = tree.findings
    assert (finding.kind, finding.paths[0]) == ("flat-split", "val/")
    for words in ("3 images", "official validation archive", "ILSVRC2012_validation_ground_truth.txt", "wnids"):
        assert words in finding.detail
    assert [entry.label for entry in tree.entries()] == ["n01440764", "n01443537", None, None, None]


def test_a_folder_of_images_alone_is_flat(tmp_path):
    add(tmp_path, "1.jpg", "2.jpg")
    (finding,) = read_tree(tmp_path).findings
    assert (finding.kind, finding.detail) == ("flat-split", "./ holds 2 images in no class folder")


def test_names_that_are_one_on_other_disks_are_named(tmp_path):
    add(tmp_path, "Cat/1.jpg", "cat/1.jpg", "caf\u00e9/1.jpg", "cafe\u0301/1.jpg")
    kinds = [kind for kind, _ in found(tmp_path)]
    assert kinds == ["class-name", "similar-names"]
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")  # noqa: PTH102
    assert [kind for kind, _ in found(tmp_path)] == ["class-name", "class-name", "similar-names"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text(""), "is a file"),
        (lambda root: root.mkdir(), "no files with the names of images"),
        (lambda root: add(root, "val/a/1.jpg", "validation/a/1.jpg"), "both val/ and validation/"),
    ],
)
def test_what_is_no_folder_of_images_is_refused(tmp_path, make, words):
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=words):
        read_tree(tmp_path / "photos")
