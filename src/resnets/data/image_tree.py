"""Every file of a folder of images with its split and class, and whatever lies about besides.

Splits and classes are those that training reads (`data/folder.py`), but nothing is refused here: what training would
refuse or ignore becomes a finding, so that one look names everything.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resnets.data.decode import is_image_name
from resnets.data.file_content import format_of_content, known_content
from resnets.data.findings import Finding
from resnets.data.folder import SPLIT_FOLDERS
from resnets.data.listing import normal
from resnets.data.quarantine import QUARANTINE_FILE
from resnets.data.shards import list_shards
from resnets.data.sources import FolderFiles, read_file
from resnets.data.worker_pool import BATCH
from resnets.specs.errors import DataError, ImageError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resnets.data.sources import ImageSource

_SPLIT_OF = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
_LIKE_SPLITS = frozenset({"training", "dev", "testing", "eval", *_SPLIT_OF})
_QUIETLY_IGNORED = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_IMAGENET_VALIDATION = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG$", re.IGNORECASE)
_SNIFFED_BYTES = 4096


class Entry(NamedTuple):
    """One image to check."""

    split: str
    """"train", "validation" or "test"."""
    label: str | None
    """Name of its class; None where it has none."""
    path: str
    """Its name in reports: relative to the dataset's folder, with forward slashes."""
    read: Callable[[], bytes]
    """Returns the bytes of its file; picklable, as another process calls it."""


