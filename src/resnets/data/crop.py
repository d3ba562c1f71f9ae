"""A random crop of an encoded image, resized to the model's size."""

import math

import numpy as np
from jaxtyping import Float64
from PIL import Image

from resnets.data.augment import area_crop_box, area_crop_decode_px, scale_crop_box, scale_crop_px
from resnets.data.decode import Source, read_image
from resnets.data.preprocess import FILTERS, Preprocessor
from resnets.specs.data import AreaCrop, ScaleCrop

# Pillow keeps the corners of a box in 32 bits; below this side they are good to 1/128 of a pixel.
_EXACT_SIDE = 2**16


def read_crop(
    source: Source, augment: AreaCrop | ScaleCrop, preprocessor: Preprocessor, uniforms: Float64[np.ndarray, " draws"]
) -> Image.Image:
    """Return a random crop of the image in `source`, upright and resized to the model's size, in mode "RGB" or "L".

    Of an image that is resized and then cropped, only the crop is computed: the filter sees the same pixels around
    it, so the result is the same. A JPEG more than twice as large as needed is decoded at a smaller size.

    Raises:
        ImageError: The image cannot be read.
    """
    side = preprocessor.spec.crop_px
    if isinstance(augment, ScaleCrop):
        at_least_px = scale_crop_px(augment, float(uniforms[0]))
    else:
        at_least_px = area_crop_decode_px(augment, side, uniforms)
    image = read_image(source, color=preprocessor.decode_color, at_least_px=at_least_px)
    if isinstance(augment, ScaleCrop):
        box = scale_crop_box(augment, image.width, image.height, side, uniforms)
    else:
        box = area_crop_box(augment, image.width, image.height, uniforms)
    if max(image.size) > _EXACT_SIDE:
        image, box = _around(image, box)
    # The gap averages whole blocks of pixels first where the image is several times too large.
    return image.resize((side, side), FILTERS[preprocessor.spec.interpolation], box=box, reducing_gap=2.0)


def _around(
    image: Image.Image, box: tuple[float, float, float, float]
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Return the part of a very long image that resizing `box` looks at, and where the box is in it."""
    left, top, right, bottom = box
    # No filter reaches further than two pixels of the resized image, which are at most as large as the box.
    across, down = 2 * math.ceil(right - left) + 2, 2 * math.ceil(bottom - top) + 2
    first = max(0, math.floor(left) - across), max(0, math.floor(top) - down)
    last = min(image.width, math.ceil(right) + across), min(image.height, math.ceil(bottom) + down)
    part = image.crop((*first, *last))
    moved = left - first[0], top - first[1], right - first[0], bottom - first[1]
    return part, (moved[0], moved[1], min(float(part.width), moved[2]), min(float(part.height), moved[3]))
