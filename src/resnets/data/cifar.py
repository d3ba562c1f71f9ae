"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009; He et al. 2015, Sec. 4.2) from the official files, python or binary.

A record is 3,072 bytes: the red, green and blue plane of a 32 x 32 image, each row by row. In the binary form the
label stands before it in one byte (CIFAR-100: two, coarse then fine). The python form is a pickle of a dictionary.

Smaller images, 16 x 16 or 8 x 8, are means over 2 x 2 or 4 x 4 pixels, rounded to the nearest byte (halves up). A model
trained on them sees the same from every split of the set; an image file given to it is resized to its size with the
filter of its preprocessing, which is close to such a mean but not equal.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from resnets.data.array_pickle import read_dictionary
from resnets.data.download import StderrProgress, download, extract
from resnets.data.splits import Dataset, ResidentSplit
from resnets.specs.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt8

    from resnets.data.download import Progress
    from resnets.specs.data import Cifar

OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/"

_SIDE = 32
_PLANE = _SIDE * _SIDE
_RECORD = 3 * _PLANE
_TRAIN_IMAGES, _TEST_IMAGES = 50_000, 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """The files of one official archive."""

    num_classes: Literal[10, 100]
    encoding: Literal["binary", "python"]
    archive: str
    checksum: str
    folder: str
    train: tuple[str, ...]
    test: str
    names: str


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
# Binary before python: it is downloaded and, where both lie there, read, since it needs no unpickling.
_FORMS = (
    _Form(
        num_classes=10,
        encoding="binary",
        archive="cifar-10-binary.tar.gz",
        checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        train=tuple(f"{batch}.bin" for batch in _BATCHES),
        test="test_batch.bin",
        names="batches.meta.txt",
    ),
    _Form(
        num_classes=10,
        encoding="python",
        archive="cifar-10-python.tar.gz",
        checksum="md5:c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        train=_BATCHES,
        test="test_batch",
        names="batches.meta",
    ),
    _Form(
        num_classes=100,
        encoding="binary",
        archive="cifar-100-binary.tar.gz",
        checksum="md5:03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
    ),
    _Form(
        num_classes=100,
        encoding="python",
        archive="cifar-100-python.tar.gz",
        checksum="md5:eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        train=("train",),
        test="test",
        names="meta",
    ),
)


def default_data_root() -> Path:
    """Return the folder for downloads: $RESNETS_DATA_ROOT, else ~/.cache/resnets."""
    return Path(os.environ.get("RESNETS_DATA_ROOT") or "~/.cache/resnets").expanduser()


def open_cifar(spec: Cifar, root: Path | None = None, *, on_progress: Progress | None = None) -> Dataset:
    """Return CIFAR-10 or CIFAR-100 with fine labels: "train", "validation" where the spec asks for it, and "test".

    The unpacked files are looked for in `root` itself and in the official folder inside it; then an official
    archive in `root` is unpacked; then the binary archive is downloaded to `root` (from $RESNETS_CIFAR_URL, a mirror
    of the official address, where that is set). Only archives are held against the official checksums: unpacked
    files are checked for their size, their number and their labels. Without `root`, it is `default_data_root()`;
    without `on_progress`, a download shows its progress on stderr.

    Raises:
        DataError: a file is missing or damaged, or the download failed; the message names it.
    """
    root = default_data_root() if root is None else root
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file; the data root is a folder that holds {_forms(spec.num_classes)[0].folder}.")
    found = _find(root, spec.num_classes)
    form, folder = found if found is not None else _unpack_archive(root, spec.num_classes, on_progress)
    return _read(form, folder, spec)


def find_cifar(root: Path, prefer: Literal[10, 100] = 10) -> Literal[10, 100] | None:
    """Return the number of classes of the unpacked CIFAR files in `root` or in an official folder inside it."""
    others: tuple[Literal[10, 100], ...] = (10, 100)
    for num_classes in sorted(others, key=lambda number: number != prefer):
        if _find(root, num_classes) is not None:
            return num_classes
    return None


def _forms(num_classes: int) -> list[_Form]:
    return [form for form in _FORMS if form.num_classes == num_classes]


def _find(root: Path, num_classes: int) -> tuple[_Form, Path] | None:
    forms = _forms(num_classes)
    for form in forms:
        if (root / form.folder).is_dir():
            return form, root / form.folder
    for form in forms:
        # Not all files are asked for: one that is missing is to be named, not taken for another data set.
        if root.name == form.folder or ((root / form.train[0]).is_file() and (root / form.names).is_file()):
            return (form, root) if root.is_dir() else None
    return None


def _unpack_archive(root: Path, num_classes: int, on_progress: Progress | None) -> tuple[_Form, Path]:
    forms = _forms(num_classes)
    form = next((form for form in forms if (root / form.archive).is_file()), forms[0])
    url = os.environ.get("RESNETS_CIFAR_URL") or OFFICIAL_URL
    try:
        archive = download(
            f"{url.rstrip('/')}/{form.archive}",
            root / form.archive,
            checksum=form.checksum,
            on_progress=on_progress or StderrProgress(form.archive),
        )
    except DataError as error:
        raise DataError(
            f"{error}\n{root} holds no CIFAR-{num_classes}; where it is already on this machine, "
            f"give the folder that holds {' or '.join(form.folder for form in forms)} as --data-root."
        ) from error
    return form, extract(archive, root / form.folder)


