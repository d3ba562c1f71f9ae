"""Batches of images that are files: worker processes decode and crop them to bytes, the device does the rest.

A broken image is never replaced. Its batch is one smaller, and the batch names it.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

from resnets.data.augment import (
    AREA_CROP_DRAWS,
    SCALE_CROP_DRAWS,
    mirrored,
)
from resnets.data.batch_augment import BatchAugment
from resnets.data.color import COLOR_DRAWS, ColorAugment
from resnets.data.crop import read_crop
from resnets.data.order import COLOR_STREAM, POLICY_STREAM, TrainingStream, random_words
from resnets.data.policy import ImagePolicy
from resnets.data.preprocess import Preprocessor
from resnets.data.read_ahead import DecodedBatch, PixelFiles, decoded_batches
from resnets.data.reading_threads import in_threads
from resnets.data.splits import Batch, FileSplit, Skipped
from resnets.data.transfer import sent
from resnets.specs.data import AreaCrop, NoPolicy, PolicySpec, ScaleCrop
from resnets.specs.errors import DataError, ImageError

_ImageReader = Callable[[int, bytes], UInt8[np.ndarray, "height width channels"]]
"""Returns the pixels of an image from its number in the batch and the content of its file."""


class TrainingFiles(PixelFiles):
    """The passes of the training stream, numbered from the first of step 0: cropped, mirrored, varied by a policy."""

    def __init__(
        self,
        split: FileSplit,
        preprocessor: Preprocessor,
        augment: AreaCrop | ScaleCrop,
        stream: TrainingStream,
        policy: PolicySpec | None = None,
    ) -> None:
        """Keep what the workers need."""
        side, channels = preprocessor.spec.crop_px, preprocessor.spec.channels
        super().__init__((len(stream.positions(0)), side, side, channels))
        self._split = split
        self._preprocessor = preprocessor
        self._augment = augment
        self._stream = stream
        self._policy = None if policy is None or isinstance(policy, NoPolicy) else ImagePolicy(policy)

    def decode(self, number: int, memory: UInt8[Tensor, "images height width channels"]) -> DecodedBatch:
        """Return the images of pass `number` that can be read, in the first places of `memory`."""
        positions = self._stream.positions(number)
        num_draws = SCALE_CROP_DRAWS if isinstance(self._augment, ScaleCrop) else AREA_CROP_DRAWS
        draws = self._stream.uniforms(positions, num_draws)
        flips = mirrored(self._augment, draws[:, -1])
        seeds = random_words(self._stream.seed, positions, 1, POLICY_STREAM)[:, 0]

        def read(place: int, content: bytes) -> UInt8[np.ndarray, "height width channels"]:
            pixels = read_crop(content, self._augment, self._preprocessor, draws[place, :-1], mirror=bool(flips[place]))
            if self._policy is not None:
                pixels = np.asarray(self._policy(Image.fromarray(pixels), int(seeds[place])))
            return self._preprocessor.arrange(pixels)

        return _decode(self._split, self._stream.indices(positions), read, memory)

    def paths(self, number: int) -> list[str]:
        """Return the images of pass `number`, for messages."""
        return self._split.paths(self._stream.indices(self._stream.positions(number)))


class EvaluationFiles(PixelFiles):
    """Images of a split in batches, as the preprocessing has them."""

    def __init__(self, split: FileSplit, preprocessor: Preprocessor, batches: list[Int64[np.ndarray, " _"]]) -> None:
        """Keep what the workers need; `batches` holds the indices of the images of each batch."""
        side, channels = preprocessor.spec.crop_px, preprocessor.spec.channels
        super().__init__((max(map(len, batches), default=0), side, side, channels))
        self._split = split
        self._preprocessor = preprocessor
        self._batches = batches

    def decode(self, number: int, memory: UInt8[Tensor, "images height width channels"]) -> DecodedBatch:
        """Return the images of batch `number` that can be read, in the first places of `memory`."""
        return _decode(
            self._split,
            self._batches[number],
            lambda place, content: self._preprocessor.read(content),
            memory,
        )

    def paths(self, number: int) -> list[str]:
        """Return the images of batch `number`, for messages."""
        return self._split.paths(self._batches[number])


_Normalize = Callable[[UInt8[Tensor, "n channels height width"]], Float32[Tensor, "n channels height width"]]


def to_device(decoded: DecodedBatch, normalize: _Normalize, device: torch.device) -> Batch:
    """Return a decoded batch on `device`, normalised there, in the memory format channels-last."""
    pixels, to_gpu = decoded.pixels, device.type == "cuda"
    if to_gpu:  # a copy that torch keeps until the GPU has it; a worker may write to the original by then
        pixels = pixels.pin_memory()
    pixels = pixels.to(device, non_blocking=to_gpu).permute(0, 3, 1, 2)
    return Batch(
        images=normalize(pixels),
        labels=sent(decoded.labels, device),
        indices=decoded.indices.numpy(),
        skipped=tuple(decoded.skipped),
    )


def in_layout(batch: Batch, channels_last: bool) -> Batch:
    """Return the batch with the memory layout n h w c, or n c h w."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return dataclasses.replace(batch, images=batch.images.contiguous(memory_format=layout))


