"""What a run takes over from the weights that it starts from: the net, the image size and the normalisation."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from resnets.specs.data import ImageFolder
from resnets.specs.errors import ModelError

if TYPE_CHECKING:
    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.preprocess import Preprocessor
    from resnets.specs.preprocess import Preprocess
    from resnets.specs.run import TrainSpec


def adopt(spec: TrainSpec, given: StoredModel) -> TrainSpec:
    """Return the spec with the net of the weights and, on a folder of images, their normalisation.

    The image size is theirs where the spec leaves it open (0). A mean image becomes its average a channel, since
    the images are of another size or kind.
    """
    dataset = spec.dataset
    if isinstance(dataset, ImageFolder):
        preprocess = given.preprocessor.spec
        dataset = dataclasses.replace(
            dataset,
            image_px=dataset.image_px or preprocess.crop_px,
            resize_px=dataset.resize_px or preprocess.resize_px,
            color=preprocess.color,
            mean=channel_means(given.preprocessor),
            std=preprocess.std,
            mean_image=False,
            interpolation=preprocess.interpolation,
        )
    return dataclasses.replace(spec, model=given.spec, dataset=dataset)


def adopt_size(spec: TrainSpec, given: StoredModel) -> TrainSpec:
    """Return the spec with the image size of the weights where it leaves it open (0)."""
    dataset = spec.dataset
    if not isinstance(dataset, ImageFolder) or dataset.image_px:
        return spec
    preprocess = given.preprocessor.spec
    size = dataclasses.replace(dataset, image_px=preprocess.crop_px, resize_px=preprocess.resize_px)
    return dataclasses.replace(spec, dataset=size)


_LEVELS = 2.0
"""Grey levels that the means of two sets of photographs may differ by; the smallest usual divisor is above 50."""


def check_normalisation(ours: Preprocess, means: tuple[float, ...] | None, given: StoredModel) -> None:
    """Refuse to feed the weights with images on another scale than they were trained on.

    Args:
        ours: preprocessing of the run.
        means: what it subtracts, on average a channel; None where the mean image is not computed yet, and the order of
            the channels and the divisor decide.
        given: the weights.

    Raises:
        ModelError: naming both normalisations.
    """
    theirs, their_means = given.preprocessor.spec, channel_means(given.preprocessor)
    same = (
        ours.color == theirs.color
        and all(map(_close, ours.std, theirs.std))
        and (means is None or all(abs(a - b) <= _LEVELS for a, b in zip(means, their_means, strict=True)))
    )
    if not same:
        raise ModelError(
            f"{given.name} was trained on {_described(theirs, their_means)}, and this run has {_described(ours, means)}. "
            "On a folder of images, init:given-weights --init.model adopt takes over the weights' own."
        )


def channel_means(preprocessor: Preprocessor) -> tuple[float, ...]:
    """Return what is subtracted from each channel; of a mean image, its average."""
    if preprocessor.mean_image is None:
        return preprocessor.spec.mean
    return tuple(float(mean) for mean in preprocessor.mean_image.mean(axis=(0, 1), dtype="float64"))


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-3)


def _described(spec: Preprocess, means: tuple[float, ...] | None) -> str:
    def numbers(values: tuple[float, ...]) -> str:
        return ", ".join(f"{value:.4g}" for value in values)

    subtracted = "a mean image" if means is None else f"({numbers(means)})"
    return f"{spec.color} minus {subtracted}, divided by ({numbers(spec.std)})"
