"""Errors of a classifier on every image of a split, each counted once, over all processes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from resnets.metrics.classification import ClassificationMeter, ClassificationResult
from resnets.specs.errors import DataError, ModelError, counted
from resnets.specs.io import shown
from resnets.specs.protocol import Center
from resnets.tasks.classify.score import scored_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.preprocess import Preprocessor
    from resnets.data.splits import Dataset, Skipped, Split
    from resnets.engine.distributed import Distributed
    from resnets.specs.protocol import ProtocolSpec

_OWN_WORDS = 50
"""Of ImageNet's 1,000 classes, those that a list of their names may call by words of its own."""


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
    protocol: ProtocolSpec = Center(),  # noqa: B008 - it is frozen
    precision: str = "fp32",
    channels_last: bool = True,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    on_images: Callable[[int], None] = lambda count: None,
) -> EvaluationReport:
    """Return the errors of `model` on every image, over all ranks.

    Args:
        model: gives logits (n, classes); it is put into evaluation mode.
        split: the images.
        preprocessor: how they become inputs.
        classes: names of the classes.
        ranks: the processes that share the images.
        protocol: which views of an image are scored, and averaged.
        precision: of the forward pass.
        channels_last: memory layout of the inputs.
        workers: processes that decode files.
        should_stop: asked between batches.
        on_images: told the number of images of each batch.

    Raises:
        EvaluationStopped: `should_stop` returned true.
        DataError: no image of the split can be read.
        DeviceError: the device's memory is not enough for one image.
    """
    model.eval()
    meter = ClassificationMeter(classes, ranks.device)
    skipped: list[Skipped] = []
    for batch in scored_batches(
        model,
        split,
        preprocessor,
        protocol,
        ranks=ranks,
        precision=precision,
        channels_last=channels_last,
        workers=workers,
        should_stop=should_stop,
        on_images=on_images,
    ):
        if len(batch):
            meter.update(batch.logits, batch.labels)
        skipped += batch.skipped
    state = ranks.sum(meter.state())
    return EvaluationReport(
        result=ClassificationMeter.from_state(classes, state).result(), skipped=tuple(ranks.gather(skipped))
    )


def warnings_of_scores(result: ClassificationResult, names: Sequence[str], split: str) -> list[str]:
    """Return a line where scores are no finite numbers, so that the errors are not those of a net that works.

    Args:
        result: of the test.
        names: what the line calls the models; several are an ensemble.
        split: the images that it was tested on.
    """
    called, gives = " + ".join(names), "the net gives" if len(names) == 1 else "a net of the ensemble gives"
    if result.without_prediction == result.images:
        return [f"{called}: {gives} NaN for every image of the {split} split; its weights are of no use."]
    if result.without_prediction:
        return [
            f"{called}: {gives} NaN for {result.without_prediction:,} of {counted(result.images, 'image')} of the "
            f"{split} split: they count as errors, and are in no column of the confusion matrix."
        ]
    if not math.isfinite(result.loss):
        return [f"{called}: the loss on the {split} split is not a finite number: {gives} infinite scores."]
    return []


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


def align_classes(dataset: Dataset, stored: StoredModel, name: str | None = None) -> Dataset:
    """Return the dataset with its labels counted by the model's classes.

    Args:
        dataset: whose labels index its own classes.
        stored: the model.
        name: what messages call the model; None is its variant.

    Raises:
        ModelError: the dataset has classes that the model does not know, or a class whose name two of the model's have;
            or its folders are WordNet ids, and the model's names are not ImageNet's in the order of their ids.
    """
    called = name or stored.name
    if dataset.classes == stored.classes:
        return dataset
    unknown = [label for label in dataset.classes if label not in stored.classes]
    if unknown and _are_imagenet_ids(dataset.classes) and len(stored.classes) == 1000:
        _check_imagenet_order(stored.classes, called)
        note = f"The folders are WordNet ids: ImageNet's 1,000 classes, in the order in which {called} has them."
        return replace(dataset, classes=stored.classes, notes=(*dataset.notes, note))
    repeated = [label for label in dataset.classes if stored.classes.count(label) > 1]
    if repeated:
        raise ModelError(
            f"{called} has more than one class called {', '.join(map(repr, repeated[:3]))}, so that the images of "
            f"{dataset.name} cannot be matched with its classes by name."
        )
    if unknown:
        raise ModelError(
            f"{dataset.name} has {len(unknown)} {'class' if len(unknown) == 1 else 'classes'} that {called} does not know "
            f"({_first(unknown)}); the model's are {_first(stored.classes)}."
        )
    return dataset.relabelled(stored.classes)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def _are_imagenet_ids(classes: Sequence[str]) -> bool:
    """Return whether these are the folder names of ImageNet 2012, all 1,000 in their order."""
    ends = (classes[0], classes[-1]) == ("n01440764", "n15075141")
    return ends and len(classes) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in classes)


def _check_imagenet_order(classes: Sequence[str], called: str) -> None:
    """Refuse names that are not those of ImageNet 2012's classes in the order of their ids.

    Lists of these names differ in synonyms, case and punctuation, and a few in their choice of words. So at a place one
    of both names has to have all words of the other's; a few places may not, but then not as if names had changed places.

    Raises:
        ModelError: naming the first class at the wrong place.
    """
    from torchvision.models import ResNet50_Weights

    reference: Sequence[str] = ResNet50_Weights.DEFAULT.meta["categories"]
    ours, theirs = (
        [frozenset(re.findall(r"\w+", name.lower().replace("_", " "))) for name in names]
        for names in (classes, reference)
    )
    wrong = [place for place in range(len(ours)) if not _akin(ours[place], theirs[place])]
    if len(wrong) <= _OWN_WORDS:
        known = set(theirs)
        elsewhere = (place for place, words in enumerate(ours) if words != theirs[place] and words in known)
        doubtful = {*wrong, *elsewhere}
        wrong = [one for one in doubtful if any(_akin(ours[one], theirs[other]) for other in doubtful - {one})]
    if not wrong:
        return
    place = min(wrong)
    raise ModelError(
        f"The folders are WordNet ids, in whose order {called} does not name its classes: class {place} is "
        f"{shown(classes[place])}, and there ImageNet has {reference[place]!r}. Give the model the names of its classes "
        "in the order of its outputs (`resnets convert … --class-names FILE`), or name the folders as it does."
    )


def _akin(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    return bool(ours) and (ours <= theirs or theirs <= ours)
