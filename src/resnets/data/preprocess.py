"""One preprocessing for validation, testing, prediction and export: resize, centre crop, normalise.

Letters of shapes: n images, c channels, h height, w width. Pixels are in 0..255 throughout; `mean`, `std` and the
mean image have their channels in the order of `Preprocess.color`. torch is imported by `normalize` alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from resnets.data.decode import Source, read_image, to_color
from resnets.data.splits import ResidentSplit
from resnets.specs.data import ImageFolder
from resnets.specs.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    import torch
    from jaxtyping import Float32, Shaped, UInt8
    from torch import Tensor

    from resnets.data.splits import Split
    from resnets.data.statistics import Statistics
    from resnets.specs.data import DatasetSpec

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Pillow's names of the filters."""

# So many floats fit into the cache of a core, where they are read and written several times.
_CHUNK_VALUES = 2**17

# A 1 x 100,000 pixel image resized to a shorter side of 256 would take gigabytes, and the crop sees its centre only.
_MAX_ASPECT = 16


class _Constants(NamedTuple):
    """What is subtracted and divided by, on one device."""

    mean_image: Float32[Tensor, "c h w"] | None
    mean: Float32[Tensor, "1 c"]
    std: Float32[Tensor, "1 c"] | None


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
        self._on_device: dict[torch.device, _Constants] = {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out the copies on devices, so that a worker process can be given a preprocessor."""
        return {"spec": self.spec, "mean_image": self.mean_image, "_on_device": {}}

    def same_as(self, other: Preprocessor) -> bool:
        """Return whether both turn every image into the same input."""
        if self.mean_image is None or other.mean_image is None:
            return self.spec == other.spec and self.mean_image is other.mean_image
        return self.spec == other.spec and np.array_equal(self.mean_image, other.mean_image)

    @property
    def decode_color(self) -> Literal["rgb", "gray"]:
        """What files are decoded to: BGR is RGB until the channels are reversed."""
        return "gray" if self.spec.color == "gray" else "rgb"

    def read(self, source: Source) -> UInt8[np.ndarray, "crop crop c"]:
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
        image = _centre_crop(self.resize(to_color(image, self.decode_color), self.spec.resize_px), self.spec.crop_px)
        return self.arrange(np.asarray(image))

    def arrange(self, pixels: UInt8[np.ndarray, "h w *rgb"]) -> UInt8[np.ndarray, "h w c"]:
        """Return decoded pixels, (h, w) or RGB (h, w, 3), as (h, w, c) in the model's channel order."""
        if pixels.ndim == 2:
            pixels = pixels[:, :, np.newaxis]
        return np.array(pixels[:, :, ::-1] if self.spec.color == "bgr" else pixels, order="C")

    def normalize(
        self, batch: UInt8[Tensor, "n c h w"], shift: Float32[Tensor, "n c"] | None = None
    ) -> Float32[Tensor, "n c h w"]:
        """Return (pixel + shift - mean) / std on the batch's device and in its memory format.

        The mean is the mean image where there is one; of a batch of another size, it is the mean image's average of
        each channel (He et al. 2015 test at several sizes, Sec. 3.4). `shift`, on the same device, is 0 by default.

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
        output = torch.empty_like(batch, dtype=torch.float32)
        for chunk in chunks(batch):
            values = output[chunk].copy_(batch[chunk])
            self.normalize_(values, None if shift is None else shift[chunk])
        return output

    def normalize_(
        self, values: Float32[Tensor, "n c h w"], shift: Float32[Tensor, "n c"] | None = None
    ) -> Float32[Tensor, "n c h w"]:
        """Do to pixels of 0..255 in float32 what `normalize` does, in place."""
        if values.device not in self._on_device:
            self._on_device[values.device] = self._constants_on(values.device)
        image, mean, std = self._on_device[values.device]
        width = values.shape[3]
        if image is None or image.shape[1:] != values.shape[2:]:
            values.sub_(_rows(mean if shift is None else mean - shift, width))
        else:
            values.sub_(image if shift is None else image - _rows(shift, width))
        return values if std is None else values.div_(_rows(std, width))

    def _constants_on(self, device: torch.device) -> _Constants:
        import torch

        image = None if self.mean_image is None else torch.from_numpy(self.mean_image).permute(2, 0, 1).to(device)
        mean = self.spec.mean if self.mean_image is None else self.mean_image.mean(axis=(0, 1), dtype=np.float64)
        std = None if set(self.spec.std) == {1.0} else torch.tensor([self.spec.std], dtype=torch.float32, device=device)
        return _Constants(image, torch.tensor(np.array([mean], np.float32), device=device), std)

    def resize(self, image: Image.Image, shorter_px: int) -> Image.Image:
        """Return the image with its shorter side resized, antialiased, to `shorter_px`; see `resized_size`."""
        width, height = _within_aspect(*image.size)
        if (width, height) != image.size:
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        size = resized_size(width, height, shorter_px)
        return image if size == image.size else image.resize(size, FILTERS[self.spec.interpolation])


def resized_size(width: int, height: int, shorter_px: int) -> tuple[int, int]:
    """Return width and height of an image whose shorter side is resized to `shorter_px`, rounded as torchvision does.

    Of an image that is more than 16 times as long as wide, the middle that is not.
    """
    width, height = _within_aspect(width, height)
    if width <= height:
        return shorter_px, int(shorter_px * height / width)
    return int(shorter_px * width / height), shorter_px


def _within_aspect(width: int, height: int) -> tuple[int, int]:
    return min(width, _MAX_ASPECT * height), min(height, _MAX_ASPECT * width)


def chunks(batch: Shaped[Tensor, "n c h w"]) -> Iterator[slice]:
    """Yield parts of the batch, which it is worth to work through one after the other: on an accelerator, one."""
    size = len(batch)
    if batch.device.type == "cpu":
        size = max(1, _CHUNK_VALUES // max(1, math.prod(batch.shape[1:])))
    for start in range(0, len(batch), max(1, size)):
        yield slice(start, start + size)


def _rows(values: Float32[Tensor, "n c"], width: int) -> Float32[Tensor, "n c 1 w"]:
    """Return a value a channel, repeated along a row in the memory format channels-last.

    Subtracting whole rows is several times as fast on a CPU as subtracting one value a channel from each pixel.
    """
    return values[:, None, None, :].expand(-1, 1, width, -1).contiguous().permute(0, 3, 1, 2)


def preprocess_for(dataset: DatasetSpec, train: Split, statistics: Statistics | None = None) -> Preprocessor:
    """Return the preprocessing of a model that is trained on `train`.

    Digits and CIFAR images are kept whole, and the mean image of the training images is subtracted, without a
    division (He et al. 2015, Sec. 4.2). Folders are resized, cropped and normalised as their spec says; `statistics`
    of the training images have the mean image where the spec asks for one.

    Raises:
        ValueError: the spec asks for a mean image, and `statistics` has none of the right size.
    """
    if isinstance(dataset, ImageFolder):
        mean_image = statistics.mean_image if statistics and dataset.mean_image else None
        return Preprocessor(folder_preprocess(dataset), mean_image)
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


def folder_preprocess(dataset: ImageFolder) -> Preprocess:
    """Return how the images of a folder become inputs, as far as its spec says: not the mean image itself."""
    return Preprocess(
        resize_px=dataset.resize_px,
        crop_px=dataset.image_px,
        color=dataset.color,
        mean=dataset.mean,
        std=dataset.std,
        mean_image=dataset.mean_image,
        interpolation=dataset.interpolation,
    )


def _mean_image(images: UInt8[np.ndarray, "n h w c"]) -> Float32[np.ndarray, "h w c"]:
    # Exact: sums of bytes fit into 32 bits up to 16 million images, and integers have no rounding order.
    return (images.sum(axis=0, dtype=np.uint32) / len(images)).astype(np.float32)


def _centre_crop(image: Image.Image, side: int) -> Image.Image:
    if image.size == (side, side):
        return image
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))
