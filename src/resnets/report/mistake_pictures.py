"""Small pictures of mistakes: what the net saw, and where it saw the class it chose and the class that is right."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from resnets.analysis.attribution import class_activation_maps, grad_cam, seen
from resnets.analysis.overlay import overlay
from resnets.data.decode import read_image
from resnets.data.splits import FileSplit
from resnets.report.text import printable
from resnets.specs.errors import ResnetsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from jaxtyping import Float32, Int64, UInt8

    from resnets.analysis.mistakes import Mistake
    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.splits import Split

_SIDE_PX = 128
"""Side of a picture, about: small images are enlarged by a whole number, large ones are made smaller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MistakePicture:
    """A mistake with its pictures, as data URIs."""

    mistake: Mistake
    """Its `index` is the row of the image among those with scores."""
    name: str
    """File of the image below its split, or its number in the split."""
    image: str
    """What the net saw."""
    pixelated: bool
    """Whether the image is so small that its pixels are to stay squares when it is enlarged."""
    predicted_map: str | None
    """What speaks for the predicted class, in colour; None for a net without such maps."""
    label_map: str | None
    """What speaks for the class that is right, on the same scale."""


def mistake_pictures(
    stored: StoredModel,
    split: Split,
    mistakes: Sequence[Mistake],
    rows: Int64[np.ndarray, " scored"],
    *,
    device: torch.device,
) -> tuple[MistakePicture, ...]:
    """Return pictures of the mistakes, in their order.

    Args:
        stored: the model.
        split: the images.
        mistakes: whose indices count in `rows`.
        rows: index in the split of each image with scores.
        device: where to compute.
    """
    if not mistakes:
        return ()
    indices = [int(rows[mistake.index]) for mistake in mistakes]
    images = [_image(split, index, stored) for index in indices]
    crops = seen(stored.preprocessor, images)
    maps = [_maps(stored, images, [getattr(one, kind) for one in mistakes], device) for kind in ("predicted", "label")]
    pictures = []
    for place, (mistake, index, crop) in enumerate(zip(mistakes, indices, crops, strict=True)):
        heats = [of_kind[place] for of_kind in maps if of_kind is not None]
        # One scale for both, so that they can be compared.
        top = max((float(heat.max()) for heat in heats), default=0.0)
        drawn = [_uri(_on(crop, heat, top), lossy=True) for heat in heats] or [None, None]
        pictures.append(
            MistakePicture(
                mistake=mistake,
                name=_name(split, index),
                image=_uri(_smaller(crop), lossy=crop.width >= _SIDE_PX),
                pixelated=crop.width < _SIDE_PX,
                predicted_map=drawn[0],
                label_map=drawn[1],
            )
        )
    return tuple(pictures)


def _image(split: Split, index: int, stored: StoredModel) -> Image.Image | UInt8[np.ndarray, "h w c"]:
    if isinstance(split, FileSplit):
        return read_image(split.images.read(index), color=stored.preprocessor.decode_color)
    return split.images[index]


def _name(split: Split, index: int) -> str:
    if isinstance(split, FileSplit):
        return printable("/".join(split.images.path(index).split("/")[-2:]), 60)
    return f"image {index:,}"


def _maps(
    stored: StoredModel, images: Sequence[Image.Image | np.ndarray], classes: Sequence[int], device: torch.device
) -> Float32[np.ndarray, "n crop crop"] | None:
    for maps_of in (class_activation_maps, grad_cam):
        try:
            return maps_of(stored, images, classes, device=device)
        except ResnetsError:  # a net without a head of that form, or without known stages
            continue
    return None


def _on(crop: Image.Image, heat: Float32[np.ndarray, "h w"], top: float) -> Image.Image:
    scale = max(1, math.ceil(_SIDE_PX / crop.width))
    return _smaller(overlay(crop, heat, scale=scale, top=top), 1.25 * _SIDE_PX)


def _smaller(image: Image.Image, most_px: float = _SIDE_PX) -> Image.Image:
    if image.width <= most_px:
        return image
    side = round(most_px)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _uri(image: Image.Image, *, lossy: bool) -> str:
    """Return an image as a data URI: PNG, or WebP where small differences do not matter and Pillow can write it."""
    from PIL import features

    buffer = io.BytesIO()
    if lossy and features.check("webp"):
        image.convert("RGB").save(buffer, "WEBP", quality=84, method=6)
        kind = "webp"
    else:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
