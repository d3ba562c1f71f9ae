"""Random erasing (Zhong et al. 2020) on the normalised batch: a rectangle of some images becomes 0, the mean colour.

Sizes and places are drawn as by `torchvision.transforms.v2.RandomErasing` with its defaults: 2 to 33 % of the area,
width to height log-uniform in 0.3 ... 3.3, and up to ten attempts to find a rectangle that fits.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from resnets.data.transfer import sent

_ATTEMPTS = 10
_AREA = (0.02, 0.33)
_LOG_ASPECT = (math.log(0.3), math.log(3.3))

ERASE_DRAWS = 3 + 2 * _ATTEMPTS
"""Random numbers that `rectangles` takes an image: whether, two for the place, two for the size of each attempt."""


class Rectangles(NamedTuple):
    """One rectangle an image in whole pixels, half-open; an empty one where nothing is erased."""

    tops: Int64[np.ndarray, " n"]
    bottoms: Int64[np.ndarray, " n"]
    lefts: Int64[np.ndarray, " n"]
    rights: Int64[np.ndarray, " n"]


def rectangles(probability: float, height: int, width: int, uniforms: Float64[np.ndarray, "n draws"]) -> Rectangles:
    """Return what to erase of images of `height` x `width`: of each with `probability`, if an attempt fits."""
    shares, aspects = uniforms[:, 3::2], uniforms[:, 4::2]
    area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * shares)
    aspect = np.exp(_LOG_ASPECT[0] + (_LOG_ASPECT[1] - _LOG_ASPECT[0]) * aspects)
    heights = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    widths = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (heights < height) & (widths < width)
    first = (np.arange(len(uniforms)), fits.argmax(axis=1))
    erased = fits.any(axis=1) & (uniforms[:, 0] < probability)
    heights, widths = heights[first] * erased, widths[first] * erased
    tops = (uniforms[:, 1] * (height - heights + 1)).astype(np.int64)
    lefts = (uniforms[:, 2] * (width - widths + 1)).astype(np.int64)
    return Rectangles(tops, tops + heights, lefts, lefts + widths)


def erase_(images: Float[Tensor, "n c h w"], chosen: Rectangles) -> Float[Tensor, "n c h w"]:
    """Set the rectangle of each image to 0, in place."""
    if images.device.type == "cpu":
        for image, top, bottom, left, right in zip(images, *chosen, strict=True):
            image[:, top:bottom, left:right] = 0
        return images
    return erase_with_mask_(images, chosen)


def erase_with_mask_(images: Float[Tensor, "n c h w"], chosen: Rectangles) -> Float[Tensor, "n c h w"]:
    """Do what `erase_` does in a few operations on the whole batch, which suits an accelerator."""
    bounds = sent(torch.from_numpy(np.stack(chosen)), images.device)
    tops, bottoms, lefts, rights = bounds[:, :, None]
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside = ((rows >= tops) & (rows < bottoms))[:, :, None] & ((columns >= lefts) & (columns < rights))[:, None, :]
    return images.masked_fill_(inside[:, None], 0)
