"""The images of a folder, or of shards made from one, by split and class; and the dataset that they make.

Classes are those of "train", sorted by name. They are imposed on every split. What is decided here depends on the
names alone, so a folder and its shards make the same dataset.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from resnets.data.decode import read_image
from resnets.data.splits import Dataset, FileSplit, Skipped
from resnets.specs.errors import DataError, ImageError, counted, near_misses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from resnets.data.sources import ImageSource
    from resnets.specs.data import ImageFolder

_NAMED_IN_FULL = 5

Files = dict[str, list[str]]
"""Class to paths of its images, relative to the root, with forward slashes, sorted by `normal`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The images that there are."""

    name: str
    """What to call the dataset: the folder's path, or the address of the shards."""
    expected: str
    """How the images are to be laid out, for messages."""
    splits: dict[str, Files]
    """"train", "validation" and "test", as far as they are there; "test" alone for a folder without splits that is
    only tested on."""
    source: Callable[[list[str]], ImageSource]
    """Returns the source of the images at some of the paths."""
    divided: bool = True
    """Whether there are splits; what has none is "train", or "test" where it is only tested on."""
    notes: tuple[str, ...] = ()
    """What a person should know of it."""
    known_readable: bool = False
    """Whether every image has been decoded before."""
    emptied: frozenset[str] = frozenset()
    """Classes of which the quarantine leaves out every training image."""
    folders: dict[str, tuple[int, int]] = field(default_factory=dict)
    """`times_of_change` of every folder that was listed; of shards, none."""

    def without(self, quarantined: Mapping[str, str]) -> Listing:
        """Return the listing without the images at these paths, and with a note that says so.

        Args:
            quarantined: the reason for each path.
        """
        if not quarantined:
            return self
        # The list may have been made where names are spelt in another Unicode form.
        unknown = {normal(path): path for path in quarantined}
        listed_names = set(unknown)
        splits: dict[str, Files] = {}
        for split, files in self.splits.items():
            splits[split] = {}
            for name, paths in files.items():
                splits[split][name] = kept = [path for path in paths if normal(path) not in listed_names]
                if len(kept) < len(paths):
                    for path in paths:
                        unknown.pop(normal(path), None)
        notes = list(self.notes)
        if count := _count(self.splits) - _count(splits):
            of_all = f"{counted(count, 'image')} of {_count(self.splits):,}"
            verb, them = ("is", "it") if count == 1 else ("are", "them")
            notes.append(f"{of_all} {verb} left out: quarantine.json in {self.name} names {them} and says why.")
        if unknown:
            notes.append(
                f"quarantine.json in {self.name} names {counted(len(unknown), 'image')} that {self.name} does not have, "
                f"as paths below it with forward slashes: {listed(unknown.values())}."
            )
        train = self.splits.get("train", {})
        emptied = frozenset(name for name, paths in train.items() if paths and not splits["train"][name])
        return replace(self, splits=splits, notes=tuple(notes), emptied=emptied)


def _count(splits: dict[str, Files]) -> int:
    return sum(len(paths) for files in splits.values() for paths in files.values())


def listed(names: Iterable[str]) -> str:
    """Return the names, sorted and joined, those after the fifth only counted.

    >>> listed("gfedcba")
    'a, b, c, d, e and 2 more'
    """
    ordered = sorted(names)
    text = ", ".join(ordered[:_NAMED_IN_FULL])
    return text if len(ordered) <= _NAMED_IN_FULL else f"{text} and {len(ordered) - _NAMED_IN_FULL} more"


def times_of_change(status: os.stat_result) -> tuple[int, int]:
    """Return when a folder was modified and when it was changed, in nanoseconds.

    Programs that unpack or synchronise set the time of modification back, but not the other.
    """
    return status.st_mtime_ns, status.st_ctime_ns


