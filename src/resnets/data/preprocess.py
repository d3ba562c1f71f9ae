"""One preprocessing for validation, testing, prediction and export: resize, centre crop, normalise.

Letters of shapes: n images, c channels, h height, w width. Pixels are in 0..255 throughout; `mean`, `std` and the
mean image have their channels in the order of `Preprocess.color`. torch is imported by `normalize` alone.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from resnets.data.decode import read_image, to_color
from resnets.data.splits import ResidentSplit
from resnets.specs.data import ImageFolder
from resnets.specs.preprocess import Preprocess

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    import torch
    from jaxtyping import Float32, UInt8
    from torch import Tensor

    from resnets.data.splits import Split
    from resnets.specs.data import DatasetSpec

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# A 1 x 100,000 pixel image resized to a shorter side of 256 would take gigabytes, and the crop sees its centre only.
_MAX_ASPECT = 16


class Preprocessor:
    """A `Preprocess` spec with its mean image, applied to images and to batches of pixels."""

    def __init__(self, spec: Preprocess, mean_image: Float32[np.ndarray, "h w c"] | None = None) -> None:
        """Join the spec and the mean image, which is given exactly when the spec says so.

        Raises:
            ValueError: the mean image is missing, superfluous, or not float32 of shape (crop, crop, channels).
        """
        expected = (spec.crop_px, spec.crop_px, spec.channels) if spec.mean_image else None
        found = None if mean_image is None else mean_image.shape
        if found != expected:
            raise ValueError(f"The preprocessing needs a mean image of shape {expected}; it is given {found}.")
        if mean_image is not None and mean_image.dtype != np.float32:
            raise ValueError(f"The mean image is float32; it is given as {mean_image.dtype}.")
        self.spec = spec
        self.mean_image = mean_image
        self._statistics: dict[torch.device, tuple[Tensor, Tensor | None]] = {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out the copies on devices, so that a worker process can be given a preprocessor."""
        return {"spec": self.spec, "mean_image": self.mean_image, "_statistics": {}}

    def same_as(self, other: Preprocessor) -> bool:
        """Return whether both turn every image into the same input."""
        if self.mean_image is None or other.mean_image is None:
            return self.spec == other.spec and self.mean_image is other.mean_image
        return self.spec == other.spec and np.array_equal(self.mean_image, other.mean_image)

    @property
    def decode_color(self) -> Literal["rgb", "gray"]:
        """What files are decoded to: BGR is RGB until the channels are reversed."""
        return "gray" if self.spec.color == "gray" else "rgb"

    def read(self, source: str | Path | io.BufferedIOBase) -> UInt8[np.ndarray, "crop crop c"]:
        """Return the pixels of an image file: the same as `pixels` of the image that it holds.

        Raises:
            ImageError: the file cannot be read; the message is the reason.
        """
        # Differs from training: the file is decoded in full, never scaled, so that a path and a loaded image agree.
        return self.pixels(read_image(source, color=self.decode_color))

    def pixels(self, image: Image.Image) -> UInt8[np.ndarray, "crop crop c"]:
        """Return the centre crop of an upright image of any mode, in the model's channel order.

        The shorter side is resized, antialiased, to `resize_px`; an image that has this size already is not
        resampled. Sizes and offsets are rounded as torchvision rounds them.
        """
        image = _centre_crop(self._resize(to_color(image, self.decode_color)), self.spec.crop_px)
        return self.arrange(np.asarray(image))

    def arrange(self, pixels: UInt8[np.ndarray, "h w *rgb"]) -> UInt8[np.ndarray, "h w c"]:
        """Return decoded pixels, (h, w) or RGB (h, w, 3), as (h, w, c) in the model's channel order."""
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        return np.array(pixels[:, :, ::-1] if self.spec.color == "bgr" else pixels, order="C")

    def normalize(self, batch: UInt8[Tensor, "n c h w"]) -> Float32[Tensor, "n c h w"]:
        """Return (pixel - mean) / std on the batch's device and in its memory format.

        Raises:
            ValueError: the batch is not uint8 or its shape does not fit.
        """
        import torch

        channels = self.spec.channels
        if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[1] != channels:
            raise ValueError(
                f"A batch of {batch.dtype} and shape {tuple(batch.shape)} cannot be normalised; it is uint8 of shape "
                f"(n, {channels}, height, width)."
            )
        if batch.device not in self._statistics:
            self._statistics[batch.device] = self._statistics_on(batch.device)
        mean, std = self._statistics[batch.device]
        output = batch.to(torch.float32).sub_(mean)
        return output if std is None else output.div_(std)

    def _statistics_on(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        import torch

        if self.mean_image is not None:
            mean = torch.from_numpy(self.mean_image).permute(2, 0, 1).unsqueeze(0)
        else:
            mean = torch.tensor(self.spec.mean, dtype=torch.float32).reshape(1, -1, 1, 1)
        if set(self.spec.std) == {1.0}:
            return mean.to(device), None
        std = torch.tensor(self.spec.std, dtype=torch.float32).reshape(1, -1, 1, 1)
        return mean.to(device), std.to(device)

    def _resize(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        shorter, longer = min(width, height), max(width, height)
        if longer > _MAX_ASPECT * shorter:
            kept = _MAX_ASPECT * shorter
            left, top = max(0, (width - kept) // 2), max(0, (height - kept) // 2)
            image = image.crop((left, top, min(width, left + kept), min(height, top + kept)))
            longer = kept
        side = self.spec.resize_px
        if shorter == side:
            return image
        resized = int(side * longer / shorter)
        size = (side, resized) if width <= height else (resized, side)
        return image.resize(size, _FILTERS[self.spec.interpolation])


def preprocess_for(dataset: DatasetSpec, train: Split) -> Preprocessor:
    """Return the preprocessing of a model that is trained on `train`.

    Digits and CIFAR images are kept whole, and the mean image of the training images is subtracted, without a
    division (He et al. 2015, Sec. 4.2). Folders are resized, cropped and normalised as their spec says.
    """
    if isinstance(dataset, ImageFolder):
        return Preprocessor(
            Preprocess(
                resize_px=dataset.resize_px,
                crop_px=dataset.image_px,
                color=dataset.color,
                mean=dataset.mean,
                std=dataset.std,
                interpolation=dataset.interpolation,
            )
        )
    assert isinstance(train, ResidentSplit)
    _, side, _, channels = train.images.shape
    spec = Preprocess(
        resize_px=side,
        crop_px=side,
        color="gray" if channels == 1 else "rgb",
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        mean_image=True,
    )
    return Preprocessor(spec, _mean_image(train.images))


def _mean_image(images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "h w c"]:
    # Exact: sums of bytes fit into 32 bits up to 16 million images, and integers have no rounding order.
    return (images.sum(axis=0, dtype=np.uint32) / len(images)).astype(np.float32)


def _centre_crop(image: Image.Image, side: int) -> Image.Image:
    if image.size == (side, side):
        return image
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))
