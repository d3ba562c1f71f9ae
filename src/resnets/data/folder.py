"""A folder of images, one subfolder a class: found, checked, split, and every oddity named.

Classes are the subfolders of `train/`, or of the folder itself where there is no `train/`, sorted by name. They are
imposed on every split. Reading the folder costs one listing a directory; images are opened only until one of each
split and class is known to be readable.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnets.data.decode import is_image_name, read_image
from resnets.data.splits import Dataset, FileSplit, Skipped
from resnets.specs.errors import DataError, ImageError, counted, near_misses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from resnets.specs.data import ImageFolder

SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}

# As names of classes these would turn a misnamed split into a class, without a word.
_LIKE_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})
_QUIETLY_IGNORED = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_NAMED_IN_FULL = 5

Files = dict[str, list[str]]
"""Class to paths of its images, relative to the root, with forward slashes."""


@dataclass(slots=True)
class _Findings:
    """What the walk comes across besides images, as paths relative to the root."""

    hidden: list[str] = field(default_factory=list)
    no_images: list[str] = field(default_factory=list)
    other_folders: list[str] = field(default_factory=list)
    broken_links: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return one line for each kind that there is."""
        kinds = (
            (self.hidden, "Hidden files and folders were ignored"),
            (self.no_images, "Files that are no images, or lie in no class folder, were ignored"),
            (self.other_folders, "Folders that belong to no split or class were ignored"),
            (self.broken_links, "Links that lead nowhere, or to a folder already read, were ignored"),
        )
        return [f"{text}: {listed(names)}." for names, text in kinds if names]


def listed(names: Iterable[str]) -> str:
    """Return the names, sorted and joined, those after the fifth only counted.

    >>> listed("gfedcba")
    'a, b, c, d, e and 2 more'
    """
    ordered = sorted(names)
    text = ", ".join(ordered[:_NAMED_IN_FULL])
    return text if len(ordered) <= _NAMED_IN_FULL else f"{text} and {len(ordered) - _NAMED_IN_FULL} more"


def open_folder(spec: ImageFolder, root: Path) -> Dataset:
    """Return the images of a folder with their classes: "train", "validation" and, where there is one, "test".

    Without a validation folder, a share of each training class is held out: the files whose names come first in the
    order of a seeded hash, so that the choice depends on nothing but the seed and the names, and adding images
    moves few others.

    Raises:
        DataError: the folder is missing or empty, a split has a class that train lacks, or a class or split has no
            readable image; the message names it.
    """
    findings = _Findings()
    found = _find_splits(root, findings)
    classes = tuple(sorted(found["train"]))
    _check_train(root, found["train"])
    notes = _impose(root, found)
    if "validation" not in found:
        notes += _hold_out(spec, found)
    if "test" not in found:
        notes.append(
            "There is no test folder: results are reported on the validation images, which also guide the training."
        )
    _check_readable(root, found)
    return Dataset(
        name=str(root),
        classes=classes,
        splits={split: _file_split(root, files, classes) for split, files in found.items()},
        fingerprint=_fingerprint(found),
        notes=(*notes, *findings.notes()),
    )


def open_test_folder(root: Path) -> Dataset:
    """Return a folder to test on: all its images, whatever its splits; a folder without splits is one, "test".

    Its classes are those that have images in any split; the caller counts labels by the model's.

    Raises:
        DataError: the folder is missing or empty, or a class of a split has no readable image.
    """
    findings = _Findings()
    found = _find_splits(root, findings, to_train=False)
    classes = tuple(sorted({name for files in found.values() for name, paths in files.items() if paths}))
    if not classes:
        raise DataError(f"{root} has no images. {_expected(root)}")
    _check_readable(root, found)
    return Dataset(
        name=str(root),
        classes=classes,
        splits={split: _file_split(root, files, classes) for split, files in found.items() if any(files.values())},
        fingerprint=_fingerprint(found),
        notes=tuple(findings.notes()),
    )


