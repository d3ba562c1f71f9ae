"""Errors of a classifier, or of several that are averaged, on every image of a split, each counted once."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from resnets.data.batches import evaluation_batches
from resnets.engine.loop import EvaluationStopped
from resnets.engine.step import autocast
from resnets.metrics.classification import ClassificationMeter, ClassificationResult
from resnets.specs.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.preprocess import Preprocessor
    from resnets.data.splits import Batch, Dataset, Skipped, Split
    from resnets.engine.distributed import Distributed

BATCH_SIZE = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationReport:
    """Scores, and the images that are not in them."""

    result: ClassificationResult
    skipped: tuple[Skipped, ...]
    """Images that could not be read; no score includes them."""


@torch.no_grad()
def evaluate_model(
    model: nn.Module,
    split: Split,
    preprocessor: Preprocessor,
    classes: Sequence[str],
    *,
    ranks: Distributed,
    precision: str = "fp32",
    channels_last: bool = True,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    on_images: Callable[[int], None] = lambda count: None,
) -> EvaluationReport:
    """Return the errors of `model` on a single centre view of every image, over all ranks.

    Args:
        model: gives logits (n, classes); it is put into evaluation mode.
        split: the images.
        preprocessor: how they become inputs.
        classes: names of the classes.
        ranks: the processes that share the images.
        precision: of the forward pass.
        channels_last: memory layout of the inputs.
        workers: processes that decode files.
        should_stop: asked between batches.
        on_images: told the number of images of each batch.

    Raises:
        EvaluationStopped: `should_stop` returned true.
        DataError: no image of the split can be read.
    """
    model.eval()
    meter = ClassificationMeter(classes, ranks.device)
    skipped: list[Skipped] = []
    batches = evaluation_batches(
        split,
        preprocessor,
        batch_size=BATCH_SIZE,
        device=ranks.device,
        channels_last=channels_last,
        workers=workers,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    for batch in _in_step(batches, len(split), ranks):
        if should_stop():
            raise EvaluationStopped
        if batch is None:
            continue
        if len(batch):
            with autocast(precision, ranks.device):
                logits = model(batch.images)
            meter.update(logits.float(), batch.labels)
        skipped += batch.skipped
        on_images(len(batch) + len(batch.skipped))
    state = ranks.sum_counts(meter.state())
    return EvaluationReport(
        result=ClassificationMeter.from_state(classes, state).result(), skipped=tuple(ranks.gather(skipped))
    )


def _in_step(batches: Iterator[Batch], images: int, ranks: Distributed) -> Iterator[Batch | None]:
    """Yield the batches of this rank, padded with None so that every rank goes round equally often.

    Ranks ask each other between batches whether to stop, and one image more on a rank can be one batch more.
    """
    images_of_first_rank = math.ceil(images / ranks.world_size)
    rounds = math.ceil(images_of_first_rank / BATCH_SIZE)
    yield from itertools.islice(itertools.chain(batches, itertools.repeat(None)), rounds)


class Ensemble(torch.nn.Module):
    """Several classifiers as one: the logarithm of the mean of their softmax scores (Sec. 4.1, Table 5)."""

    def __init__(self, models: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.models = torch.nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities (n, classes) for images (n, channels, height, width)."""
        logs = torch.stack([model(images).float().log_softmax(dim=1) for model in self.models])
        return logs.logsumexp(dim=0) - torch.log(torch.tensor(float(len(self.models))))


def combine(models: Sequence[StoredModel]) -> torch.nn.Module:
    """Return one module for the models: the model itself, or their ensemble.

    Raises:
        ModelError: their classes or their preprocessing differ.
    """
    first, *others = models
    for other in others:
        if other.classes != first.classes:
            raise ModelError(
                f"An ensemble needs equal classes: {first.name} has {len(first.classes)} "
                f"({', '.join(first.classes[:3])} …), {other.name} has {len(other.classes)} "
                f"({', '.join(other.classes[:3])} …)."
            )
        if not first.preprocessor.same_as(other.preprocessor):
            raise ModelError(f"{first.name} and {other.name} were trained with different preprocessing.")
    return Ensemble([model.model for model in models]) if others else first.model


def choose_split(dataset: Dataset, wanted: str | None) -> str:
    """Return the split to evaluate on: the one asked for, else test, else validation.

    Raises:
        DataError: the dataset lacks it.
    """
    names = [name for name in ("test", "validation", "train") if name in dataset.splits]
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise DataError(f"{dataset.name} has no {wanted} split; it has {', '.join(names)}.")
    return wanted


def align_classes(dataset: Dataset, stored: StoredModel) -> Dataset:
    """Return the dataset with its labels counted by the model's classes.

    Raises:
        ModelError: the dataset has classes that the model does not know.
    """
    if dataset.classes == stored.classes:
        return dataset
    unknown = [name for name in dataset.classes if name not in stored.classes]
    if unknown:
        raise ModelError(
            f"{dataset.name} has {len(unknown)} classes that {stored.name} does not know "
            f"({', '.join(unknown[:5])}); the model's are {', '.join(stored.classes[:5])} …"
        )
    return dataset.relabelled(stored.classes)
