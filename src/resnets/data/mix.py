"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) on the normalised batch, as in `torchvision.transforms.v2`.

The partner of an image is the one before it in the batch; the stream of training images is shuffled already. One draw
holds for the whole batch of a process. Both labels count: an image belongs to its own by the share of it that is left.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from resnets.data.splits import Batch
from resnets.specs.data import Mix

MIX_DRAWS = 4
"""Random numbers that `mixed` takes a batch: which of both, the share, and two for the place of the rectangle."""


def mixed(batch: Batch, mix: Mix, uniforms: Float64[np.ndarray, " 4"]) -> Batch:
    """Return `batch` with each image mixed with the one before it, or as it is where it has no other image.

    `batch.images` may be overwritten. `own_share` is a share of the values (Mixup) or of the area (CutMix).
    """
    if len(batch) < 2:
        return batch
    cut = mix.cutmix_alpha > 0 and (mix.mixup_alpha == 0 or float(uniforms[0]) < 0.5)
    share = beta_quantile(mix.cutmix_alpha if cut else mix.mixup_alpha, float(uniforms[1]))
    images = batch.images
    if cut:
        height, width = images.shape[2:]
        top, bottom, left, right = cutmix_rectangle(height, width, share, float(uniforms[2]), float(uniforms[3]))
        share = 1 - (bottom - top) * (right - left) / (height * width)
        images[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].roll(1, 0)
    else:
        images = _blended(images, share)
    return dataclasses.replace(batch, images=images, partner_labels=batch.labels.roll(1), own_share=share)


def beta_quantile(alpha: float, uniform: float) -> float:
    """Return the value that a draw from Beta(alpha, alpha) stays below with probability `uniform`."""
    from scipy.special import betaincinv

    return float(betaincinv(alpha, alpha, uniform))


def cutmix_rectangle(
    height: int, width: int, share: float, vertical: float, horizontal: float
) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of what is pasted: about 1 - share of the area, cut off at the image's rim.

    Args:
        height: of the images, in pixels.
        width: of the images, in pixels.
        share: of the area that the image keeps.
        vertical: decides on the row of the centre, in [0, 1).
        horizontal: decides on the column of the centre, in [0, 1).
    """
    row, column = int(vertical * height), int(horizontal * width)
    half_side = 0.5 * math.sqrt(1 - share)
    half_height, half_width = int(half_side * height), int(half_side * width)
    return (
        max(0, row - half_height),
        min(height, row + half_height),
        max(0, column - half_width),
        min(width, column + half_width),
    )


def _blended(images: Float[Tensor, "n c h w"], share: float) -> Float[Tensor, "n c h w"]:
    return images.roll(1, 0).lerp_(images, share)