def _find_splits(root: Path, findings: _Findings, *, to_train: bool = True) -> dict[str, Files]:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}. {_expected(root)}")
    folders, files = _list(root, "", findings)
    split_of = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
    chosen: dict[str, str] = {}
    for name in folders:
        split = split_of.get(name)
        if split in chosen:
            raise DataError(f"{root} has both {chosen[split]}/ and {name}/, which name the same split; keep one.")
        if split is not None:
            chosen[split] = name
    findings.no_images += files
    if not chosen:
        _check_unsplit(root, folders, files)
        return {"train" if to_train else "test": _find_classes(root, "", folders, findings)}
    if to_train and "train" not in chosen:
        raise DataError(f"{root} has {listed(chosen.values())}/ but no train/. {_expected(root)}")
    findings.other_folders += [name for name in folders if name not in split_of]
    found: dict[str, Files] = {}
    for split in (split for split in SPLIT_FOLDERS if split in chosen):
        folders, files = _list(root, chosen[split] + "/", findings)
        findings.no_images += files
        found[split] = _find_classes(root, chosen[split] + "/", folders, findings)
    return found


def _expected(root: Path) -> str:
    return f"Expected: {root}/CLASS/*.jpg, or {root}/train/CLASS/*.jpg with val/ and test/ beside train/."


def _check_unsplit(root: Path, folders: list[str], files: list[str]) -> None:
    if not folders:
        images = sum(map(is_image_name, files))
        what = (
            f"holds {counted(images, 'image')} but no class folders"
            if images
            else "is empty"
            if not files
            else "has no folders"
        )
        raise DataError(f"{root} {what}. {_expected(root)}")
    misnamed = [name for name in folders if name.lower() in _LIKE_SPLITS]
    if misnamed:
        raise DataError(
            f"{root}/{misnamed[0]} looks like a split, but splits are called train, val (valid, validation) and test; "
            "rename it."
        )


def _list(root: Path, prefix: str, findings: _Findings) -> tuple[list[str], list[str]]:
    """Return the names of the folders, and the paths of the files, in root/prefix; the rest becomes findings."""
    folders, files = [], []
    try:
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.name.startswith(".") or entry.name in _QUIETLY_IGNORED or entry.name == "__MACOSX":
                    if entry.name not in _QUIETLY_IGNORED:
                        findings.hidden.append(path)
                elif _is(entry.is_dir):
                    folders.append(entry.name)
                elif _is(entry.is_file):
                    files.append(path)
                else:
                    findings.broken_links.append(path)
    except OSError as error:
        raise DataError(f"{root / prefix} cannot be listed: {error.strerror or error}.") from error
    return sorted(folders, key=_normal), files


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _find_classes(root: Path, prefix: str, folders: list[str], findings: _Findings) -> Files:
    found: Files = {}
    for folder in folders:
        name = _normal(folder)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{root / prefix}: the folder name {name!r} is not valid UTF-8; rename it.") from None
        if name in found:
            raise DataError(f"{root / prefix} has two folders called {name!r}, spelt in different Unicode; join them.")
        found[name] = sorted(_find_images(root, f"{prefix}{folder}/", findings), key=_normal)
    return found


def _find_images(root: Path, prefix: str, findings: _Findings) -> Iterator[str]:
    """Yield the images in root/prefix and the folders below it, each folder once, however links lead to it."""
    seen: set[tuple[int, int]] = set()
    waiting = [prefix]
    while waiting:
        inner = waiting.pop()
        status = (root / inner).stat()
        if (status.st_dev, status.st_ino) in seen:
            findings.broken_links.append(inner.rstrip("/"))
            continue
        seen.add((status.st_dev, status.st_ino))
        folders, files = _list(root, inner, findings)
        waiting += [f"{inner}{name}/" for name in reversed(folders)]
        for path in files:
            if is_image_name(path):
                yield path
            else:
                findings.no_images.append(path)


def _normal(name: str) -> str:
    # macOS may spell accents as separate characters; the order of classes and images must not depend on that.
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _check_train(root: Path, train: Files) -> None:
    empty = [name for name, paths in train.items() if not paths]
    if not train or len(empty) == len(train):
        raise DataError(f"{root} has no training images. {_expected(root)}")
    if empty:
        raise DataError(f"{root}: no image files for {_classes(empty)} to train on; add images or remove the folder.")
    if len(train) == 1:
        raise DataError(
            f"{root} has a single class, {next(iter(train))!r}; a classifier needs two. If the classes are folders "
            "inside it, give that folder."
        )


