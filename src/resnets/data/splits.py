"""What the readers of datasets return and the loaders take: labelled images, in memory or encoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int64, UInt8

    from resnets.data.sources import ImageSource


class Skipped(NamedTuple):
    """An image that could not be read."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidentSplit:
    """Images of one size, small enough to live in memory."""

    images: UInt8[np.ndarray, "n height width channels"]
    labels: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def taken(self, indices: Int64[np.ndarray, " k"]) -> ResidentSplit:
        """Return some of the images, in this order."""
        return ResidentSplit(images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSplit:
    """Image files of any size, in a folder or in shards, decoded when they are needed."""

    images: ImageSource
    labels: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.labels)

    def taken(self, indices: Int64[np.ndarray, " k"]) -> FileSplit:
        """Return some of the images, in this order."""
        return FileSplit(images=self.images.taken(indices), labels=self.labels[indices])

    def paths(self, indices: Int64[np.ndarray, " k"]) -> list[str]:
        """Return what messages call some of the images."""
        return [self.images.path(index) for index in indices.tolist()]


Split = ResidentSplit | FileSplit


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A labelled dataset and what its reader noticed."""

    name: str
    """What to call it in a log: digits, cifar10, or the folder's path."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    splits: dict[str, Split]
    """"train", and "validation" and "test" where the dataset has them."""
    fingerprint: str
    """Hexadecimal digest that changes when images or labels are added, removed or renamed."""
    notes: tuple[str, ...] = ()
    """What a person should know: a class without test images, stray files, a split that was made."""

    def relabelled(self, classes: tuple[str, ...]) -> Dataset:
        """Return the dataset with labels that index `classes`, which hold all of its own."""
        new_index = np.array([classes.index(name) for name in self.classes], dtype=np.int64)
        splits = {name: replace(split, labels=new_index[split.labels]) for name, split in self.splits.items()}
        return replace(self, classes=classes, splits=splits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Normalised images on the device, ready for the model."""

    images: Float[torch.Tensor, "n channels height width"]
    labels: Int64[torch.Tensor, " n"]
    indices: Int64[np.ndarray, " n"]
    """Index of each image in its split."""
    partner_labels: Int64[torch.Tensor, " n"] | None = None
    """Label of the image that each was mixed with; None where none was."""
    own_share: float = 1.0
    """Share of each image, and of its own label, in the mixture."""
    skipped: tuple[Skipped, ...] = ()
    """Images that belong into this batch but could not be read."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)
