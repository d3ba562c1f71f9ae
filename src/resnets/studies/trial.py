"""The stages of training, each measured alone and then all together, on the run's own images, net and loader.

Rates are images a second. A stage is measured over a stretch of time after a start that is left out: what the first
batches cost (processes that start, algorithms that are chosen) a run pays once.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from resnets.data.batches import training_order
from resnets.data.loader import TrainingFiles
from resnets.data.order import TrainingStream
from resnets.data.read_ahead import decoded_batches
from resnets.data.shards import ShardFiles
from resnets.data.splits import FileSplit
from resnets.engine.freeze import set_learning
from resnets.engine.optimizer import set_learning_rate
from resnets.engine.schedule import learning_rate
from resnets.engine.step import train_step
from resnets.specs.data import ImageFolder
from resnets.studies.accelerator import wait_for
from resnets.tasks.classify.train import fast_model, initial_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resnets.data.read_ahead import DecodedBatch
    from resnets.data.splits import Batch, Split
    from resnets.specs.data import AreaCrop, ScaleCrop
    from resnets.tasks.classify.prepare import Parts

B = TypeVar("B", "Batch", "DecodedBatch")

_WARM_SECONDS = 1.0
"""Of loading, after which it counts even if not every worker has sent two batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """How fast a stage was."""

    images_per_second: float
    images: int
    """Images it was measured on."""
    seconds: float
    waiting_share: float = 0.0
    """Share of the time in which the training step waited for data, as the host sees it."""

    @property
    def ms_an_image(self) -> float:
        """Milliseconds that an image takes."""
        return 1000 / self.images_per_second if self.images_per_second else float("inf")


class Trainee:
    """A net that is trained for a moment, with the state that the run would begin with."""

    def __init__(self, parts: Parts) -> None:
        """Build it on the device."""
        self._parts = parts
        self._state = initial_state(parts)
        # While only the last layer learns, a step is cheaper than most of the run's.
        self._state.step = parts.spec.finetune.head_steps
        self._model = fast_model(parts, self._state.model)
        set_learning(self._model, parts.spec.finetune, self._state.step, parts.ranks)

    def step(self, batch: Batch) -> None:
        """Train on a batch."""
        spec, state = self._parts.spec, self._state
        lr = learning_rate(spec, state.step, state.schedule)
        set_learning_rate(state.optimizer, lr, spec.optimizer)
        totals = train_step(self._model, [batch], state, spec, self._parts.ranks)
        state.step += 1
        if self._parts.ranks.device.type == "cpu":
            totals.tolist()  # as the loop of a run does


def with_images(parts: Parts, split: Split) -> Parts:
    """Return the parts with other training images."""
    splits = parts.dataset.splits | {"train": split}
    dataset = parts.spec.dataset
    if isinstance(dataset, ImageFolder) and not (isinstance(split, FileSplit) and isinstance(split.images, ShardFiles)):
        parts = with_spec(parts, dataset=dataclasses.replace(dataset, shuffle_shards=0))
    return dataclasses.replace(parts, dataset=dataclasses.replace(parts.dataset, splits=splits))


def with_spec(parts: Parts, **fields: Any) -> Parts:
    """Return the parts with other fields of the spec."""
    return dataclasses.replace(parts, spec=dataclasses.replace(parts.spec, **fields))


def training_stream(parts: Parts) -> TrainingStream:
    """Return the order of the training images."""
    spec, split = parts.spec, parts.dataset.splits["train"]
    return TrainingStream(
        seed=spec.seed,
        num_images=len(split),
        global_batch=spec.global_batch,
        accumulation=spec.accumulation,
        order=training_order(split, spec),
    )


def decoding_rate(parts: Parts, seconds: float) -> Rate:
    """Return the rate of reading, decoding and cropping on one core, in this process."""
    files = _training_files(parts)
    images, started = 0, time.perf_counter()
    for number in itertools.count():
        images += len(files[number].indices)
        elapsed = time.perf_counter() - started
        if elapsed > seconds:
            return Rate(images_per_second=images / elapsed, images=images, seconds=elapsed)
    raise AssertionError


def _training_files(parts: Parts) -> TrainingFiles:
    split, augment = parts.dataset.splits["train"], parts.spec.augment
    assert isinstance(split, FileSplit)
    return TrainingFiles(split, parts.preprocessor, _of_files(augment), training_stream(parts), parts.spec.policy)


