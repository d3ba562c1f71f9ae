"""What is trained and tested on, and how training images are varied (He et al. 2015, Sec. 3.4 and 4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from resnets.specs.errors import SpecError
from resnets.specs.preprocess import LARGEST_PX

DIGITS_CLASSES = tuple("0123456789")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
_LARGEST_SIDE = 32
"""Of the images that are padded: CIFAR's."""


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
    image_px: Literal[32, 16, 8] = 32
    """Side of the images: 32 as they are, or means of 2 x 2 or 4 x 4 pixels, for experiments in minutes on a CPU."""

    def __post_init__(self) -> None:
        """Refuse a split that leaves nothing to train on."""
        if not 0 <= self.validation_images < 50_000:
            raise SpecError(
                f"dataset.validation_images is {self.validation_images}; it is between 0 and 49999 (the paper: 5000)."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFolder:
    """A folder with one subfolder a class, with or without train/, val/ and test/ above them; or shards made of one."""

    image_px: int = 128
    """Side of the square images the model sees; 0 takes the size that the weights of `init` were trained at."""
    resize_px: int = 146
    """Shorter side to which validation and test images are resized before the centre crop; 0 goes with image_px 0."""
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    """What every image is converted to, in the model's channel order."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean a channel that is subtracted, in 0..255; unused where a mean image is."""
    std: tuple[float, ...] = IMAGENET_STD
    """Divisor a channel, in 0..255; 1 where the paper's recipe does not divide."""
    mean_image: bool = False
    """Subtract a mean image, one value a pixel and channel, computed once from the training images (the paper)."""
    statistics_images: int = 50_000
    """Training images, evenly spaced, that the mean image and the colour statistics are computed from; 0 takes all."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of every resize."""
    validation_fraction: float = 0.1
    """Share of each class held out, seeded, where the folder has no validation split."""
    split_seed: int = 0
    """Seed of that split; apart from the seed of the run, so that runs share their validation images."""
    shuffle_shards: int = 0
    """Shards whose images are shuffled together, so that few are read at a time (from a web server or a hard disk); 0
    shuffles all images, as of a folder."""

    def __post_init__(self) -> None:
        """Refuse sizes and shares that cannot be used."""
        if not (1 <= self.image_px <= self.resize_px <= LARGEST_PX or self.image_px == self.resize_px == 0):
            raise SpecError(
                f"dataset.image_px is {self.image_px} and dataset.resize_px is {self.resize_px}; the crop is at least 1 "
                f"pixel and no larger than the resized image, which has at most {LARGEST_PX}."
            )
        channels = 1 if self.color == "gray" else 3
        if not len(self.mean) == len(self.std) == channels:
            raise SpecError(
                f"dataset.color is {self.color!r}: dataset.mean and dataset.std need {channels} value(s), "
                f"they have {len(self.mean)} and {len(self.std)}."
            )
        if not all(0 < value < math.inf for value in self.std):
            raise SpecError(f"dataset.std is {self.std}; every value is above 0 and finite.")
        if not all(map(math.isfinite, self.mean)):
            raise SpecError(f"dataset.mean is {self.mean}; every value is finite.")
        if self.statistics_images < 0:
            raise SpecError(f"dataset.statistics_images is {self.statistics_images}; it is 0 (all) or more.")
        if self.shuffle_shards < 0:
            raise SpecError(f"dataset.shuffle_shards is {self.shuffle_shards}; it is 0 (all together) or more.")
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
        """Refuse a padding from which crops would show nothing of an image."""
        if not 0 <= self.pad_px <= _LARGEST_SIDE:
            raise SpecError(
                f"augment.pad_px is {self.pad_px}; it is at least 0 and at most {_LARGEST_SIDE}, the side of the images."
            )


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


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleCrop:
    """Resize to a random shorter side, crop at a random place, mirror half of the images (Sec. 3.4)."""

    min_resize_px: int = 256
    """Smallest shorter side, in pixels."""
    max_resize_px: int = 480
    """Largest shorter side, in pixels; every whole number between is as likely."""
    flip: bool = True
    """Mirror left and right with probability 0.5."""

    def __post_init__(self) -> None:
        """Refuse an empty range."""
        if not 1 <= self.min_resize_px <= self.max_resize_px <= LARGEST_PX:
            raise SpecError(
                f"augment.min_resize_px is {self.min_resize_px} and augment.max_resize_px is {self.max_resize_px}; "
                f"they are at least 1 and at most {LARGEST_PX}, and the first is no larger than the second."
            )


AugmentSpec = PadCrop | AreaCrop | ScaleCrop


@dataclass(frozen=True, kw_only=True, slots=True)
class Color:
    """How the colours of a training image are varied, after the crop; 0 leaves each out."""

    pca_std: float = 0.0
    """Standard deviation of the shifts along the principal axes of RGB; the paper's "standard color augmentation"
    is 0.1."""
    pca_axes: Literal["published", "training-set"] = "published"
    """Axes and eigenvalues: those published for ImageNet, or computed from the training images."""
    brightness: float = 0.0
    """Factor drawn from 1 - b ... 1 + b."""
    contrast: float = 0.0
    """Factor drawn from 1 - c ... 1 + c, around the image's mean gray."""
    saturation: float = 0.0
    """Factor drawn from 1 - s ... 1 + s, around each pixel's gray."""
    hue: float = 0.0
    """Turn of the hue drawn from -h ... h, as a share of the full circle; at most 0.5."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("pca_std", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SpecError(f"color.{name} is {getattr(self, name)}; it is 0 or more.")
        if not 0 <= self.hue <= 0.5:
            raise SpecError(f"color.hue is {self.hue}; it is between 0 and 0.5.")


@dataclass(frozen=True, kw_only=True, slots=True)
class NoPolicy:
    """No further operations on training images (the paper)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandAugment:
    """Some operations a training image, drawn from a fixed list, all of one strength (Cubuk et al. 2020)."""

    operations: int = 2
    """Operations an image."""
    magnitude: int = 9
    """Strength, 0 ... 30."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.operations < 1 or not 0 <= self.magnitude <= 30:
            raise SpecError(
                f"policy.operations is {self.operations} and policy.magnitude is {self.magnitude}; they are at least "
                "1, and between 0 and 30."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrivialAugment:
    """One operation a training image, of random kind and strength (Müller and Hutter 2021)."""


PolicySpec = NoPolicy | RandAugment | TrivialAugment


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """Training images blended with, or pasted into, another one of the batch; where both are on, either is as likely."""

    mixup_alpha: float = 0.0
    """Blend two images; the share is drawn from Beta(alpha, alpha) (Zhang et al. 2018). 0 is off."""
    cutmix_alpha: float = 0.0
    """Paste a rectangle of another image; its area is drawn from Beta(alpha, alpha) (Yun et al. 2019). 0 is off."""

    def __post_init__(self) -> None:
        """Refuse negative values."""
        if not (0 <= self.mixup_alpha < math.inf and 0 <= self.cutmix_alpha < math.inf):
            raise SpecError(
                f"mix.mixup_alpha is {self.mixup_alpha} and mix.cutmix_alpha is {self.cutmix_alpha}; both are 0 or more."
            )
