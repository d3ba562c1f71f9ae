"""Batches for training and for evaluation, from images in memory and from files alike."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64

from resnets.data.batch_augment import BatchAugment
from resnets.data.color import PUBLISHED_AXES, PUBLISHED_EIGENVALUES, ColorAugment
from resnets.data.loader import EvaluationFiles, FileBatches, TrainingFiles, in_layout, to_device
from resnets.data.order import BalancedOrder, ShardOrder, TrainingStream
from resnets.data.preprocess import Preprocessor
from resnets.data.read_ahead import decoded_batches
from resnets.data.resident import ResidentBatches, model_pixels
from resnets.data.shards import ShardFiles
from resnets.data.splits import Batch, FileSplit, ResidentSplit, Split
from resnets.data.statistics import Statistics
from resnets.data.transfer import sent
from resnets.specs.data import AreaCrop, Color, ImageFolder, PadCrop, ScaleCrop
from resnets.specs.errors import SpecError
from resnets.specs.run import TrainSpec


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
    spec: TrainSpec,
    *,
    statistics: Statistics | None = None,
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
        spec: the run: its seed, batch and passes, how images are drawn, and how they are varied.
        statistics: of the training images; needed where `spec.color` takes its axes from them.
        rank: number of this process.
        world_size: number of processes.
        device: where the batches are wanted.
        channels_last: give images the memory layout n h w c, otherwise n c h w.
        workers: processes that read files; 0 reads in this one. Unused for images in memory.

    Raises:
        DataError: A batch is larger than the split, or the images do not fit the model.
        SpecError: A batch does not divide into equal passes, or the augmentation does not fit the images.
        ValueError: `statistics` is missing.
    """
    stream = TrainingStream(
        seed=spec.seed,
        num_images=len(split),
        global_batch=spec.global_batch,
        accumulation=spec.accumulation,
        rank=rank,
        world_size=world_size,
        order=training_order(split, spec),
    )
    batch_augment = BatchAugment(stream, spec.erase_probability, spec.mix)
    match split, spec.augment:
        case ResidentSplit(), PadCrop() as augment:
            return ResidentBatches(
                split, preprocessor, augment, stream, batch_augment, device=device, channels_last=channels_last
            )
        case FileSplit(), (AreaCrop() | ScaleCrop()) as augment:
            return FileBatches(
                TrainingFiles(split, preprocessor, augment, stream, spec.policy),
                stream,
                preprocessor,
                _color_augment(spec.color, preprocessor, statistics),
                batch_augment,
                device=device,
                channels_last=channels_last,
                workers=workers,
            )
        case ResidentSplit(), _:
            raise SpecError("augment: images in memory are augmented by augment:pad-crop.")
        case _:
            raise SpecError(
                "augment: images of a folder have different sizes; choose augment:area-crop or augment:scale-crop."
            )


def training_order(split: Split, spec: TrainSpec) -> BalancedOrder | ShardOrder | None:
    """Return the order of the training images that a run asks for; None is permutations of all of them.

    Raises:
        SpecError: the images are not in shards, or two orders are asked for.
    """
    together = spec.dataset.shuffle_shards if isinstance(spec.dataset, ImageFolder) else 0
    if spec.finetune.balance == "sampling":
        if together:
            raise SpecError(
                "dataset.shuffle_shards reads few shards at a time, and finetune.balance sampling draws from all of them; "
                "set one of them to 0 or no."
            )
        return BalancedOrder(spec.seed, split.labels)
    if not together:
        return None
    if not isinstance(split, FileSplit) or not isinstance(split.images, ShardFiles):
        raise SpecError(
            f"dataset.shuffle_shards is {together}, but these images are not in shards; set it to 0, or make shards with "
            "`resnets prepare`."
        )
    return ShardOrder(spec.seed, split.images.shard, together)


def _color_augment(color: Color, preprocessor: Preprocessor, statistics: Statistics | None) -> ColorAugment | None:
    if not (color.pca_std or color.brightness or color.contrast or color.saturation or color.hue):
        return None
    if color.pca_axes == "published" or not color.pca_std:
        return ColorAugment(color, preprocessor, PUBLISHED_AXES, PUBLISHED_EIGENVALUES)
    if statistics is None:
        raise ValueError("The colour axes of the training set need its statistics.")
    return ColorAugment(color, preprocessor, statistics.axes, statistics.eigenvalues)


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
    return (in_layout(to_device(batch, preprocessor.normalize, device), channels_last) for batch in decoded)


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
        pixels = sent(torch.from_numpy(np.ascontiguousarray(images[indices])), device)
        yield Batch(
            images=preprocessor.normalize(pixels.permute(0, 3, 1, 2)).contiguous(memory_format=layout),
            labels=sent(torch.from_numpy(split.labels[indices]), device),
            indices=indices,
        )