def _of_files(augment: Any) -> AreaCrop | ScaleCrop:
    return augment  # the parts were checked: files have one of these


def loading_rate(parts: Parts, seconds: float, first_step: int = 0) -> Rate:
    """Return the rate at which batches come, on the device and normalised, while nothing is trained."""
    return _over_batches(parts, lambda _: None, seconds, first_step)


def host_rate(parts: Parts, seconds: float) -> Rate:
    """Return the rate at which batches are decoded, as the run reads them, without the way to the device."""
    decoded = decoded_batches(
        _training_files(parts), itertools.count(), workers=parts.workers, device=torch.device("cpu")
    )
    with closing(decoded):
        return _over(decoded, lambda _: None, parts, seconds)


def training_rate(parts: Parts, trainee: Trainee, seconds: float, first_step: int = 0) -> Rate:
    """Return the rate of the whole: batches come and are trained on. `trainee` has made its first steps already."""
    return _over_batches(parts, trainee.step, seconds, first_step)


def _over_batches(parts: Parts, consume: Callable[[Batch], None], seconds: float, first_step: int) -> Rate:
    batches = parts.batches()
    with closing(batches):
        return _over(batches.batches(first_step), consume, parts, seconds)


def _over(stream: Iterator[B], consume: Callable[[B], None], parts: Parts, seconds: float) -> Rate:
    """Measure whole rounds of the workers: they send their batches together, and a part of a round would mislead."""
    device, workers = parts.ranks.device, max(1, parts.workers)
    begun, started = time.perf_counter(), None
    images, waited, number = 0, 0.0, 0
    while True:
        before = time.perf_counter()
        batch = next(stream)
        got = time.perf_counter()
        consume(batch)
        number += 1
        if started is None:
            now = time.perf_counter()
            if number >= 2 and (number == 2 * workers or now - begun > _WARM_SECONDS):
                wait_for(device)
                started, number = time.perf_counter(), 0
            continue
        waited += got - before
        images += len(batch.indices)
        elapsed = time.perf_counter() - started
        if elapsed > seconds and (number % workers == 0 or elapsed > 2 * seconds):
            break
    wait_for(device)
    elapsed = time.perf_counter() - started
    return Rate(
        images_per_second=images / elapsed, images=images, seconds=elapsed, waiting_share=min(1.0, waited / elapsed)
    )


def step_rate(parts: Parts, trainee: Trainee, batch: Batch, seconds: float, warm_steps: int = 2) -> Rate:
    """Return the rate of the training step on a batch that is on the device already."""
    for _ in range(warm_steps):
        trainee.step(batch)
    wait_for(parts.ranks.device)
    images, started = 0, time.perf_counter()
    while True:
        trainee.step(batch)
        images += len(batch)
        if time.perf_counter() - started > seconds:
            wait_for(parts.ranks.device)
            elapsed = time.perf_counter() - started
            return Rate(images_per_second=images / elapsed, images=images, seconds=elapsed)


def first_batch(parts: Parts) -> Batch:
    """Return a batch on the device, read in this process."""
    batches = dataclasses.replace(parts, workers=0).batches()
    with closing(batches):
        return next(batch for batch in batches.batches(0) if len(batch))


def repeated(batch: Batch, count: int) -> Batch:
    """Return a batch of `count` images: those of `batch`, over and over."""
    times = -(-count // len(batch))
    partners = batch.partner_labels
    return dataclasses.replace(
        batch,
        images=torch.cat([batch.images] * times)[:count],
        labels=batch.labels.repeat(times)[:count],
        partner_labels=None if partners is None else partners.repeat(times)[:count],
        indices=batch.indices.repeat(times)[:count],
    )


def transfer_rate(parts: Parts, seconds: float) -> Rate:
    """Return the rate at which decoded images go to the device, a batch at a time, from memory that it can read."""
    spec, device = parts.preprocessor.spec, parts.ranks.device
    shape = (parts.spec.global_batch, spec.crop_px, spec.crop_px, spec.channels)
    pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    pixels.to(device, non_blocking=True)
    wait_for(device)
    images, started = 0, time.perf_counter()
    while True:
        pixels.to(device, non_blocking=True)
        wait_for(device)
        images += len(pixels)
        elapsed = time.perf_counter() - started
        if elapsed > seconds:
            return Rate(images_per_second=images / elapsed, images=images, seconds=elapsed)
