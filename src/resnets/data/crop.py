"""A random crop of an encoded image, resized to the model's size.

torch resizes bytes three times as fast as Pillow, but only from a whole pixel on. A crop by area is rounded to whole
pixels. A crop of a resized image begins at any fraction of a pixel of the image as it is; a little before it, however,
the pixels of both nearly always meet, and from there it is resized.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image

from resnets.data.augment import area_crop_box, scale_crop_box, scale_crop_place, scale_crop_px
from resnets.data.decode import Source
from resnets.data.preprocess import FILTERS, Preprocessor
from resnets.data.window import EncodedImage, Window, open_encoded
from resnets.specs.data import AreaCrop, ScaleCrop

SPARE = 1.5
"""How many times larger than needed a photograph stays when it is decoded at a fraction of its size.

The rest is left to the filter: at 1.5, nine in ten sharp photographs stay above 40 dB of those decoded in full; without
any to spare, one in two does.
"""

_RESIZE = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.default,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.default,
}
_FILTER_REACH = 2
"""No filter reaches further than two pixels of the image or of the resized image, whichever are larger."""
_MEET_PX = 1 / 64
"""Pixels of two grids meet where they are no further apart than this."""
_MOST_SKIPPED = 64
"""Columns or rows before a crop that are resized with it at most."""


class Crop(NamedTuple):
    """What is decoded of an image, and what becomes of it: `box` resized by Pillow, or all of it by torch."""

    window: Window
    box: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom in pixels of the window and fractions of them, half-open."""
    step: tuple[float, float] | None = None
    """Columns and rows of the window for each of the resized one; None: those that give the crop."""
    skipped: tuple[int, int] = (0, 0)
    """Columns and rows of the resized window before the crop."""


def read_crop(
    source: Source,
    augment: AreaCrop | ScaleCrop,
    preprocessor: Preprocessor,
    uniforms: Float64[np.ndarray, " draws"],
    *,
    mirror: bool = False,
) -> UInt8[np.ndarray, "side side *rgb"]:
    """Return a random crop of the image in `source`, upright, at the model's size: RGB, or (side, side) of gray.

    Of an image that is resized and then cropped (`ScaleCrop`), only the crop is computed: the filter sees the same
    pixels around it, so the result is the same up to rounding and 1/64 of a pixel. An `AreaCrop` is rounded to whole
    pixels, as torchvision's are. A JPEG that is `SPARE` times larger than needed at 1/2, 1/4 or 1/8 of its size is
    decoded at that, and none further down than the crop goes.

    Args:
        source: an encoded image.
        augment: how crops are drawn.
        preprocessor: of the model.
        uniforms: AREA_CROP_DRAWS or SCALE_CROP_DRAWS numbers but the last, which is for mirroring.
        mirror: exchange left and right of the crop.

    Raises:
        ImageError: the image cannot be read.
    """
    side, interpolation = preprocessor.spec.crop_px, preprocessor.spec.interpolation
    with open_encoded(source, color=preprocessor.decode_color) as image:
        crop = place_crop(image, augment, side, uniforms)
        pixels = image.pixels(crop.window)
    if crop.box is not None:
        # The gap averages whole blocks of pixels first where the image is several times too large.
        image = Image.fromarray(pixels).resize((side, side), FILTERS[interpolation], box=crop.box, reducing_gap=2.0)
        return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else image)
    # A copy that is contiguous and can be written to; torch would make one, and warn.
    encoded = torch.from_numpy(np.array(pixels, order="C").reshape(1, *pixels.shape[:2], -1)).permute(0, 3, 1, 2)
    across, down = (None, None) if crop.step is None else (1 / step for step in crop.step)
    columns, rows = (slice(skipped, skipped + side) for skipped in crop.skipped)
    # What `interpolate` calls; that takes a size or a factor, and here the factor does not follow from the sizes.
    # In a direction in which the sizes agree it would copy, whatever the factor: one pixel more makes them differ.
    size = [
        wanted + (crop.step is not None and wanted == given)
        for wanted, given in zip((rows.stop, columns.stop), pixels.shape, strict=False)
    ]
    resized = _RESIZE[interpolation](encoded, size, False, down, across)
    cropped = resized[0, :, rows, columns].permute(1, 2, 0)
    cropped = cropped.flip(1) if mirror else cropped  # much faster than in NumPy
    return cropped.numpy().reshape(side, side, *pixels.shape[2:])


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
    divisor = next(divisor for divisor in image.divisors if given >= SPARE * divisor * needed or divisor == 1)
    if isinstance(augment, ScaleCrop):
        return _place_scale_crop(image, augment, side, uniforms, divisor)
    # The last pixel of a divided side may stand for fewer pixels than the others do.
    width, height = image.width // divisor, image.height // divisor
    left, top, right, bottom = area_crop_box(augment, width, height, uniforms)
    left, top = min(round(left), width - 1), min(round(top), height - 1)
    return Crop(Window(divisor, left, top, max(left + 1, round(right)), max(top + 1, round(bottom))))


def _place_scale_crop(
    image: EncodedImage, augment: ScaleCrop, side: int, uniforms: Float64[np.ndarray, " 3"], divisor: int
) -> Crop:
    width, height = -(-image.width // divisor), -(-image.height // divisor)
    place = scale_crop_place(augment, image.width, image.height, side, uniforms)
    step = image.width / divisor / place.width, image.height / divisor / place.height
    columns, rows = _meeting(place.left, side, step[0], width), _meeting(place.top, side, step[1], height)
    if columns is None or rows is None:
        left, top, right, bottom = scale_crop_box(augment, image.width, image.height, side, uniforms)
        box = left / divisor, top / divisor, right / divisor, bottom / divisor
        return _around(box, width, height, divisor)
    window = Window(divisor, columns.start, rows.start, columns.end, rows.end)
    return Crop(window, step=step, skipped=(columns.skipped, rows.skipped))


class _Meeting(NamedTuple):
    start: int
    """Pixel of the image at which a pixel of the resized one begins too."""
    end: int
    skipped: int
    """Pixels of the resized image from there to the crop."""


def _meeting(first: int, count: int, step: float, size: int) -> _Meeting | None:
    """Return what to resize, in one direction, so that pixels `first` ... of the resized image come out whole.

    Args:
        first: pixel of the resized image.
        count: of pixels.
        step: pixels of the image for each.
        size: of the image, in pixels.
    """
    reach = _FILTER_REACH * max(1.0, step)
    for skipped in range(min(first, math.ceil(reach / step)), _MOST_SKIPPED + 1):
        start = (first - skipped) * step
        if abs(start - round(start)) <= _MEET_PX:  # at the latest where the image begins
            return _Meeting(round(start), min(size, math.ceil((first + count) * step + reach)), skipped)
    return None


def _around(box: tuple[float, float, float, float], width: int, height: int, divisor: int) -> Crop:
    """Return the part of an image that resizing `box` looks at, and where the box is in it.

    Pillow keeps the corners of a box in 32 bits, too few for a place in a very long image.
    """
    left, top, right, bottom = box
    # A pixel of the resized image is at most as large as the box.
    across, down = (_FILTER_REACH * math.ceil(side) + 2 for side in (right - left, bottom - top))
    first = max(0, math.floor(left) - across), max(0, math.floor(top) - down)
    last = min(width, math.ceil(right) + across), min(height, math.ceil(bottom) + down)
    ends = min(float(last[0] - first[0]), right - first[0]), min(float(last[1] - first[1]), bottom - first[1])
    return Crop(Window(divisor, *first, *last), box=(left - first[0], top - first[1], *ends))
