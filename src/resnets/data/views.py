"""The views of an image that a test protocol sees: where they lie, and which images can share a batch.

Ten crops are five of the resized image and their mirror images (He et al. 2015, Tables 2 and 3); dense testing sees
the whole image at several sizes (Tables 4 and 5). Mirroring is left to the device. Letters of shapes: v views of one
size of an image, h height, w width, c channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnets.data.preprocess import Preprocessor, resized_size
from resnets.specs.protocol import Dense, TenCrop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from jaxtyping import Int64, UInt8
    from PIL import Image

ManyViews = TenCrop | Dense
"""Protocols that see more of an image than its centre."""

REFERENCE_CROP_PX = 224
"""The training crop that `Dense.scales_px` are meant for."""

Size = tuple[int, int]
"""Width and height of an image, in pixels."""


def five_crops(width: int, height: int, side: int, corners: Literal["image", "square"]) -> list[tuple[int, int]]:
    """Return left and top of the crops of `side` pixels: four corners, left before right and top first, and the centre.

    The corners are those of the whole image, or of the square in its middle (Krizhevsky et al. 2012). Offsets are
    rounded as for the centre crop.

    >>> five_crops(341, 256, 224, "image")
    [(0, 0), (117, 0), (0, 32), (117, 32), (58, 16)]
    >>> five_crops(341, 256, 224, "square")
    [(42, 0), (74, 0), (42, 32), (74, 32), (58, 16)]
    """
    left, top, right, bottom = 0, 0, width, height
    if corners == "square":
        square = min(width, height)
        left, top = round((width - square) / 2), round((height - square) / 2)
        right, bottom = left + square, top + square
    centre = round((width - side) / 2), round((height - side) / 2)
    return [
        (left, top),
        (right - side, top),
        (left, bottom - side),
        (right - side, bottom - side),
        centre,
    ]


def shorter_sides(protocol: Dense, crop_px: int) -> tuple[int, ...]:
    """Return the shorter sides at which a net trained on crops of `crop_px` pixels is tested.

    >>> shorter_sides(Dense(), 224), shorter_sides(Dense(), 56)
    ((224, 256, 384, 480, 640), (56, 64, 96, 120, 160))
    """
    return tuple(max(1, round(scale * crop_px / REFERENCE_CROP_PX)) for scale in protocol.scales_px)


def views(image: Image.Image, preprocessor: Preprocessor, protocol: ManyViews) -> list[UInt8[np.ndarray, "v h w c"]]:
    """Return the views of an upright image in mode "RGB" or "L", for each size those of that size, not mirrored.

    Five of one size for ten crops; one of each size for dense testing.
    """
    spec = preprocessor.spec
    match protocol:
        case TenCrop(corners=corners):
            pixels = preprocessor.arrange(np.asarray(preprocessor.resize(image, spec.resize_px)))
            places = five_crops(pixels.shape[1], pixels.shape[0], spec.crop_px, corners)
            return [np.stack([pixels[y : y + spec.crop_px, x : x + spec.crop_px] for x, y in places])]
        case Dense():
            resized = (preprocessor.resize(image, side) for side in shorter_sides(protocol, spec.crop_px))
            return [preprocessor.arrange(np.asarray(one))[np.newaxis] for one in resized]


def batches_of_equal_shape(
    sizes: Sequence[Size | None], sides: Sequence[int], *, max_pixels: int, max_images: int
) -> list[Int64[np.ndarray, " _"]]:
    """Return the places of the images that can share a batch: resized to each of `sides`, they have equal shapes.

    Every image is in one batch, and batches are in the order of their first images.

    Args:
        sizes: width and height of each image; None where it is not known.
        sides: shorter sides that every image is resized to.
        max_pixels: pixels of a batch, over all sides; a single image may have more.
        max_images: images of a batch.
    """
    groups: dict[tuple[Size, ...] | None, list[int]] = {}
    for place, size in enumerate(sizes):
        shapes = None if size is None else tuple(resized_size(*size, side) for side in sides)
        groups.setdefault(shapes, []).append(place)
    batches = []
    for shapes, places in groups.items():
        pixels = sum(width * height for width, height in shapes or ())
        count = max(1, min(max_images, max_pixels // max(1, pixels)))
        batches += [places[start : start + count] for start in range(0, len(places), count)]
    return [np.array(places, dtype=np.int64) for places in sorted(batches)]
