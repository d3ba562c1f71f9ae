"""What a run takes over from the weights that it starts from: the net, the image size and the normalisation."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resnets.specs.data import ImageFolder
from resnets.specs.errors import ModelError

if TYPE_CHECKING:
    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.preprocess import Preprocessor
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
            mean=_channel_means(given.preprocessor),
            std=preprocess.std,
            mean_image=False,
            interpolation=preprocess.interpolation,
        )
    return dataclasses.replace(spec, model=given.spec, dataset=dataset)


def check_normalisation(spec: TrainSpec, given: StoredModel) -> None:
    """Refuse to feed the weights with images on another scale than they were trained on.

    Raises:
        ModelError: naming both normalisations.
    """
    dataset = spec.dataset
    if not isinstance(dataset, ImageFolder):
        return
    preprocess = given.preprocessor.spec
    ours = (dataset.color, dataset.std, dataset.mean_image or _rounded(dataset.mean))
    theirs = (preprocess.color, preprocess.std, dataset.mean_image or _rounded(_channel_means(given.preprocessor)))
    if ours != theirs:
        raise ModelError(
            f"{given.name} was trained on {theirs[0]} images minus {_rounded(_channel_means(given.preprocessor))}, "
            f"divided by {theirs[1]}; this run has {ours[0]}, {'a mean image' if dataset.mean_image else ours[2]} and "
            f"{ours[1]}. Add init:given-weights --init.model adopt to take over the weights' own."
        )


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in values)


def _channel_means(preprocessor: Preprocessor) -> tuple[float, ...]:
    if preprocessor.mean_image is None:
        return preprocessor.spec.mean
    return tuple(float(mean) for mean in preprocessor.mean_image.mean(axis=(0, 1), dtype="float64"))