@dataclass(slots=True)
class ImageTree:
    """The images of a folder, a few bytes each beside their paths."""

    root: Path
    folders: list[tuple[str, str | None]] = field(default_factory=list)
    """Split and class of each folder of a class; the class is None for images of a split in no class folder."""
    paths: list[str] = field(default_factory=list)
    """Path of each image, relative to the root."""
    folder_of: array[int] = field(default_factory=lambda: array("l"))
    """Index in `folders` of each image."""
    findings: list[Finding] = field(default_factory=list)
    """What is wrong with the folder itself."""
    source: Callable[[list[str]], ImageSource] | None = None
    """Returns what the images at some paths are read from; None reads files below the root."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def entries(self) -> Iterator[Entry]:
        """Yield every image with what it takes to read it."""
        for start in range(0, len(self.paths), BATCH):
            paths = self.paths[start : start + BATCH]
            # A source of few images at a time, as another process gets a copy of it.
            source = self.source(paths) if self.source else FolderFiles.of(self.root / path for path in paths)
            for place, path in enumerate(paths):
                yield Entry(*self.folders[self.folder_of[start + place]], path, partial(source.read, place))


def read_tree(root: Path) -> ImageTree:
    """Return the images of a folder with or without split folders.

    Raises:
        DataError: it is no folder, cannot be listed, has no images, or has two folders for one split.
    """
    if not root.is_dir():
        raise DataError(f"{root} {'is a file, not a folder' if root.exists() else 'does not exist'}. {_expected(root)}")
    walk = _Walk(ImageTree(root=root))
    folders, files = walk.list("")
    splits = _split_folders(root, folders)
    if splits:
        walk.ignore([path for path in files if path != QUARANTINE_FILE])
        walk.note_other_folders([name for name in folders if name not in splits], splits)
        for name, split in splits.items():
            classes, files = walk.list(f"{name}/")
            walk.add_flat(split, f"{name}/", files)
            for folder in classes:
                walk.add_class(split, folder, f"{name}/{folder}/")
    else:
        walk.add_flat("train", "", [path for path in files if path != QUARANTINE_FILE])
        for folder in folders:
            walk.add_class("train", folder, f"{folder}/")
            if folder.lower() in _LIKE_SPLITS:
                walk.find("misnamed-split", folder, f"it is taken for a class; call it {_right_name(folder)}")
    if not walk.tree.paths:
        raise DataError(f"{root} has no files with the names of images. {_expected(root)}")
    return walk.tree


def read_shards(root: Path) -> ImageTree:
    """Return the images of a set of shards.

    Raises:
        DataError: the index is damaged, or a shard is missing.
    """
    listing = list_shards(root)
    tree = ImageTree(root=root, source=listing.source)
    for split, classes in listing.splits.items():
        for name, paths in classes.items():
            tree.folders.append((split, name))
            tree.paths += paths
            tree.folder_of.extend([len(tree.folders) - 1] * len(paths))
    return tree


def _expected(root: Path) -> str:
    return f"Expected: {root}/CLASS/*.jpg, or {root}/train/CLASS/*.jpg with val/ and test/ beside train/."


def _right_name(folder: str) -> str:
    low = folder.lower()
    return "train/" if low.startswith("train") else "test/" if low.startswith("test") else "val/"


def _split_folders(root: Path, folders: list[str]) -> dict[str, str]:
    """Return the folders that are splits, with the split that each is."""
    splits: dict[str, str] = {}
    for name in (name for name in folders if name in _SPLIT_OF):
        other = next((other for other, split in splits.items() if split == _SPLIT_OF[name]), None)
        if other is not None:
            raise DataError(f"{root} has both {other}/ and {name}/, which name the same split; keep one.")
        splits[name] = _SPLIT_OF[name]
    return dict(sorted(splits.items(), key=lambda item: list(SPLIT_FOLDERS).index(item[1])))


class _Walk:
    """Fills a tree, folder by folder."""

    def __init__(self, tree: ImageTree) -> None:
        self.tree = tree
        self._names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))

    def find(self, kind: str, path: str, detail: str) -> None:
        """Add a finding about one file or folder."""
        self.tree.findings.append(Finding(kind=kind, paths=(path,), detail=detail))

    def list(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return names of the folders and paths of the files in root/prefix; what else is there becomes findings."""
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(self.tree.root / prefix) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.name in _QUIETLY_IGNORED:
                        continue
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        self.find("hidden", path, "its name says that it is not meant to be seen")
                    elif _is(entry.is_dir):
                        folders.append(entry.name)
                    elif entry.is_symlink() and not _is(entry.is_file):
                        self.find("broken-link", path, f"it leads to {_target(entry.path)}, where nothing is")
                    else:
                        files.append(path)
        except OSError as error:
            if not prefix:
                raise DataError(f"{self.tree.root} cannot be listed: {error.strerror or error}.") from error
            self.find("unreadable", prefix.rstrip("/"), f"the folder cannot be listed ({error.strerror or error})")
        return sorted(folders, key=normal), sorted(files, key=normal)

    def add_class(self, split: str, folder: str, prefix: str) -> None:
        """Add the images in a class folder and in the folders below it, each folder once, however links lead to it."""
        name = normal(folder)
        try:
            name.encode()
        except UnicodeEncodeError:
            self.find("class-name", prefix.rstrip("/"), "its name is not valid UTF-8")
            name = folder.encode(errors="surrogateescape").decode(errors="replace")
        self._note_similar(split, name, prefix.rstrip("/"))
        self.tree.folders.append((split, name))
        seen = {_identity((self.tree.root / above).stat()) for above in Path(prefix).parents}
        waiting = [prefix]
        while waiting:
            inner = waiting.pop()
            try:
                status = (self.tree.root / inner).stat()
            except OSError as error:
                self.find("unreadable", inner.rstrip("/"), f"the folder cannot be opened ({error.strerror or error})")
                continue
            if _identity(status) in seen:
                self.find("broken-link", inner.rstrip("/"), "it leads to a folder that is already read")
                continue
            seen.add(_identity(status))
            folders, files = self.list(inner)
            waiting += [f"{inner}{name}/" for name in reversed(folders)]
            self._add_images(files)
            self.ignore([path for path in files if not is_image_name(path)])

    def add_flat(self, split: str, prefix: str, files: list[str]) -> None:
        """Add the images of a split that lie in no class folder: training does not read them, so each is a finding."""
        images = [path for path in files if is_image_name(path)]
        self.ignore([path for path in files if not is_image_name(path)])
        if not images:
            return
        self.tree.folders.append((split, None))
        self._add_images(images)
        where = prefix or "./"
        official = sum(bool(_IMAGENET_VALIDATION.search(path)) for path in images)
        if official:
            detail = (
                f"{where} holds {counted(official, 'image')} of ImageNet's official validation archive, which has no "
                "class folders; the development kit's ILSVRC2012_validation_ground_truth.txt says the class of each, "
                "as ILSVRC ids, whose order is not that of the folder names (wnids)"
            )
        else:
            detail = f"{where} holds {counted(len(images), 'image')} in no class folder"
        self.tree.findings.append(Finding(kind="flat-split", paths=(where, images[0]), detail=detail))

    def _add_images(self, files: list[str]) -> None:
        before = len(self.tree.paths)
        self.tree.paths += [path for path in files if is_image_name(path)]
        self.tree.folder_of.extend([len(self.tree.folders) - 1] * (len(self.tree.paths) - before))

    def ignore(self, paths: list[str]) -> None:
        """Note files without the name of an image; those that are images all the same are told apart."""
        for path in paths:
            try:
                start = read_file(self.tree.root / path, _SNIFFED_BYTES)
            except ImageError as error:
                self.find("ignored-file", path, str(error))
                continue
            what = known_content(start)
            image = format_of_content(start)
            if image is not None:
                self.find("ignored-image", path, f"it is a {image} image, but its name has no extension of one")
            elif what is not None and "not read here" in what:
                self.find("ignored-image", path, f"it is {what}")
            else:
                archive = what is not None and "archive" in what
                hint = f"it is {what}; unpack it if images are in it" if archive else f"it is {what or 'no image'}"
                self.find("ignored-file", path, hint)

    def note_other_folders(self, folders: list[str], splits: dict[str, str]) -> None:
        """Note the folders beside split folders."""
        for folder in folders:
            if folder.lower() in _LIKE_SPLITS:
                self.find("misnamed-split", folder, f"it is ignored; is it meant to be {_right_name(folder)}?")
            else:
                beside = " and ".join(f"{name}/" for name in splits)
                self.find("other-folder", folder, f"it lies beside {beside}")

    def _note_similar(self, split: str, name: str, path: str) -> None:
        alike = self._names[split][name.casefold()]
        twin = next((other for other in alike if normal(other.rpartition("/")[2]) == name), None)
        if twin is not None:
            detail = f"{twin} has the same name, spelt in different Unicode"
            self.tree.findings.append(Finding(kind="class-name", paths=(path, twin), detail=detail))
        elif alike:
            detail = f"{alike[0]} differs in upper and lower case only"
            self.tree.findings.append(Finding(kind="similar-names", paths=(path, alike[0]), detail=detail))
        alike.append(path)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _target(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return "?"
