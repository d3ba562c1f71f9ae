"""From a dataset spec, or the value of `--data`, to a dataset."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.data import listing_cache
from resnets.data.cifar import find_cifar, open_cifar
from resnets.data.digits import open_digits
from resnets.data.folder import list_folder
from resnets.data.listing import divided, undivided
from resnets.data.quarantine import QUARANTINE_FILE, read_quarantine
from resnets.data.shard_mirror import is_url, mirror
from resnets.data.shards import holds_shards, list_shards
from resnets.specs.data import Cifar, DatasetSpec, Digits, ImageFolder
from resnets.specs.errors import DataError, near_misses

if TYPE_CHECKING:
    from resnets.data.download import Progress
    from resnets.data.listing import Listing
    from resnets.data.splits import Dataset

_WORDS = ("digits", "cifar10", "cifar100")


def open_dataset(spec: DatasetSpec, root: Path | None = None, *, on_progress: Progress | None = None) -> Dataset:
    """Return the dataset of a spec.

    `root` is the folder of images or of shards; for CIFAR the folder that holds the official one, or that folder itself, and by
    default the folder for downloads. Without `on_progress`, a download shows its progress on stderr.

    Raises:
        DataError: the dataset is missing or damaged; the message says where and what was expected.
    """
    match spec:
        case Digits():
            return open_digits()
        case Cifar():
            return open_cifar(spec, root, on_progress=on_progress)
        case ImageFolder():
            if root is None:
                raise DataError("This recipe trains on a folder of images; give it with --data FOLDER.")
            return open_folder(spec, root)


def list_images(root: Path, *, to_train: bool = True) -> Listing:
    """Return the images of a folder, or of shards in it, but for those in its quarantine.

    Without `to_train`, a folder without splits is one, "test".

    Raises:
        DataError: the folder is missing or damaged, or not laid out as one of images.
    """
    listing = (list_shards if holds_shards(root) else list_folder)(root, to_train=to_train)
    return listing.without(read_quarantine(root))


def open_folder(spec: ImageFolder, root: Path) -> Dataset:
    """Return the images of a folder, or of shards in it, to train on; see `listing.divided`.

    Raises:
        DataError: the folder is missing, empty or damaged, or as for `listing.divided`.
    """
    if holds_shards(root):
        return divided(spec, list_images(root))
    listed_ns = time.time_ns()
    key = json.dumps([str(root), spec.validation_fraction, spec.split_seed, _quarantine_state(root)])
    dataset = listing_cache.load(root, key)
    if dataset is None:
        listing = list_images(root)
        dataset = divided(spec, listing)
        listing_cache.store(root, key, dataset, listing.folders, listed_ns)
    return dataset


def open_test_folder(root: Path) -> Dataset:
    """Return a folder to test on: all its images, whatever its splits; a folder without splits is one, "test".

    Raises:
        DataError: the folder is missing, empty or damaged, or as for `listing.undivided`.
    """
    return undivided(list_images(root, to_train=False))


def _quarantine_state(root: Path) -> list[int]:
    try:
        status = (root / QUARANTINE_FILE).stat()
    except OSError:
        return []
    return [status.st_mtime_ns, status.st_size]


def open_for_testing(spec: DatasetSpec, root: Path | None, trained_on: str) -> Dataset:
    """Return the dataset of a spec to test a model on.

    A folder of images is divided only if it is the one that the model was trained on, so that no training image is
    tested on; of any other folder every image counts.

    Args:
        spec: the dataset, with the fields that it had for training where it is of the same kind.
        root: as in `open_dataset`.
        trained_on: fingerprint of the dataset that the model was trained on.

    Raises:
        DataError: the dataset is missing or damaged.
    """
    if not isinstance(spec, ImageFolder) or root is None:
        return open_dataset(spec, root)
    if trained_on:
        with suppress(DataError):  # such as one class only, which can be tested on but not trained
            dataset = open_folder(spec, root)
            if dataset.fingerprint == trained_on:
                return dataset
    return open_test_folder(root)


def dataset_spec_for(data: str, default: DatasetSpec) -> tuple[DatasetSpec, Path | None]:
    """Return the spec and the root that a value of `--data` means: a known word, a folder's path, or shards' address.

    A known word wins over a folder of that name (`./digits` is the folder). A folder of official CIFAR files is
    CIFAR, any other a folder of images or of shards. Of shards on a web server, the index is fetched. The fields of `default` are kept where it is of the same kind.

    Raises:
        DataError: `data` is none of these.
    """
    match data:
        case "digits":
            return Digits(), None
        case "cifar10":
            return _cifar(default, 10), None
        case "cifar100":
            return _cifar(default, 100), None
    if is_url(data):
        return (default if isinstance(default, ImageFolder) else ImageFolder()), mirror(data)
    root = Path(data).expanduser()
    if not data or not root.is_dir():  # an empty path would be the current folder
        raise DataError(_no_dataset(data, root))
    num_classes = find_cifar(root, prefer=default.num_classes if isinstance(default, Cifar) else 10)
    if num_classes is not None:
        return _cifar(default, num_classes), root
    return (default if isinstance(default, ImageFolder) else ImageFolder()), root


def find_dataset(
    data: str | Path | None, data_root: str | Path | None, default: DatasetSpec
) -> tuple[DatasetSpec, Path | None]:
    """Return the spec and the root that the values of `--data` and `--data-root` mean together.

    Args:
        data: as for `dataset_spec_for`; None keeps `default`.
        data_root: the place of CIFAR, where `data` names no other.
        default: the dataset of the recipe.

    Raises:
        DataError: as for `dataset_spec_for`.
    """
    given_root = Path(data_root) if data_root is not None else None
    if data is None:
        return default, given_root
    dataset, root = dataset_spec_for(str(data), default)
    return dataset, root or given_root


def _cifar(default: DatasetSpec, num_classes: int) -> Cifar:
    spec = default if isinstance(default, Cifar) else Cifar()
    return dataclasses.replace(spec, num_classes=num_classes)


def _no_dataset(data: str, root: Path) -> str:
    allowed = f"--data is {', '.join(_WORDS)}, the path of a folder, or the address of shards on a web server."
    if not data:
        return f"--data is empty. {allowed}"
    if root.exists():
        return f"--data {data} is a file; if it is an archive, unpack it first. {allowed}"
    folders = []
    if root.parent.is_dir():
        folders = [
            str(Path(data).with_name(entry.name))
            for entry in root.parent.iterdir()
            if entry.name[0] != "." and entry.is_dir()
        ]
    return (
        f"--data {data}: there is no dataset or folder of this name.{near_misses(data, [*_WORDS, *folders])} {allowed}"
    )