def _read(form: _Form, folder: Path, spec: Cifar) -> Dataset:
    read_file = _read_binary if form.encoding == "binary" else _read_python
    classes = _class_names(form, folder / form.names)
    images = np.empty((_TRAIN_IMAGES + _TEST_IMAGES, _SIDE, _SIDE, 3), np.uint8)
    labels = np.empty(len(images), np.int64)
    each = _TRAIN_IMAGES // len(form.train)
    start = 0
    for name, count in [*((name, each) for name in form.train), (form.test, _TEST_IMAGES)]:
        planes, labels[start : start + count] = read_file(folder / name, form, count)
        _interleave(planes, images[start : start + count])
        start += count
    # Of the official images: the same are tested at whatever size they are seen.
    digest = hashlib.sha256(images.data)
    digest.update(labels.astype("<i8").data)
    images = pooled(images, spec.image_px)
    validation_images = spec.validation_images
    parts = {
        "train": slice(0, _TRAIN_IMAGES - validation_images),
        "validation": slice(_TRAIN_IMAGES - validation_images, _TRAIN_IMAGES),
        "test": slice(_TRAIN_IMAGES, None),
    }
    return Dataset(
        name=f"cifar{form.num_classes}" + (f" at {spec.image_px} pixels" if spec.image_px != _SIDE else ""),
        classes=classes,
        splits={
            name: ResidentSplit(images=images[part], labels=labels[part])
            for name, part in parts.items()
            if name != "validation" or validation_images
        },
        fingerprint=digest.hexdigest(),
    )


def pooled(images: UInt8[np.ndarray, "n side side c"], side: int) -> UInt8[np.ndarray, "n {side} {side} c"]:
    """Return images of `side` pixels, a divisor of their own side: each pixel the mean of a square, halves up."""
    factor = images.shape[1] // side
    if factor == 1:
        return images
    # Sums of strided views: a reshaped mean would turn the whole set into floats.
    sums = np.full((len(images), side, side, images.shape[3]), factor * factor // 2, np.uint16)
    for row in range(factor):
        for column in range(factor):
            sums += images[:, row::factor, column::factor]
    return (sums // (factor * factor)).astype(np.uint8)


def _interleave(planes: UInt8[np.ndarray, "n 3072"], out: UInt8[np.ndarray, "n 32 32 3"]) -> None:
    pixels = out.reshape(len(out), _PLANE, 3)
    for channel in range(3):
        pixels[:, :, channel] = planes[:, channel * _PLANE : (channel + 1) * _PLANE]


def _read_binary(path: Path, form: _Form, count: int) -> tuple[UInt8[np.ndarray, "n 3072"], Int64[np.ndarray, " n"]]:
    label_bytes = 1 if form.num_classes == 10 else 2
    content = _read_bytes(path)
    expected = count * (label_bytes + _RECORD)
    if len(content) != expected:
        raise DataError(
            f"{path} has {len(content)} bytes; it should have {expected} ({count} images). Unpack the archive again."
        )
    records = np.frombuffer(content, np.uint8).reshape(count, label_bytes + _RECORD)
    labels = records[:, label_bytes - 1].astype(np.int64)
    _check_labels(path, labels, form.num_classes)
    return records[:, label_bytes:], labels


def _read_python(path: Path, form: _Form, count: int) -> tuple[UInt8[np.ndarray, "n 3072"], Int64[np.ndarray, " n"]]:
    content = read_dictionary(path, _read_bytes(path))
    planes = _entry(path, content, "data")
    if not (isinstance(planes, np.ndarray) and planes.dtype == np.uint8 and planes.shape == (count, _RECORD)):
        raise DataError(f"{path}: its 'data' is no array of uint8 and shape ({count}, {_RECORD}). Unpack it again.")
    key = "labels" if form.num_classes == 10 else "fine_labels"
    values = _entry(path, content, key)
    if not (isinstance(values, list) and len(values) == count and all(type(value) is int for value in values)):
        raise DataError(f"{path}: its {key!r} is no list of {count} whole numbers. Unpack the archive again.")
    if not all(0 <= value < form.num_classes for value in values):
        raise _label_error(path, next(v for v in values if not 0 <= v < form.num_classes), form.num_classes)
    return planes, np.array(values, np.int64)


def _check_labels(path: Path, labels: Int64[np.ndarray, " n"], num_classes: int) -> None:
    if labels.max() >= num_classes:
        raise _label_error(path, int(labels.max()), num_classes)


def _label_error(path: Path, label: int, num_classes: int) -> DataError:
    return DataError(f"{path} has the label {label}; labels are 0 to {num_classes - 1}. Unpack the archive again.")


def _class_names(form: _Form, path: Path) -> tuple[str, ...]:
    if form.encoding == "binary":
        names = _read_bytes(path).decode("utf-8", errors="replace").split()
    else:
        key = "label_names" if form.num_classes == 10 else "fine_label_names"
        entries = _entry(path, read_dictionary(path, _read_bytes(path)), key)
        entries = entries if isinstance(entries, list) else []
        names = [
            entry.decode("utf-8", errors="replace") if isinstance(entry, bytes) else str(entry) for entry in entries
        ]
    if len(names) != form.num_classes or len(set(names)) != len(names):
        raise DataError(f"{path} names {len(set(names))} classes; it should name {form.num_classes}.")
    return tuple(names)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; unpack the official archive again.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _entry(path: Path, content: dict[Any, Any], key: str) -> Any:
    # The official pickles were written by Python 2: their keys are bytes here.
    for written in (key.encode(), key):
        if written in content:
            return content[written]
    raise DataError(f"{path} has no {key!r}; it is not an official CIFAR file.")
