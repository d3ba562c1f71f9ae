"""A random crop of an encoded image, resized to the model's size."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image

from resnets.data.augment import area_crop_box, scale_crop_box, scale_crop_px
from resnets.data.decode import Source
from resnets.data.preprocess import FILTERS, Preprocessor
from resnets.data.window import EncodedImage, Window, open_encoded
from resnets.specs.data import AreaCrop, ScaleCrop

# Pillow keeps the corners of a box in 32 bits, so a box is given relative to the pixels around it.
_FILTER_REACH = 2
"""No filter reaches further than two pixels of the resized image."""


class Crop(NamedTuple):
    """What is decoded of an image, and which part of that becomes the crop."""

    window: Window
    box: tuple[float, float, float, float]
    """Left, top, right and bottom in pixels of the window and fractions of them, half-open."""


def read_crop(
    source: Source, augment: AreaCrop | ScaleCrop, preprocessor: Preprocessor, uniforms: Float64[np.ndarray, " draws"]
) -> UInt8[np.ndarray, "side side *rgb"]:
    """Return a random crop of the image in `source`, upright, resized to the model's size: RGB, or (side, side) of gray.

    Of an image that is resized and then cropped (`ScaleCrop`), only the crop is computed: the filter sees the same
    pixels around it, so the result is the same. An `AreaCrop` is rounded to whole pixels, as torchvision's are. A JPEG
    more than twice as large as needed is decoded at a smaller size, and not further down than the crop goes.

    Raises:
        ImageError: the image cannot be read.
    """
    side = preprocessor.spec.crop_px
    with open_encoded(source, color=preprocessor.decode_color) as image:
        crop = place_crop(image, augment, side, uniforms)
        pixels = image.pixels(crop.window)
    if isinstance(augment, AreaCrop):
        return _resized(pixels, side, preprocessor)
    # The gap averages whole blocks of pixels first where the image is several times too large.
    resized = Image.fromarray(pixels).resize(
        (side, side), FILTERS[preprocessor.spec.interpolation], box=crop.box, reducing_gap=2.0
    )
    return np.asarray(resized)


def place_crop(
    image: EncodedImage, augment: AreaCrop | ScaleCrop, side: int, uniforms: Float64[np.ndarray, " draws"]
) -> Crop:
    """Return where `read_crop` crops an image, and at which size it is decoded.

    Args:
        image: of which the size is known.
        augment: how crops are drawn.
        side: of the resized crop, in pixels.
        uniforms: AREA_CROP_DRAWS or SCALE_CROP_DRAWS numbers but the last, which is for mirroring.
    """
    if isinstance(augment, ScaleCrop):
        needed, given = scale_crop_px(augment, float(uniforms[0])), float(min(image.width, image.height))
    else:
        left, top, right, bottom = area_crop_box(augment, image.width, image.height, uniforms)
        needed, given = side, min(right - left, bottom - top)
    divisor = next(divisor for divisor in image.divisors if given >= divisor * needed or divisor == 1)
    width, height = -(-image.width // divisor), -(-image.height // divisor)
    if isinstance(augment, ScaleCrop):
        return _around(scale_crop_box(augment, width, height, side, uniforms), width, height, divisor)
    left, top, right, bottom = area_crop_box(augment, width, height, uniforms)
    first = min(round(left), width - 1), min(round(top), height - 1)
    last = max(first[0] + 1, round(right)), max(first[1] + 1, round(bottom))
    return Crop(Window(divisor, *first, *last), (0.0, 0.0, float(last[0] - first[0]), float(last[1] - first[1])))


def _around(box: tuple[float, float, float, float], width: int, height: int, divisor: int) -> Crop:
    """Return the part of an image that resizing `box` looks at, and where the box is in it."""
    left, top, right, bottom = box
    # A pixel of the resized image is at most as large as the box.
    across, down = (_FILTER_REACH * math.ceil(side) + 2 for side in (right - left, bottom - top))
    first = max(0, math.floor(left) - across), max(0, math.floor(top) - down)
    last = min(width, math.ceil(right) + across), min(height, math.ceil(bottom) + down)
    ends = min(float(last[0] - first[0]), right - first[0]), min(float(last[1] - first[1]), bottom - first[1])
    return Crop(Window(divisor, *first, *last), (left - first[0], top - first[1], *ends))


def _resized(
    pixels: UInt8[np.ndarray, "h w *rgb"], side: int, preprocessor: Preprocessor
) -> UInt8[np.ndarray, "side side *rgb"]:
    """Return pixels resized, antialiased, by torch, which is three times as fast as Pillow."""
    # A copy that is contiguous and can be written to; torch would make one, and warn.
    image = torch.from_numpy(np.array(pixels, order="C").reshape(1, *pixels.shape[:2], -1)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        image, (side, side), mode=preprocessor.spec.interpolation, antialias=True, align_corners=False
    )
    return resized.permute(0, 2, 3, 1).numpy().reshape(side, side, *pixels.shape[2:])