UNREADABLE_BATCHES = 20
"""Batches in a row without a readable image after which the data is taken to be gone."""


class FileBatches:
    """Endless training batches of a `FileSplit`; see `TrainingBatches`."""

    def __init__(
        self,
        files: TrainingFiles,
        stream: TrainingStream,
        preprocessor: Preprocessor,
        color: ColorAugment | None,
        batch_augment: BatchAugment,
        *,
        device: torch.device,
        channels_last: bool,
        workers: int,
    ) -> None:
        """Keep what is needed; the worker processes start with the first batch."""
        self._files = files
        self._preprocessor = preprocessor
        self._color = color
        self._batch_augment = batch_augment
        self._stream = stream
        self._device = device
        self._channels_last = channels_last
        self._workers = workers
        self._decoded: Generator[DecodedBatch, None, None] | None = None
        self._unreadable_in_a_row = 0

    @property
    def num_images(self) -> int:
        """Number of files of the split."""
        return self._stream.num_images

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Yield a batch for each forward and backward pass from `first_step` on, without end.

        Ends what an earlier call began.

        Raises:
            DataError: In many batches in a row no image can be read.
            ResnetsError: A worker process died.
        """
        self.close()
        first = first_step * self._stream.accumulation
        self._decoded = decoded_batches(self._files, itertools.count(first), workers=self._workers, device=self._device)
        return map(self._batch, itertools.count(first), self._decoded)

    def close(self) -> None:
        """End the worker processes."""
        if self._decoded is not None:
            self._decoded.close()
            self._decoded = None

    def _batch(self, number: int, decoded: DecodedBatch) -> Batch:
        self._unreadable_in_a_row = 0 if len(decoded.indices) else self._unreadable_in_a_row + 1
        if self._unreadable_in_a_row == UNREADABLE_BATCHES:
            last = decoded.skipped[0]
            raise DataError(
                f"In {UNREADABLE_BATCHES} training batches in a row no image can be read; the last is {last.path}: "
                f"{last.reason}. Check that the data is still there and can be read."
            )
        positions, places = self._stream.positions(number), decoded.places.numpy()
        normalize = self._preprocessor.normalize
        if self._color is not None:
            draws = self._stream.uniforms(positions[places], COLOR_DRAWS, COLOR_STREAM)
            normalize = functools.partial(self._color, uniforms=draws)
        batch = self._batch_augment(to_device(decoded, normalize, self._device), positions, places)
        return in_layout(batch, self._channels_last)


def _decode(
    split: FileSplit,
    indices: Int64[np.ndarray, " n"],
    read: _ImageReader,
    memory: UInt8[Tensor, "images height width channels"],
) -> DecodedBatch:
    pixels = memory.numpy()

    def read_into(place: int) -> Skipped | None:
        index = int(indices[place])
        try:
            pixels[place] = read(place, split.images.read(index))
        except ImageError as error:
            return Skipped(split.images.path(index), str(error))
        return None

    outcomes = in_threads(read_into, range(len(indices)))
    skipped = [outcome for outcome in outcomes if outcome is not None]
    places = np.flatnonzero([outcome is None for outcome in outcomes])
    if skipped:
        pixels[: len(places)] = pixels[places]
    kept = indices[places]
    return DecodedBatch(
        memory[: len(places)],
        torch.from_numpy(split.labels[kept]),
        torch.from_numpy(kept),
        torch.from_numpy(places),
        tuple(skipped),
    )