def normal(name: str) -> str:
    """Return a name in the one spelling that names are sorted by.

    macOS may spell accents as separate characters; the order of classes and images must not depend on that.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def divided(spec: ImageFolder, listing: Listing) -> Dataset:
    """Return the images with their classes: "train", "validation" and, where there is one, "test".

    Without a validation split, a share of each training class is held out: the files whose names come first in the
    order of a seeded hash, so that the choice depends on nothing but the seed and the names, and adding images
    moves few others.

    Raises:
        DataError: there is nothing to train on, a split has a class that train lacks, or a class or split has no
            readable image; the message names it.
    """
    found = {split: dict(files) for split, files in listing.splits.items()}
    _check_train(listing, found.get("train", {}))
    classes = tuple(sorted(found["train"]))
    notes = _impose(listing.name, found)
    if "validation" not in found:
        notes += _hold_out(spec, found)
    if "test" not in found:
        notes.append(
            "There is no test folder: results are reported on the validation images, which also guide the training."
        )
    return _dataset(listing, found, classes, (*notes, *listing.notes))


def undivided(listing: Listing) -> Dataset:
    """Return the images to test on, in the splits that there are.

    Its classes are those that have images in any split; the caller counts labels by the model's.

    Raises:
        DataError: there are none, or a class of a split has no readable image.
    """
    found = {split: files for split, files in listing.splits.items() if any(files.values())}
    classes = tuple(sorted({name for files in found.values() for name, paths in files.items() if paths}))
    if not classes:
        raise DataError(f"{listing.name} has no images. {listing.expected}")
    return _dataset(listing, found, classes, listing.notes)


def _dataset(listing: Listing, found: dict[str, Files], classes: tuple[str, ...], notes: tuple[str, ...]) -> Dataset:
    splits = {split: _file_split(listing, files, classes) for split, files in found.items()}
    if not listing.known_readable:
        _check_readable(listing.name, classes, splits)
    return Dataset(
        name=listing.name, classes=classes, splits=dict(splits), fingerprint=_fingerprint(found), notes=notes
    )


def _file_split(listing: Listing, files: Files, classes: tuple[str, ...]) -> FileSplit:
    counts = [len(files.get(name, ())) for name in classes]
    return FileSplit(
        images=listing.source([path for name in classes for path in files.get(name, ())]),
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
    )


def _check_readable(root: str, classes: tuple[str, ...], splits: dict[str, FileSplit]) -> None:
    """Refuse a class of a split without a readable image; single broken files are named when they are met."""
    groups: list[tuple[str, str, FileSplit]] = []
    for split, images in splits.items():
        ends = np.searchsorted(images.labels, np.arange(len(classes)), side="right").tolist()
        for name, first, end in zip(classes, [0, *ends], ends, strict=False):
            if first < end:
                groups.append((split, name, images.taken(np.arange(first, end))))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes without holding the interpreter
        failures = list(pool.map(lambda group: _unreadable_at_start(group[2].images), groups))
    for (split, name, images), failed in zip(groups, failures, strict=True):
        if len(failed) == len(images):
            path, reason = failed[0]
            raise DataError(
                f"{root}: no image of the class {name!r} in the {split} split can be read ({len(failed)} tried). "
                f"{path}: {reason}."
            )


def _unreadable_at_start(images: ImageSource) -> list[Skipped]:
    failed: list[Skipped] = []
    for index in range(len(images)):
        try:
            read_image(images.read(index), at_least_px=1)
        except ImageError as error:
            failed.append(Skipped(images.path(index), str(error)))
        else:
            break
    return failed


def _check_train(listing: Listing, train: Files) -> None:
    root = listing.name
    if not any(train.values()):
        raise DataError(f"{root} has no training images. {listing.expected}")
    check_classes(listing, train)
    if len(train) == 1:
        raise DataError(
            f"{root} has a single class, {next(iter(train))!r}; a classifier needs two. If the classes are folders "
            "inside it, give that folder."
        )


def check_classes(listing: Listing, train: Files) -> None:
    """Refuse a class without images to train on; `train` has the training images by class.

    Raises:
        DataError: naming the classes.
    """
    empty = [name for name, paths in train.items() if not paths]
    if not empty:
        return
    why = ""
    if left_out := listing.emptied.intersection(empty):
        why = f" quarantine.json leaves out all images of {_classes(sorted(left_out))}."
    raise DataError(
        f"{listing.name}: no image files for {_classes(empty)} to train on; add images or remove the folder.{why}"
    )


def _classes(names: list[str]) -> str:
    return f"class {names[0]!r}" if len(names) == 1 else f"{len(names)} classes ({listed(names)})"


def _impose(root: str, found: dict[str, Files]) -> list[str]:
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
        return hashlib.sha256(f"{spec.split_seed}/{normal(path)}".encode(errors="surrogateescape")).digest()

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


def _fingerprint(found: dict[str, Files]) -> str:
    digest = hashlib.sha256()
    for split in sorted(found):
        for name in sorted(found[split]):
            for path in found[split][name]:
                digest.update(f"{split}\0{normal(path)}\0{name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
