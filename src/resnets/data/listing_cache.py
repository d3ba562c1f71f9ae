"""What a large folder held when it was last listed, so that a run on a million files starts in a second.

It is used while no folder in it has been changed since: adding, removing or renaming a file changes its folder. The
cache is kept in $RESNETS_DATA_ROOT/folders (default: ~/.cache/resnets/folders), one file a folder, of the dataset that
was made from it last; it can be removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnets.data.cifar import default_data_root
from resnets.data.listing import times_of_change
from resnets.data.replace_file import clear_parts, replace_file
from resnets.data.shard_index import DAMAGE
from resnets.data.sources import FolderFiles, PackedNames
from resnets.data.splits import Dataset, FileSplit

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALLEST = 20_000
"""Images from which on a folder is worth it; fewer are listed in a fraction of a second."""

_VERSION = 2
# A file system may give two changes in quick succession one time.
_SETTLED_NS = 2_000_000_000
_ABANDONED_SECONDS = 3600.0


def load(root: Path, key: str) -> Dataset | None:
    """Return the dataset that `store` kept for `root` and `key`; None where there is none or a folder has changed."""
    try:
        with np.load(io.BytesIO(_path(root).read_bytes()), allow_pickle=False) as kept:
            described = json.loads(kept["described"].tobytes())
            if described["version"] != _VERSION or described["key"] != key:
                return None
            for name, times in zip(_names(kept, "folders"), kept["times"].tolist(), strict=True):
                if list(times_of_change(os.stat(f"{root}/{name}"))) != times:  # noqa: PTH116 (much slower with Path)
                    return None
            return Dataset(
                name=str(root),
                classes=tuple(described["classes"]),
                splits={
                    split: FileSplit(images=FolderFiles(root, _names(kept, split)), labels=kept[f"{split}_labels"])
                    for split in described["splits"]
                },
                fingerprint=described["fingerprint"],
                notes=tuple(described["notes"]),
            )
    except DAMAGE:
        return None


def store(root: Path, key: str, dataset: Dataset, folders: Mapping[str, tuple[int, int]], listed_ns: int) -> None:
    """Keep a dataset of files below `root`, if it is large and its folders have been still for a while.

    Args:
        root: the folder.
        key: what else the dataset depends on.
        dataset: made from the folder.
        folders: `times_of_change` of every folder that was listed.
        listed_ns: when the listing began.
    """
    if sum(map(len, dataset.splits.values())) < SMALLEST or max(map(max, folders.values())) > listed_ns - _SETTLED_NS:
        return
    described = {
        "version": _VERSION,
        "key": key,
        "classes": dataset.classes,
        "splits": list(dataset.splits),
        "fingerprint": dataset.fingerprint,
        "notes": dataset.notes,
    }
    arrays: dict[str, Any] = {"described": np.frombuffer(json.dumps(described).encode(), np.uint8)}
    arrays |= _packed("folders", PackedNames.of(folders))
    arrays["times"] = np.array(list(folders.values()), np.int64)
    for name, split in dataset.splits.items():
        assert isinstance(split, FileSplit)
        assert isinstance(split.images, FolderFiles)
        arrays |= _packed(name, split.images.names) | {f"{name}_labels": split.labels}
    content = io.BytesIO()
    np.savez(content, **arrays)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        path = _path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_parts(path, older_than_seconds=_ABANDONED_SECONDS)
        replace_file(path, content.getvalue())


def _path(root: Path) -> Path:
    digest = hashlib.sha256(str(root.resolve()).encode(errors="surrogateescape")).hexdigest()
    return default_data_root() / "folders" / f"{digest[:16]}.npz"


def _packed(name: str, names: PackedNames) -> dict[str, np.ndarray]:
    return {f"{name}_text": np.frombuffer(names.text, np.uint8), f"{name}_ends": names.ends}


def _names(kept: Mapping[str, np.ndarray], name: str) -> PackedNames:
    names = PackedNames(kept[f"{name}_text"].tobytes(), kept[f"{name}_ends"])
    if len(names) and (names.ends[-1] != len(names.text) or (np.diff(names.ends) < 0).any()):
        raise ValueError
    return names
