"""A map drawn over the image that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, UInt8


def overlay(
    image: Image.Image | UInt8[np.ndarray, "h w *rgb"],
    heat: Float[np.ndarray, "rows columns"],
    *,
    scale: int = 1,
    strength: float = 0.8,
    top: float | None = None,
) -> Image.Image:
    """Return the image in grey with what speaks for the class in colour on it, as a picture in mode "RGB".

    Values of 0 and below leave the image as it is; the largest is yellow and the most opaque.

    Args:
        image: what the map lies on, as `seen` returns it.
        heat: a map of any size; it is resized to the image.
        scale: how many times as large the picture is; the image's pixels stay sharp squares, the map is smooth.
        strength: opacity where the map is largest, 0 to 1.
        top: value that is drawn as the largest; None is the largest of the map. Give one to compare maps.

    Raises:
        ValueError: `scale` is below 1 or `strength` outside 0 to 1.
    """
    if scale < 1 or not 0 <= strength <= 1:
        raise ValueError(f"scale is {scale} and strength {strength}; scale is at least 1, strength between 0 and 1.")
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.squeeze(image))
    size = picture.width * scale, picture.height * scale
    base = np.asarray(picture.convert("L").resize(size, Image.Resampling.NEAREST), np.float32)[:, :, None]
    smooth = Image.fromarray(np.asarray(heat, np.float32)).resize(size, Image.Resampling.BICUBIC)
    values = np.nan_to_num(np.asarray(smooth))
    highest = float(np.max(np.nan_to_num(heat), initial=0.0)) if top is None else top
    share = np.clip(values / highest, 0, 1) if highest > 0 else np.zeros_like(values)
    opacity = strength * share[:, :, None]
    return Image.fromarray(((1 - opacity) * base + opacity * _heat_colors(share)).round().astype(np.uint8))


def _heat_colors(share: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """Return colours from 0..1, of a scale whose lightness grows evenly, so that it also reads in print."""
    import matplotlib as mpl

    # Its first quarter is black, in which the image would drown.
    return mpl.colormaps["inferno"](0.25 + 0.75 * share)[:, :, :3].astype(np.float32) * 255
