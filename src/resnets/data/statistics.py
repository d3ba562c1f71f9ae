"""Mean image and principal colour axes of the training images (He et al. 2015, Sec. 3.4), computed once for a run.

Both are taken from the view that the model is tested on: the resized image's centre crop. Pixels are whole numbers, and
their sums and those of their products are kept as such. So the results depend neither on the number of processes
that read the images nor on the order in which they come.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from resnets.data.loader import EvaluationFiles
from resnets.data.preprocess import preprocess_for
from resnets.data.read_ahead import decoded_batches
from resnets.specs.data import ImageFolder
from resnets.specs.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float32, Float64, Int64
    from torch import Tensor

    from resnets.data.splits import FileSplit, Skipped
    from resnets.specs.run import TrainSpec

_BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """What a run takes from its training images besides the images."""

    mean_image: Float32[np.ndarray, "crop crop c"] | None
    """Mean of each pixel and channel, in 0 ... 255 and in the model's channel order; None where none is subtracted."""
    axes: Float64[np.ndarray, "c c"]
    """Principal axes of the colours of all pixels: unit vectors, one a column, the longest first; rows R, G, B."""
    eigenvalues: Float64[np.ndarray, " c"]
    """Variance along each axis of pixels in 0 ... 1: the measure in which ImageNet's are published (0.2175, …)."""
    images: int
    """Number of images they were computed from."""
    skipped: tuple[Skipped, ...] = ()
    """Images that could not be read; not kept in files."""

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the statistics as named tensors, for a file."""
        tensors = {
            "axes": torch.from_numpy(self.axes.copy()),
            "eigenvalues": torch.from_numpy(self.eigenvalues.copy()),
            "images": torch.tensor(self.images),
        }
        if self.mean_image is not None:
            tensors["mean_image"] = torch.from_numpy(self.mean_image.copy())
        return tensors

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> Statistics:
        """Return the statistics that `to_tensors` gave.

        Raises:
            DataError: a tensor is missing, or of another type or shape.
        """
        try:
            axes, eigenvalues = tensors["axes"].numpy(), tensors["eigenvalues"].numpy()
            images = int(tensors["images"].item())
            mean_image = tensors["mean_image"].numpy() if "mean_image" in tensors else None
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise DataError(f"These are not the statistics of training images ({error}); delete the file.") from error
        if (
            axes.shape not in ((1, 1), (3, 3))
            or eigenvalues.shape != axes.shape[:1]
            or not axes.dtype == eigenvalues.dtype == np.float64
            or (mean_image is not None and (mean_image.ndim != 3 or mean_image.dtype != np.float32))
            or not all(np.isfinite(values).all() for values in (axes, eigenvalues, mean_image) if values is not None)
        ):
            raise DataError(
                "These are not the statistics of training images: shapes, types or values do not fit; delete "
                "statistics.safetensors in the run directory."
            )
        return Statistics(mean_image=mean_image, axes=axes, eigenvalues=eigenvalues, images=images)


def needs_statistics(spec: TrainSpec) -> bool:
    """Return whether a run computes statistics of its training images: a mean image, or colour axes that it uses."""
    uses_axes = spec.color.pca_std > 0 and spec.color.pca_axes == "training-set"
    return isinstance(spec.dataset, ImageFolder) and (spec.dataset.mean_image or uses_axes)


def training_statistics(
    spec: TrainSpec,
    train: FileSplit,
    *,
    workers: int = 0,
    on_images: Callable[[int, int], None] = lambda done, of: None,
) -> Statistics:
    """Return the statistics of `dataset.statistics_images` evenly spaced training images, or of all.

    Args:
        spec: a run on a folder of images.
        train: its training images.
        workers: processes that read files; 0 reads in this one.
        on_images: told how many of how many images are done.

    Raises:
        DataError: no image can be read.
        ResnetsError: a worker process died.
    """
    assert isinstance(spec.dataset, ImageFolder)
    preprocessor = preprocess_for(dataclasses.replace(spec.dataset, mean_image=False), train)
    indices = evenly_spaced(len(train), spec.dataset.statistics_images)
    chunks = [indices[start : start + _BATCH] for start in range(0, len(indices), _BATCH)]
    files = EvaluationFiles(train, preprocessor, chunks)
    sums = _Sums(preprocessor.spec.crop_px, preprocessor.spec.channels)
    skipped: list[Skipped] = []
    workers = min(workers, len(chunks))
    batches = decoded_batches(files, range(len(chunks)), workers=workers, device=torch.device("cpu"))
    for batch in batches:
        sums.add(batch.pixels.numpy())
        skipped += batch.skipped
        on_images(sums.images + len(skipped), len(indices))
    if not sums.images:
        raise DataError(
            f"None of {len(indices)} training images can be read, so they have no mean; the first is {skipped[0].path}: "
            f"{skipped[0].reason}."
        )
    axes, eigenvalues = sums.principal_axes()
    return Statistics(
        mean_image=sums.mean_image() if spec.dataset.mean_image else None,
        axes=axes[::-1].copy() if preprocessor.spec.color == "bgr" else axes,
        eigenvalues=eigenvalues,
        images=sums.images,
        skipped=tuple(skipped),
    )


def evenly_spaced(num_images: int, wanted: int) -> Int64[np.ndarray, " n"]:
    """Return the indices of `wanted` of `num_images` images, or of all where there are no more or `wanted` is 0."""
    count = min(wanted or num_images, num_images)
    return np.arange(count, dtype=np.int64) * num_images // count


class _Sums:
    """Exact sums over images: of each pixel and channel, and of the products of the channels of all pixels."""

    def __init__(self, side: int, channels: int) -> None:
        self.images = 0
        self._values = np.zeros((side, side, channels), np.int64)
        self._products = np.zeros((channels, channels), np.int64)

    def add(self, pixels: np.ndarray) -> None:
        """Add images, uint8 (n, side, side, channels)."""
        self.images += len(pixels)
        self._values += pixels.sum(axis=0, dtype=np.int64)
        for image in pixels:
            # Whole numbers below 2^53 are exact in float64, where the product of matrices is fast.
            colors = image.reshape(-1, image.shape[2]).astype(np.float64)
            self._products += (colors.T @ colors).astype(np.int64)

    def mean_image(self) -> Float32[np.ndarray, "side side channels"]:
        return (self._values / self.images).astype(np.float32)

    def principal_axes(self) -> tuple[Float64[np.ndarray, "c c"], Float64[np.ndarray, " c"]]:
        """Return the eigenvectors, one a column, and the eigenvalues of the covariance of pixels in 0 ... 1."""
        count = self.images * self._values.shape[0] * self._values.shape[1]
        mean = self._values.sum(axis=(0, 1)) / count / 255
        covariance = self._products / count / 255**2 - np.outer(mean, mean)
        eigenvalues, axes = np.linalg.eigh(covariance)
        eigenvalues, axes = np.maximum(eigenvalues[::-1], 0), axes[:, ::-1]
        # An axis has two directions; the one in which its largest component is positive is as good as any.
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
        return np.ascontiguousarray(axes * np.sign(largest)), np.ascontiguousarray(eigenvalues)
