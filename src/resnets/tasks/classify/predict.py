"""The most probable classes of single images: files, PIL images, arrays or tensors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps

from resnets.engine.device import use
from resnets.specs.errors import DataError, ImageError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.preprocess import Preprocessor

BATCH_SIZE = 32

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One class and its probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """An image that could not be read, in the place of its predictions."""

    path: str
    reason: str


def predict(
    stored: StoredModel, images: Iterable[Any], *, top_k: int = 5, device: torch.device | None = None
) -> Iterator[list[Prediction] | Unreadable]:
    """Yield, in order, the `top_k` most probable classes of each image.

    Args:
        stored: the model, in evaluation mode.
        images: paths; PIL images; uint8 arrays (height, width[, channels]) in RGB; or uint8 or float tensors
            (channels, height, width) in RGB with values 0..255 or 0..1.
        top_k: classes an image; at most as many as the model has.
        device: where to compute; the model is moved there.

    Raises:
        DataError: an entry is of another type.
        ModelError: the probabilities of an image are not finite.
    """

    def best_classes(inputs: torch.Tensor) -> list[list[Prediction] | None]:
        probabilities = stored.model(inputs).float().softmax(dim=1)
        best = probabilities.topk(min(top_k, len(stored.classes)), dim=1)
        # Not the logits: a net may rule a class out by a score of minus infinity, which is a probability of 0.
        usable = probabilities.isfinite().all(1)
        return [
            [
                Prediction(label=stored.classes[index], index=index, probability=value)
                for value, index in zip(values, indices, strict=True)
            ]
            if finite
            else None
            for values, indices, finite in zip(
                best.values.tolist(), best.indices.tolist(), usable.tolist(), strict=True
            )
        ]

    return compute_each(stored, images, best_classes, device)


def compute_each(
    stored: StoredModel,
    images: Iterable[Any],
    compute: Callable[[torch.Tensor], Sequence[Result | None]],
    device: torch.device | None = None,
) -> Iterator[Result | Unreadable]:
    """Yield, in order, what `compute` returns for each image, or that it cannot be read.

    Args:
        stored: the model; it is moved to the device, and its preprocessing is applied.
        images: as for `predict`.
        compute: from normalised images (n, channels, height, width) on the device to n results; without gradients.
            None stands for a result that is no finite number.
        device: where to compute; None is the CPU.

    Raises:
        DataError: an entry is of another type.
        ModelError: the result of an image is None.
    """
    device = device or torch.device("cpu")
    use(device)
    stored.model.to(device)
    remaining = enumerate(images, 1)
    while taken := list(itertools.islice(remaining, BATCH_SIZE)):
        batch = [_pixels(stored.preprocessor, image) for _, image in taken]
        pixels = [entry for entry in batch if isinstance(entry, np.ndarray)]
        results: Iterator[Result | None] = iter(())
        if pixels:
            inputs = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(device)
            with torch.no_grad():
                results = iter(compute(stored.preprocessor.normalize(inputs)))
        for (number, image), entry in zip(taken, batch, strict=True):
            result = entry if isinstance(entry, Unreadable) else next(results)
            if result is None:
                called = image if isinstance(image, str | Path) else f"image {number:,}"
                raise ModelError(
                    f"{stored.name} gives NaN or infinity for {called}; its weights are damaged, or training diverged."
                )
            yield result


def _pixels(preprocessor: Preprocessor, image: Any) -> np.ndarray | Unreadable:
    if isinstance(image, str | Path):
        try:
            return preprocessor.read(Path(image))
        except ImageError as error:
            return Unreadable(path=str(image), reason=str(error))
    if isinstance(image, torch.Tensor):
        image = _array(image)
    if isinstance(image, np.ndarray):
        grayscale_or_rgb = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (1, 3))
        if image.dtype != np.uint8 or not grayscale_or_rgb or not image.size:
            raise DataError(
                f"An array of type {image.dtype} and shape {image.shape} is no image; give uint8 values 0..255 of "
                "shape (height, width) or (height, width, 3)."
            )
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)
    if not isinstance(image, Image.Image):
        raise DataError(f"{type(image).__name__} is no image; give a path, a PIL image, an array or a tensor.")
    return preprocessor.pixels(ImageOps.exif_transpose(image))


def is_one_image(source: Any) -> bool:
    """Return whether an iterable object is itself an image: a PIL image, an array of pixels, or a tensor of 3 axes."""
    if isinstance(source, torch.Tensor):
        return source.ndim == 3
    return isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim in (2, 3))


def _array(image: torch.Tensor) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(
            f"A tensor of shape {tuple(image.shape)} is no image; give (channels, height, width) with 1 or 3 channels."
        )
    if image.is_floating_point():
        if not 0 <= float(image.min()) <= float(image.max()) <= 1:
            raise DataError("A float tensor has values outside 0..1; give values in 0..1, or uint8 values in 0..255.")
        image = (image * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).cpu().numpy()


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return `paths` with folders replaced by the images in them, sorted.

    What does not exist, or is a folder without images, stays: it is named as unreadable where it is read.

    Raises:
        DataError: a folder holds shards, whose images are no files.
    """
    from resnets.data.decode import is_image_name
    from resnets.data.shards import holds_shards

    files: list[Path] = []
    for path in paths:
        if holds_shards(path):
            raise DataError(
                f"{path} holds shards; `resnets predict` takes image files and folders of them. `resnets evaluate MODEL "
                f"--data {path}` tests on shards."
            )
        inside = path.rglob("*") if path.is_dir() else ()
        files += sorted(file for file in inside if file.is_file() and is_image_name(file.name)) or [path]
    return files
