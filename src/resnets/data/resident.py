"""Training batches of images that live in memory: pad, crop at a random place, mirror (He et al. 2015, Sec. 4.2).

The padding is zero *after* the mean is subtracted. Images are kept padded as they are, in bytes, and the mean is
padded with zeros too: cropping both at the same place and subtracting gives just that, without storing floats.

On the CPU this is NumPy: one gather of strided windows a batch. The same in torch operations takes several times
as long there, but runs on every other device. Both give equal bits.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped, UInt8
from torch import Tensor

from resnets.data.augment import PAD_CROP_DRAWS, PadCrops, pad_crops
from resnets.data.batch_augment import BatchAugment
from resnets.data.order import TrainingStream
from resnets.data.preprocess import Preprocessor
from resnets.data.splits import Batch, ResidentSplit
from resnets.data.transfer import sent
from resnets.specs.data import PadCrop
from resnets.specs.errors import DataError
from resnets.specs.preprocess import Preprocess


class NumpyCropper:
    """Crops, mirrors and normalises resident images on the CPU, in one thread."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "n height width channels"],
        mean: Float32[np.ndarray, "height width channels"],
        std: Float32[np.ndarray, " channels"],
        pad_px: int,
    ) -> None:
        """Copy `images` into padded ones."""
        _, height, width, channels = images.shape
        self._pad_px = pad_px
        self._windows = _windows(_padded(images, pad_px), height, width)
        # A mirrored crop needs the mirrored mean, so both are there to choose from.
        padded_mean = _padded(mean[None], pad_px)
        self._mean_windows = _windows(np.concatenate([padded_mean, padded_mean[:, :, ::-1]]), height, width)
        # Mirroring moves whole pixels: one item of `channels` bytes is faster to copy than so many items.
        self._pixel = np.dtype((np.void, channels))
        self._std = None if (std == 1).all() else np.ascontiguousarray(np.broadcast_to(std, mean.shape))

    def __call__(self, indices: Int64[np.ndarray, " n"], crops: PadCrops) -> Float[Tensor, "n height width channels"]:
        """Return the normalised crops of the images at `indices`, in new memory."""
        tops, lefts, flips = crops
        pixels = self._windows[indices, tops, lefts]
        _mirror(pixels.view(self._pixel)[..., 0], flips)
        # Seen from the other side, a crop `left` from the left edge is 2 * pad - left from it.
        mean = self._mean_windows[flips.astype(np.intp), tops, np.where(flips, 2 * self._pad_px - lefts, lefts)]
        output = torch.empty(pixels.shape, dtype=torch.float32)
        result = output.numpy()
        np.subtract(pixels, mean, out=result)
        if self._std is not None:
            result /= self._std
        return output


