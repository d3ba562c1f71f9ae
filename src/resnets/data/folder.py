"""A folder of images, one subfolder a class: found, checked, and every oddity named.

Classes are the subfolders of `train/`, or of the folder itself where there is no `train/`. Reading the folder costs
one listing a directory; images are opened only until one of each split and class is known to be readable.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.data.decode import is_image_name
from resnets.data.listing import Files, Listing, listed, normal, times_of_change
from resnets.data.quarantine import QUARANTINE_FILE
from resnets.data.sources import FolderFiles, PackedNames
from resnets.specs.errors import DataError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}

# As names of classes these would turn a misnamed split into a class, without a word.
_LIKE_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"})
_QUIETLY_IGNORED = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(slots=True)
class _Findings:
    """What the walk comes across besides images, as paths relative to the root; of folders, when they were changed."""

    hidden: list[str] = field(default_factory=list)
    no_images: list[str] = field(default_factory=list)
    other_folders: list[str] = field(default_factory=list)
    broken_links: list[str] = field(default_factory=list)
    folders: dict[str, tuple[int, int]] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return one line for each kind that there is."""
        kinds = (
            (self.hidden, "Hidden files and folders were ignored"),
            (self.no_images, "Files that are no images, or lie in no class folder, were ignored"),
            (self.other_folders, "Folders that belong to no split or class were ignored"),
            (self.broken_links, "Links that lead nowhere, or to a folder already read, were ignored"),
        )
        return [f"{text}: {listed(names)}." for names, text in kinds if names]


def list_folder(root: Path, *, to_train: bool = True) -> Listing:
    """Return the images in a folder; without `to_train`, a folder without splits is one, "test".

    Raises:
        DataError: the folder is missing, or not laid out as one of images.
    """
    findings = _Findings()
    splits, has_splits = _find_splits(root, findings, to_train=to_train)
    return Listing(
        name=str(root),
        expected=_expected(root),
        splits=splits,
        divided=has_splits,
        source=lambda paths: FolderFiles(root, PackedNames.of(paths)),
        notes=tuple(findings.notes()),
        folders=findings.folders,
    )


def _find_splits(root: Path, findings: _Findings, *, to_train: bool) -> tuple[dict[str, Files], bool]:
    """Return the images of each split, and whether the folder has splits."""
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
    findings.no_images += [name for name in files if name != QUARANTINE_FILE]
    if not chosen:
        _check_unsplit(root, folders, files)
        return {"train" if to_train else "test": _find_classes(root, "", folders, findings)}, False
    if to_train and "train" not in chosen:
        raise DataError(f"{root} has {listed(chosen.values())}/ but no train/. {_expected(root)}")
    findings.other_folders += [name for name in folders if name not in split_of]
    found: dict[str, Files] = {}
    for split in (split for split in SPLIT_FOLDERS if split in chosen):
        folders, files = _list(root, chosen[split] + "/", findings)
        findings.no_images += files
        found[split] = _find_classes(root, chosen[split] + "/", folders, findings)
    return found, True


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
        # Before the listing: what changes during it is seen as a change afterwards.
        findings.folders[prefix] = times_of_change((root / prefix).stat())
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
    return sorted(folders, key=normal), files


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _find_classes(root: Path, prefix: str, folders: list[str], findings: _Findings) -> Files:
    found: Files = {}
    for folder in folders:
        name = normal(folder)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{root / prefix}: the folder name {name!r} is not valid UTF-8; rename it.") from None
        if name in found:
            raise DataError(f"{root / prefix} has two folders called {name!r}, spelt in different Unicode; join them.")
        found[name] = sorted(_find_images(root, f"{prefix}{folder}/", findings), key=normal)
    return found


def _find_images(root: Path, prefix: str, findings: _Findings) -> Iterator[str]:
    """Yield the images in root/prefix and the folders below it, each folder once, however links lead to it."""
    # A link to the folder of the classes would give this class the images of the others.
    seen = {_identity((root / above).stat()) for above in Path(prefix).parents}
    waiting = [prefix]
    while waiting:
        inner = waiting.pop()
        status = (root / inner).stat()
        if _identity(status) in seen:
            findings.broken_links.append(inner.rstrip("/"))
            continue
        seen.add(_identity(status))
        folders, files = _list(root, inner, findings)
        waiting += [f"{inner}{name}/" for name in reversed(folders)]
        for path in files:
            if is_image_name(path):
                yield path
            else:
                findings.no_images.append(path)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
