"""How an image becomes the input of a model: one spec, stored with the model and used wherever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnets.specs.errors import SpecError
from resnets.specs.io import shown

ColorOrder = Literal["rgb", "bgr", "gray"]

LARGEST_PX = 4_096
"""Largest size of an input: one image of it takes gigabytes in the first layers of a net."""
_LARGEST_STATISTIC = 1e6
_SMALLEST_STD = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """Resize, centre crop, channel order and normalisation, in this order.

    input = (pixel - mean) / std, with pixels in 0..255.
    """

    resize_px: int
    """Shorter side that the image is resized to, aspect kept, before the crop."""
    crop_px: int
    """Side of the square centre crop: the size the model sees."""
    color: ColorOrder = "rgb"
    """Order of the channels that the model expects."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Mean a channel that is subtracted, in 0..255; unused where there is a mean image."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Divisor a channel, in 0..255; 1 where the paper's recipe does not divide."""
    mean_image: bool = False
    """Subtract a mean image, one value a pixel and channel, stored beside the weights (the paper's way)."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resize; both are antialiased."""

    def __post_init__(self) -> None:
        """Refuse sizes and statistics that cannot be used."""
        if not 1 <= self.crop_px <= self.resize_px <= LARGEST_PX:
            raise SpecError(
                f"preprocess: crop_px is {shown(self.crop_px)} and resize_px is {shown(self.resize_px)}; the crop is at "
                f"least 1 pixel and no larger than the resized image, which has at most {LARGEST_PX}."
            )
        if not len(self.mean) == len(self.std) == self.channels:
            raise SpecError(
                f"preprocess: color {self.color!r} has {self.channels} channel(s), but mean has {len(self.mean)} "
                f"values and std has {len(self.std)}."
            )
        if not all(-_LARGEST_STATISTIC <= value <= _LARGEST_STATISTIC for value in self.mean):
            raise SpecError(
                f"preprocess: mean is {self.mean}; every value is a number between {-_LARGEST_STATISTIC:g} and "
                f"{_LARGEST_STATISTIC:g}."
            )
        if not all(_SMALLEST_STD <= value <= _LARGEST_STATISTIC for value in self.std):
            raise SpecError(
                f"preprocess: std is {self.std}; every value is a number above 0, between {_SMALLEST_STD:g} and "
                f"{_LARGEST_STATISTIC:g}."
            )

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return 1 if self.color == "gray" else 3
