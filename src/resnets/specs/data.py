"""What is trained and tested on, and how training images are varied (He et al. 2015, Sec. 3.4 and 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnets.specs.errors import SpecError

DIGITS_CLASSES = tuple("0123456789")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True, slots=True)
class Digits:
    """The 1,797 handwritten digits, 8 x 8 and gray, that scikit-learn carries: 1,437 train, 360 test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cifar:
    """CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test images, 32 x 32 (Sec. 4.2)."""

    num_classes: Literal[10, 100] = 10
    """10, or 100 (fine labels)."""
    validation_images: int = 0
    """Last images of the training set that are held out; 5000 is the split on which the schedule was chosen."""

    def __post_init__(self) -> None:
        """Refuse a split that leaves nothing to train on."""
        if not 0 <= self.validation_images < 50_000:
            raise SpecError(
                f"dataset.validation_images is {self.validation_images}; it is between 0 and 49999 (the paper: 5000)."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFolder:
    """A folder with one subfolder a class, with or without train/, val/ and test/ above them."""

    image_px: int = 128
    """Side of the square images the model sees."""
    resize_px: int = 146
    """Shorter side to which validation and test images are resized before the centre crop."""
    color: Literal["rgb", "gray"] = "rgb"
    """What every image is converted to."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean a channel that is subtracted, in 0..255."""
    std: tuple[float, ...] = IMAGENET_STD
    """Divisor a channel, in 0..255."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of every resize."""
    validation_fraction: float = 0.1
    """Share of each class held out, seeded, where the folder has no validation split."""
    split_seed: int = 0
    """Seed of that split; apart from the seed of the run, so that runs share their validation images."""

    def __post_init__(self) -> None:
        """Refuse sizes and shares that cannot be used."""
        if not 1 <= self.image_px <= self.resize_px:
            raise SpecError(
                f"dataset.image_px is {self.image_px} and dataset.resize_px is {self.resize_px}; "
                "the crop is at least 1 pixel and no larger than the resized image."
            )
        channels = 1 if self.color == "gray" else 3
        if not len(self.mean) == len(self.std) == channels:
            raise SpecError(
                f"dataset.color is {self.color!r}: dataset.mean and dataset.std need {channels} value(s), "
                f"they have {len(self.mean)} and {len(self.std)}."
            )
        if min(self.std) <= 0:
            raise SpecError(f"dataset.std is {self.std}; every value is above 0.")
        if not 0 < self.validation_fraction < 1:
            raise SpecError(f"dataset.validation_fraction is {self.validation_fraction}; it lies between 0 and 1.")


DatasetSpec = Digits | Cifar | ImageFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class PadCrop:
    """Pad with zeros (after the mean is subtracted), crop at a random place, mirror half of the images."""

    pad_px: int = 4
    """Pixels added on each side; the crop has the original size."""
    flip: bool = True
    """Mirror left and right with probability 0.5."""

    def __post_init__(self) -> None:
        """Refuse a negative padding."""
        if self.pad_px < 0:
            raise SpecError(f"augment.pad_px is {self.pad_px}; it is 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class AreaCrop:
    """Crop a random share of the area at a random aspect ratio and resize it ("Inception-style" crop)."""

    min_area: float = 0.35
    """Smallest share of the image's area that a crop covers."""
    max_aspect: float = 4 / 3
    """Largest width : height of a crop; the smallest is its inverse."""
    flip: bool = True
    """Mirror left and right with probability 0.5."""

    def __post_init__(self) -> None:
        """Refuse shares and ratios that no crop has."""
        if not 0 < self.min_area <= 1:
            raise SpecError(f"augment.min_area is {self.min_area}; it is above 0 and at most 1.")
        if self.max_aspect < 1:
            raise SpecError(f"augment.max_aspect is {self.max_aspect}; it is at least 1.")


AugmentSpec = PadCrop | AreaCrop
