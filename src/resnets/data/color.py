"""Colours of training images, varied on the batch between the bytes of the pixels and the subtraction of the mean.

The paper's "standard color augmentation" (He et al. 2015, Sec. 3.4) is that of Krizhevsky et al. 2012: every pixel of
an image is shifted by one colour, drawn along the principal axes of RGB over the training set. Brightness, contrast,
saturation and hue are those of `torchvision.transforms.v2.ColorJitter`, in this order instead of a random one; they
come first and keep values within 0 ... 255. The shift is not cut off there: it is part of the mean that is subtracted.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor

from resnets.data.preprocess import Preprocessor, chunks
from resnets.data.transfer import sent
from resnets.specs.data import Color

COLOR_DRAWS = 8
"""Random numbers that the colours of an image take: four for the shift, then one for each of the other changes."""

PUBLISHED_AXES = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
"""Principal axes of RGB over ImageNet's training images: rows R, G, B; one axis a column."""
PUBLISHED_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
"""Eigenvalues of the covariance of ImageNet's pixels in 0 ... 1, one an axis."""

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)


class ColorAugment:
    """Varies the colours of a batch and normalises it."""

    def __init__(
        self,
        color: Color,
        preprocessor: Preprocessor,
        axes: Float64[np.ndarray, "3 3"] = PUBLISHED_AXES,
        eigenvalues: Float64[np.ndarray, " 3"] = PUBLISHED_EIGENVALUES,
    ) -> None:
        """Keep what is needed.

        Args:
            color: what is varied, and how much.
            preprocessor: gives the order of the channels, which are three, and normalises.
            axes: principal axes of RGB, unit vectors, one a column; rows R, G, B.
            eigenvalues: variance along each axis of pixels in 0 ... 1. A shift along an axis is this number times 255
                times a normal one, as in the released recipes: in proportion to the range of the pixels.
        """
        self._color = color
        self._preprocessor = preprocessor
        self._is_bgr = preprocessor.spec.color == "bgr"
        self._shift_of_normals = (axes * eigenvalues).T * (255 * color.pca_std)

    def __call__(
        self, pixels: UInt8[Tensor, "n 3 h w"], uniforms: Float64[np.ndarray, "n 8"]
    ) -> Float32[Tensor, "n 3 h w"]:
        """Return the normalised batch in new memory of the same format; a row of `uniforms` decides on an image."""
        shift = sent(torch.from_numpy(self.shift(uniforms[:, :4])), pixels.device)
        color = self._color
        if not (color.brightness or color.contrast or color.saturation or color.hue):
            return self._preprocessor.normalize(pixels, shift)
        factors = sent(torch.from_numpy(jitter_factors(color, uniforms[:, 4:])), pixels.device)
        output = torch.empty_like(pixels, dtype=torch.float32)
        for chunk in chunks(pixels):
            # One plane a channel: the arithmetic on single channels is several times as fast on a CPU.
            rgb = (pixels[chunk].flip(1) if self._is_bgr else pixels[chunk]).contiguous().to(torch.float32)
            varied = jitter(rgb, color, factors[chunk])
            output[chunk] = varied.flip(1) if self._is_bgr else varied
            self._preprocessor.normalize_(output[chunk], shift[chunk])
        return output

    def shift(self, uniforms: Float64[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 3"]:
        """Return what is added to each channel of each image, in 0 ... 255 and in the model's channel order."""
        shift = standard_normals(uniforms)[:, :3] @ self._shift_of_normals
        return np.ascontiguousarray(shift[:, ::-1] if self._is_bgr else shift, dtype=np.float32)


def standard_normals(uniforms: Float64[np.ndarray, "n draws"]) -> Float64[np.ndarray, "n draws"]:
    """Return as many independent normal numbers as there are uniform ones, an even number a row (Box and Muller)."""
    radius = np.sqrt(-2 * np.log1p(-uniforms[:, 0::2]))
    angle = 2 * np.pi * uniforms[:, 1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def jitter_factors(color: Color, uniforms: Float64[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
    """Return factors of brightness, contrast and saturation, at least 0, and the turn of the hue for each image."""
    strengths = np.array([color.brightness, color.contrast, color.saturation, color.hue])
    middle = np.array([1.0, 1.0, 1.0, 0.0])
    lowest = middle - strengths
    lowest[:3] = np.maximum(lowest[:3], 0)
    return (lowest + (middle + strengths - lowest) * uniforms).astype(np.float32)


def jitter(values: Float[Tensor, "n 3 h w"], color: Color, factors: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 h w"]:
    """Return RGB images in 0 ... 255 with other brightness, contrast, saturation and hue; those that are 0 stay.

    May overwrite `values`.
    """
    brightness, contrast, saturation, hue = factors[:, :, None, None, None].unbind(1)
    if color.brightness:
        values = values.mul_(brightness).clamp_(0, 255)
    if color.contrast:
        gray = _gray(values.mean(dim=(2, 3), keepdim=True))
        values = values.mul_(contrast).add_(gray.mul_(1 - contrast)).clamp_(0, 255)
    if color.saturation:
        gray = _gray(values)
        values = values.mul_(saturation).add_(gray.mul_(1 - saturation)).clamp_(0, 255)
    return _turned_hue(values, hue) if color.hue else values


def _gray(values: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    red, green, blue = values.unbind(1)
    weights = _GRAY_WEIGHTS
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2]).unsqueeze(1)


def _turned_hue(values: Float[Tensor, "n 3 h w"], turn: Float[Tensor, "n 1 1 1"]) -> Float[Tensor, "n 3 h w"]:
    """Return the images with the hue of HSV turned by a share of the full circle."""
    red, green, blue = values.unbind(1)
    value = values.amax(dim=1)
    chroma = value - values.amin(dim=1)
    # Where there is no colour there is no hue, and any is right.
    divisor = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    ).add_(turn[:, 0] * 6)

    def channel(offset: int) -> Tensor:
        # A channel falls from its highest value to its lowest over a sixth of the circle, and rises again later.
        sextant = (hue + offset).remainder_(6)
        return value - chroma * torch.minimum(sextant, 4 - sextant).clamp_(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)