class TorchCropper:
    """Crops, mirrors and normalises resident images on any device, with the result of `NumpyCropper`."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "n height width channels"],
        mean: Float32[np.ndarray, "height width channels"],
        std: Float32[np.ndarray, " channels"],
        pad_px: int,
        device: torch.device,
    ) -> None:
        """Copy `images`, padded, to `device`."""
        _, height, width, _ = images.shape
        self._device = device
        self._images = torch.from_numpy(_padded(images, pad_px)).to(device)
        self._mean = torch.from_numpy(_padded(mean[None], pad_px)[0]).to(device)
        self._std = None if (std == 1).all() else torch.from_numpy(std).to(device)
        self._rows = torch.arange(height, device=device)
        self._columns = torch.arange(width, device=device)

    def __call__(self, indices: Int64[np.ndarray, " n"], crops: PadCrops) -> Float[Tensor, "n height width channels"]:
        """Return the normalised crops of the images at `indices`, in new memory."""
        # One small transfer a batch instead of four.
        choices = sent(torch.from_numpy(np.stack([indices, *crops])), self._device)
        index, top, left, flip = choices[:, :, None]
        rows = (top + self._rows)[:, :, None]
        mirrored = self._columns.flip(0)
        columns = (left + torch.where(flip.bool(), mirrored, self._columns))[:, None, :]
        output = self._images[index[:, :, None], rows, columns] - self._mean[rows, columns]
        return output if self._std is None else output.div_(self._std)


class ResidentBatches:
    """Endless training batches of a `ResidentSplit`; see `TrainingBatches`."""

    def __init__(
        self,
        split: ResidentSplit,
        preprocessor: Preprocessor,
        augment: PadCrop,
        stream: TrainingStream,
        batch_augment: BatchAugment,
        *,
        device: torch.device,
        channels_last: bool,
    ) -> None:
        """Copy the images of `split`, padded, to where they are cropped."""
        self._augment = augment
        self._stream = stream
        self._batch_augment = batch_augment
        self._channels_last = channels_last
        self._labels = split.labels
        self._device = device
        images = model_pixels(split.images, preprocessor.spec)
        mean, std = _mean_and_std(preprocessor)
        self._crop = (
            NumpyCropper(images, mean, std, augment.pad_px)
            if device.type == "cpu"
            else TorchCropper(images, mean, std, augment.pad_px, device)
        )

    @property
    def num_images(self) -> int:
        """Number of images of the split."""
        return len(self._labels)

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Yield a batch for each forward and backward pass from `first_step` on, without end."""
        for step in itertools.count(first_step):
            for positions in self._stream.passes(step):
                yield self._batch(positions)

    def close(self) -> None:
        """Do nothing: there is nothing to end."""

    def _batch(self, positions: Int64[np.ndarray, " n"]) -> Batch:
        indices = self._stream.indices(positions)
        crops = pad_crops(self._augment, self._stream.uniforms(positions, PAD_CROP_DRAWS))
        images = self._crop(indices, crops).permute(0, 3, 1, 2)
        labels = sent(torch.from_numpy(self._labels[indices]), self._device)
        batch = self._batch_augment(Batch(images=images, labels=labels, indices=indices), positions)
        return batch if self._channels_last else dataclasses.replace(batch, images=batch.images.contiguous())


def model_pixels(
    images: UInt8[np.ndarray, "n height width channels"], preprocess: Preprocess
) -> UInt8[np.ndarray, "n height width channels"]:
    """Return resident images with the channels in the order that the model expects; a view where it can be.

    Raises:
        DataError: They are not of the size and colour that the model takes.
    """
    expected = (preprocess.crop_px, preprocess.crop_px, preprocess.channels)
    if images.shape[1:] != expected:
        raise DataError(
            f"the images have shape {images.shape[1:]} (height, width, channels), but the model takes {expected}; "
            "choose the dataset that the model was made for."
        )
    return images[..., ::-1] if preprocess.color == "bgr" else images


def _mean_and_std(
    preprocessor: Preprocessor,
) -> tuple[Float32[np.ndarray, "height width channels"], Float32[np.ndarray, " channels"]]:
    spec = preprocessor.spec
    mean = preprocessor.mean_image
    if mean is None:
        mean = np.broadcast_to(np.asarray(spec.mean, np.float32), (spec.crop_px, spec.crop_px, spec.channels))
    return mean, np.asarray(spec.std, np.float32)


def _padded(images: Shaped[np.ndarray, "n _ _ channels"], pad_px: int) -> Shaped[np.ndarray, "n _ _ channels"]:
    return np.pad(images, ((0, 0), (pad_px, pad_px), (pad_px, pad_px), (0, 0)))


def _windows(
    images: Shaped[np.ndarray, "n _ _ channels"], height: int, width: int
) -> Shaped[np.ndarray, "n _ _ {height} {width} channels"]:
    """Return every crop of every image as a view: [image, top, left] is one of height x width x channels."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(1, 2))
    return np.moveaxis(windows, 3, 5)


def _mirror(pixels: Shaped[np.ndarray, "n height width"], flips: Bool[np.ndarray, " n"]) -> None:
    """Mirror the chosen images left and right, in place."""
    chosen = np.flatnonzero(flips)
    pixels[chosen] = pixels[chosen][:, :, ::-1]
