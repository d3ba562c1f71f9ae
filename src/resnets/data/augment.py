"""Where training images are cropped and whether they are mirrored, from given random numbers.

He et al. 2015: the crop of a padded image (Sec. 4.2), and the crop of an image that is resized to a random shorter
side (Sec. 3.4). The crop of a random share of the area is the later "Inception-style" one (Szegedy et al. 2015).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from resnets.specs.data import AreaCrop, AugmentSpec, PadCrop, ScaleCrop

PAD_CROP_DRAWS = 3
"""Random numbers that `pad_crops` takes an image."""
AREA_CROP_DRAWS = 5
"""Random numbers that `area_crop_box` (the first four) and `mirrored` (the last) take an image."""
SCALE_CROP_DRAWS = 4
"""Random numbers that `scale_crop_box` (the first three) and `mirrored` (the last) take an image."""


class PadCrops(NamedTuple):
    """Crops of padded images, one a row: the upper left corner in the padded image, then the mirroring."""

    tops: Int64[np.ndarray, " n"]
    lefts: Int64[np.ndarray, " n"]
    flips: Bool[np.ndarray, " n"]


def pad_crops(augment: PadCrop, uniforms: Float64[np.ndarray, "n 3"]) -> PadCrops:
    """Return crops at places drawn uniformly from 0 ... 2 * pad_px; half of them are mirrored if `augment` says so."""
    corners = (uniforms[:, :2] * (2 * augment.pad_px + 1)).astype(np.int64)
    return PadCrops(corners[:, 0], corners[:, 1], mirrored(augment, uniforms[:, 2]))


def mirrored(augment: AugmentSpec, uniforms: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which images are mirrored left and right: each with probability 1/2, or none."""
    return (uniforms < 0.5) & augment.flip


def area_crop_box(
    augment: AreaCrop, width: int, height: int, uniforms: Float64[np.ndarray, " 4"]
) -> tuple[float, float, float, float]:
    """Return the crop (left, top, right, bottom) of an image, in pixels and fractions of them, half-open.

    The share of the area is uniform in [min_area, 1]. The aspect ratio is log-uniform in
    [1 / max_aspect, max_aspect], cut to those at which a crop of this area fits, so no draw has to be repeated.
    An image so elongated that such a crop cannot cover its share gets one that covers what it can.
    """
    elongation = max(width, height) / min(width, height)
    largest = min(1.0, augment.max_aspect / elongation)
    smallest = min(augment.min_area, largest)
    area = (smallest + (largest - smallest) * float(uniforms[0])) * width * height
    narrowest = max(1 / augment.max_aspect, area / height**2)
    widest = max(narrowest, min(augment.max_aspect, width**2 / area))
    aspect = narrowest * (widest / narrowest) ** float(uniforms[1])
    # Rounding can make a crop larger than its image by the last bit.
    crop_width = min(float(width), math.sqrt(area * aspect))
    crop_height = min(float(height), math.sqrt(area / aspect))
    left = (width - crop_width) * float(uniforms[2])
    top = (height - crop_height) * float(uniforms[3])
    return left, top, min(float(width), left + crop_width), min(float(height), top + crop_height)


def scale_crop_px(augment: ScaleCrop, uniform: float) -> int:
    """Return the shorter side that an image is resized to: every whole number of the range is as likely."""
    return augment.min_resize_px + int(uniform * (augment.max_resize_px - augment.min_resize_px + 1))


class ScaleCropPlace(NamedTuple):
    """A square crop of a resized image, in its pixels."""

    left: int
    top: int
    width: int
    """Of the whole resized image, as is the height."""
    height: int


def scale_crop_place(
    augment: ScaleCrop, width: int, height: int, crop_px: int, uniforms: Float64[np.ndarray, " 3"]
) -> ScaleCropPlace:
    """Return to which size an image is resized, and where it is then cropped.

    The shorter side is resized to `scale_crop_px`, the longer one to round(longer / shorter * that), and a square
    of `crop_px` is taken from any whole pixel at which it fits (Sec. 3.4).

    Args:
        augment: the range of shorter sides; none is below `crop_px`.
        width: of the image, in pixels.
        height: of the image, in pixels.
        crop_px: side of the crop.
        uniforms: for the size, the horizontal and the vertical place.
    """
    shorter_px = scale_crop_px(augment, float(uniforms[0]))
    shorter = min(width, height)
    resized_width, resized_height = round(width / shorter * shorter_px), round(height / shorter * shorter_px)
    return ScaleCropPlace(
        left=int(float(uniforms[1]) * (resized_width - crop_px + 1)),
        top=int(float(uniforms[2]) * (resized_height - crop_px + 1)),
        width=resized_width,
        height=resized_height,
    )


def scale_crop_box(
    augment: ScaleCrop, width: int, height: int, crop_px: int, uniforms: Float64[np.ndarray, " 3"]
) -> tuple[float, float, float, float]:
    """Return where `scale_crop_place` lies in the image as it is: (left, top, right, bottom) in its pixels.

    Resizing the box alone gives that square.
    """
    left, top, resized_width, resized_height = scale_crop_place(augment, width, height, crop_px, uniforms)
    across, down = width / resized_width, height / resized_height
    return (
        left * across,
        top * down,
        min(float(width), (left + crop_px) * across),
        min(float(height), (top + crop_px) * down),
    )