def _classes(names: list[str]) -> str:
    return f"class {names[0]!r}" if len(names) == 1 else f"{len(names)} classes ({listed(names)})"


def _impose(root: Path, found: dict[str, Files]) -> list[str]:
    """Give every split the classes of train, and return what there is to say about it."""
    notes = []
    classes = found["train"]
    for split, files in found.items():
        for name in [name for name in files if name not in classes]:
            if files.pop(name):
                raise DataError(
                    f"{root}: the {split} split has the class {name!r}, which train lacks."
                    f"{near_misses(name, classes)} Its {len(classes)} classes: {listed(classes)}."
                )
            notes.append(f"The folder {name!r} of the {split} split is empty, and no class of train; it was ignored.")
        if not any(files.values()):
            raise DataError(f"{root}: the {split} split has no images; add some or remove its folder.")
        missing = [name for name in classes if not files.get(name)]
        if missing:
            notes.append(f"The {split} split has no images of {_classes(missing)}.")
    return notes


def _hold_out(spec: ImageFolder, found: dict[str, Files]) -> list[str]:
    """Move a share of each class from train to a new validation split, and return what there is to say about it."""

    def rank(path: str) -> bytes:
        return hashlib.sha256(f"{spec.split_seed}/{_normal(path)}".encode(errors="surrogateescape")).digest()

    validation: Files = {}
    total = sum(map(len, found["train"].values()))
    for name, paths in found["train"].items():
        count = min(len(paths) - 1, max(1, round(len(paths) * spec.validation_fraction)))
        held_out = set(sorted(paths, key=rank)[:count])
        validation[name] = [path for path in paths if path in held_out]
        found["train"][name] = [path for path in paths if path not in held_out]
    held_out_images = sum(map(len, validation.values()))
    if not held_out_images:
        raise DataError("Every class has a single image, so none can be held out for validation; add images.")
    found["validation"] = validation
    notes = [
        f"There is no validation folder: {held_out_images} of {total} training images were held out, "
        f"{spec.validation_fraction:.0%} of each class, chosen by their names and split_seed {spec.split_seed}."
    ]
    single = [name for name, paths in validation.items() if not paths]
    if single:
        notes.append(f"The only image of {_classes(single)} stays in train; the validation split has none.")
    return notes


def _check_readable(root: Path, found: dict[str, Files]) -> None:
    """Refuse a class of a split without a readable image; single broken files are named when they are met."""
    groups = [(split, name) for split, files in found.items() for name, paths in files.items() if paths]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes without holding the interpreter
        failures = list(pool.map(lambda group: _unreadable_at_start(root, found[group[0]][group[1]]), groups))
    for (split, name), failed in zip(groups, failures, strict=True):
        if len(failed) == len(found[split][name]):
            path, reason = failed[0]
            raise DataError(
                f"{root}: no image of the class {name!r} in the {split} split can be read ({len(failed)} tried). "
                f"{path}: {reason}."
            )


def _unreadable_at_start(root: Path, paths: list[str]) -> list[Skipped]:
    failed: list[Skipped] = []
    for path in paths:
        try:
            read_image(root / path, at_least_px=1)
        except ImageError as error:
            failed.append(Skipped(str(root / path), str(error)))
        else:
            break
    return failed


def _file_split(root: Path, files: Files, classes: tuple[str, ...]) -> FileSplit:
    counts = [len(files.get(name, ())) for name in classes]
    return FileSplit(
        paths=tuple(root / path for name in classes for path in files.get(name, ())),
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
    )


def _fingerprint(found: dict[str, Files]) -> str:
    digest = hashlib.sha256()
    for split in sorted(found):
        for name in sorted(found[split]):
            for path in found[split][name]:
                digest.update(f"{split}\0{_normal(path)}\0{name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
