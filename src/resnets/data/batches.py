"""Batches for training and for evaluation, from images in memory and from files alike."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64

from resnets.data.loader import EvaluationFiles, FileBatches, decoded_batches, to_device
from resnets.data.order import TrainingStream
from resnets.data.preprocess import Preprocessor
from resnets.data.resident import ResidentBatches, model_pixels
from resnets.data.splits import Batch, FileSplit, ResidentSplit, Split
from resnets.specs.data import AreaCrop, AugmentSpec, PadCrop
from resnets.specs.errors import SpecError


@runtime_checkable
class TrainingBatches(Protocol):
    """The training stream of one process as batches on its device."""

    @property
    def num_images(self) -> int:
        """Number of images of the split, over all processes."""
        ...

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Yield a batch for each forward and backward pass from `first_step` on, without end.

        A step has `accumulation` passes. What is yielded depends only on the seed and the step: an interrupted run
        goes on as if it had not been. Images that cannot be read are named in `Batch.skipped` and make it smaller.
        """
        ...

    def close(self) -> None:
        """End the processes that read images, if there are any."""
        ...


def training_batches(
    split: Split,
    preprocessor: Preprocessor,
    augment: AugmentSpec,
    *,
    seed: int,
    global_batch: int,
    accumulation: int = 1,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device,
    channels_last: bool,
    workers: int = 0,
) -> TrainingBatches:
    """Return the augmented batches that process `rank` of `world_size` trains on.

    Args:
        split: training images.
        preprocessor: how an image becomes the input of the model.
        augment: `PadCrop` for images in memory, `AreaCrop` for files.
        seed: seed of the order and of the augmentation.
        global_batch: images a step, over all processes.
        accumulation: forward and backward passes a step.
        rank: number of this process.
        world_size: number of processes.
        device: where the batches are wanted.
        channels_last: give images the memory layout n h w c, otherwise n c h w.
        workers: processes that read files; 0 reads in this one. Unused for images in memory.

    Raises:
        DataError: A batch is larger than the split, or the images do not fit the model.
        SpecError: A batch does not divide into equal passes, or the augmentation does not fit the images.
    """
    stream = TrainingStream(
        seed=seed,
        num_images=len(split),
        global_batch=global_batch,
        accumulation=accumulation,
        rank=rank,
        world_size=world_size,
    )
    match split, augment:
        case ResidentSplit(), PadCrop():
            return ResidentBatches(split, preprocessor, augment, stream, device=device, channels_last=channels_last)
        case FileSplit(), AreaCrop():
            return FileBatches(
                split, preprocessor, augment, stream, device=device, channels_last=channels_last, workers=workers
            )
        case ResidentSplit(), _:
            raise SpecError("augment: images in memory are augmented by augment:pad-crop.")
        case _:
            raise SpecError("augment: images of a folder have different sizes; choose augment:area-crop.")


def evaluation_batches(
    split: Split,
    preprocessor: Preprocessor,
    *,
    batch_size: int,
    device: torch.device,
    channels_last: bool,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Yield every image of `split` once over all processes, not augmented: process `rank` takes rank::world_size.

    The last batch may be smaller, and a process may have none. An image that cannot be read is named in
    `Batch.skipped`; a batch in which none can be read has no images.

    Args:
        split: images to evaluate on.
        preprocessor: how an image becomes the input of the model.
        batch_size: images a batch of one process.
        device: where the batches are wanted.
        channels_last: give images the memory layout n h w c, otherwise n c h w.
        workers: processes that read files; 0 reads in this one. Unused for images in memory.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        DataError: The images do not fit the model.
        ResnetsError: A worker process died.
    """
    indices = np.arange(rank, len(split), world_size, dtype=np.int64)
    chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    if isinstance(split, ResidentSplit):
        return _resident_batches(split, preprocessor, chunks, device, channels_last)
    files = EvaluationFiles(split, preprocessor, chunks)
    decoded = decoded_batches(files, range(len(chunks)), workers=min(workers, len(chunks)), device=device)
    return (to_device(batch, preprocessor, device, channels_last) for batch in decoded)


def _resident_batches(
    split: ResidentSplit,
    preprocessor: Preprocessor,
    chunks: list[Int64[np.ndarray, " _"]],
    device: torch.device,
    channels_last: bool,
) -> Iterator[Batch]:
    images = model_pixels(split.images, preprocessor.spec)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for indices in chunks:
        pixels = torch.from_numpy(np.ascontiguousarray(images[indices])).to(device, non_blocking=True)
        yield Batch(
            images=preprocessor.normalize(pixels.permute(0, 3, 1, 2)).contiguous(memory_format=layout),
            labels=torch.from_numpy(split.labels[indices]).to(device, non_blocking=True),
            indices=indices,
        )
