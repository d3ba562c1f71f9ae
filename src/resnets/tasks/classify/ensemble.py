"""Several classifiers as one: the mean of their softmax scores (He et al. 2015, Sec. 4.1, Table 5).

Every model has its own preprocessing, and its own order of the same classes. One model after the other goes over the
split; what is kept is one matrix of scores.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from resnets.data.folder import SPLIT_FOLDERS
from resnets.data.open import open_dataset, open_for_testing
from resnets.data.splits import FileSplit
from resnets.metrics.classification import ClassificationMeter
from resnets.specs.data import Cifar, DatasetSpec, Digits, ImageFolder
from resnets.specs.errors import ModelError, UserError, counted
from resnets.tasks.classify.evaluate import EvaluationReport
from resnets.tasks.classify.score import scored_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Bool, Float32
    from torch import Tensor, nn

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.splits import Dataset, Skipped, Split
    from resnets.engine.distributed import Distributed
    from resnets.specs.protocol import ProtocolSpec

_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A model of an ensemble."""

    name: str
    """What messages call it: of two models of one variant, what tells them apart."""
    stored: StoredModel
    module: nn.Module
    """The net to call: on the device, in evaluation mode."""
    share: float
    """How much its scores count; the shares of an ensemble sum to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The scores of every image of a split, on the CPU, with the classes of the first model."""

    log_probabilities: Float32[Tensor, "images classes"]
    """NaN where the image could not be read."""
    readable: Bool[Tensor, " images"]


def evaluate_ensemble(
    members: Sequence[Member],
    split: Split,
    protocol: ProtocolSpec,
    *,
    ranks: Distributed,
    precision: str = "fp32",
    channels_last: bool = True,
    workers: int = 0,
    on_images: Callable[[str, int], None] = lambda name, count: None,
) -> tuple[EvaluationReport, Scores]:
    """Return the errors of the mean scores of the members, in one process, and these scores.

    An image that one of them could not read is in no score.

    Args:
        members: the models; labels of the split index the classes of the first.
        split: the images.
        protocol: which views of an image each member scores.
        ranks: this process and its device.
        precision: of the forward passes.
        channels_last: memory layout of the inputs.
        workers: processes that decode files.
        on_images: told the name of the model that is at work, and the number of images of each batch.

    Raises:
        ModelError: the classes of two members differ.
        DataError: no image of the split can be read.
        DeviceError: the device's memory is not enough for one image.
    """
    classes = members[0].stored.classes
    columns = [columns_of(classes, member.stored.classes, (members[0].name, member.name)) for member in members]
    total = torch.full((len(split), len(classes)), -math.inf)
    times_read = torch.zeros(len(split), dtype=torch.int64)
    skipped: dict[str, Skipped] = {}
    for member, order in zip(members, columns, strict=True):
        for batch in scored_batches(
            member.module,
            split,
            member.stored.preprocessor,
            protocol,
            ranks=ranks,
            precision=precision,
            channels_last=channels_last,
            workers=workers,
            on_images=lambda count, name=member.name: on_images(name, count),
        ):
            for entry in batch.skipped:
                skipped.setdefault(entry.path, entry)
            if len(batch):
                rows = torch.from_numpy(batch.indices)
                scores = batch.logits.log_softmax(dim=1).cpu()[:, order] + math.log(member.share)
                total[rows] = torch.logaddexp(total[rows], scores)
                times_read[rows] += 1
    readable = times_read == len(members)
    total[~readable] = math.nan
    report = EvaluationReport(
        result=_errors(total, readable, split, classes).result(),
        skipped=_in_order(skipped, split) if isinstance(split, FileSplit) else (),
    )
    return report, Scores(log_probabilities=total, readable=readable)


def _errors(
    scores: Float32[Tensor, "images classes"], readable: Bool[Tensor, " images"], split: Split, classes: Sequence[str]
) -> ClassificationMeter:
    meter = ClassificationMeter(classes)
    labels = torch.from_numpy(split.labels)
    for rows in readable.nonzero()[:, 0].split(_ROWS):
        meter.update(scores[rows], labels[rows])
    return meter


def _in_order(skipped: dict[str, Skipped], split: FileSplit) -> tuple[Skipped, ...]:
    if not skipped:
        return ()
    paths = map(split.images.path, range(len(split)))
    return tuple(skipped[path] for path in paths if path in skipped)


def check_classes(models: Sequence[StoredModel], names: Sequence[str]) -> None:
    """Refuse models, called `names`, whose classes differ in more than their order.

    Raises:
        ModelError: naming the first classes that differ.
    """
    for other, name in zip(models, names, strict=True):
        columns_of(models[0].classes, other.classes, (names[0], name))


def check_held_out(models: Sequence[StoredModel], split: str) -> None:
    """Refuse to test on CIFAR's held-out images where the models have not held out the same.

    Raises:
        ModelError: one was trained on images that another has held out.
    """
    held_out = {stored.dataset.validation_images for stored in models if isinstance(stored.dataset, Cifar)}
    if split == "validation" and len(held_out) > 1:
        raise ModelError(
            f"The models have held out {' and '.join(map(str, sorted(held_out)))} images of CIFAR, so what is validation "
            "for one was training for another. Test them with --split test."
        )


def warnings_of_seen_images(
    models: Sequence[StoredModel], names: Sequence[str], dataset: Dataset, split: str
) -> list[str]:
    """Return a line for each model that may have been trained on images that it is tested on.

    Where the folder is not divided as it was for a training in it, because it is another part of it or has changed
    since, it cannot be told which images were held out then. Folders val/ and test/ always are.

    Args:
        models: to be tested.
        names: what messages call them.
        dataset: as `open_for_models` returns it.
        split: the images they are tested on.
    """
    images = dataset.splits[split]
    if not isinstance(images, FileSplit) or not len(images):
        return []
    image = Path(dataset.name).resolve() / images.images.name(0)
    return [
        f"{name} was trained in {stored.metrics['dataset']}, where the images lie that it is tested on; which of them it "
        "has seen cannot be told, so its error may be too low."
        for stored, name in zip(models, names, strict=True)
        if stored.fingerprint != dataset.fingerprint and _may_have_trained_on(image, stored)
    ]


def _may_have_trained_on(image: Path, stored: StoredModel) -> bool:
    place = stored.metrics.get("dataset")
    if not isinstance(stored.dataset, ImageFolder) or not isinstance(place, str):
        return False
    try:
        inside = image.relative_to(Path(place).resolve()).parts
    except (ValueError, OSError):  # elsewhere, or no path at all
        return False
    return inside[0] not in {*SPLIT_FOLDERS["validation"], *SPLIT_FOLDERS["test"]}


def columns_of(classes: tuple[str, ...], others: tuple[str, ...], names: tuple[str, str]) -> list[int]:
    """Return which logit of another model belongs to each of `classes`.

    Args:
        classes: of the first model.
        others: classes of the other model, in the order of its logits.
        names: of the two models, for messages.

    Raises:
        ModelError: the classes are not the same, in whatever order; the message names the first that differ. Or the
            order is another, and two classes have one name.
    """
    if others == classes:
        return list(range(len(classes)))
    ours, theirs = ([*(Counter(some) - Counter(rest))] for some, rest in ((classes, others), (others, classes)))
    if ours or theirs:
        only = [
            f"{', '.join(map(repr, labels[:3]))}{' …' if len(labels) > 3 else ''} {'is' if len(labels) == 1 else 'are'} "
            f"only in {name}"
            for name, labels in zip(names, (ours, theirs), strict=True)
            if labels
        ]
        raise ModelError(
            f"An ensemble needs equal classes: {names[0]} has {len(classes)}, {names[1]} has {len(others)}; "
            f"{', '.join(only)}."
        )
    places = {label: place for place, label in enumerate(others)}
    if len(places) < len(others):
        repeated = [label for label, count in Counter(classes).items() if count > 1]
        raise ModelError(
            f"{names[0]} and {names[1]} have their classes in different orders, and {', '.join(map(repr, repeated[:3]))} "
            "names more than one, so that they cannot be matched by name."
        )
    return [places[label] for label in classes]


def shares(weights: Sequence[float] | None, models: int) -> list[float]:
    """Return the share of each model, equal where `weights` is None.

    Raises:
        UserError: there is not one weight above 0 a model.
    """
    if weights is None:
        return [1 / models] * models
    if len(weights) != models:
        raise UserError(
            f"--weights has {counted(len(weights), 'value')} for {counted(models, 'model')}; give one a model, such as 2,1,1."
        )
    if not all(weight > 0 and math.isfinite(weight) for weight in weights):
        raise UserError(f"--weights is {', '.join(f'{weight:g}' for weight in weights)}; every weight is above 0.")
    found = [weight / sum(weights) for weight in weights]
    if not all(found):  # the sum is beyond all numbers, or one weight is nothing beside it
        raise UserError(
            f"--weights is {', '.join(f'{weight:g}' for weight in weights)}; give weights of similar size, such as 2,1,1."
        )
    return found


def open_for_models(
    models: Sequence[StoredModel],
    names: Sequence[str],
    find: Callable[[DatasetSpec], tuple[DatasetSpec, Path | None]],
) -> Dataset:
    """Return the dataset to test models on, so that no image is tested on that one of them was trained on.

    A folder that one of them was trained on is divided as it was for that training.

    Args:
        models: to be tested together.
        names: what messages call them.
        find: returns the spec and the place of the dataset from the spec that a model was trained with.

    Raises:
        DataError: the dataset is missing or damaged.
        ModelError: two models were trained on this folder, but divided differently.
    """
    divided: tuple[str, Dataset] | None = None
    dataset: Dataset | None = None
    seen: set[tuple[DatasetSpec | None, str]] = set()
    for stored, name in zip(models, names, strict=True):
        if (stored.dataset, stored.fingerprint) in seen:
            continue
        seen.add((stored.dataset, stored.fingerprint))
        spec, root = find(stored.dataset or Digits())
        if not isinstance(spec, ImageFolder):
            return open_dataset(spec, root) if dataset is None else dataset
        opened = open_for_testing(spec, root, stored.fingerprint)
        dataset = dataset or opened
        if opened.fingerprint != stored.fingerprint:
            continue
        if divided is not None and divided[1].fingerprint != opened.fingerprint:
            raise ModelError(
                f"{divided[0]} and {name} were both trained on {opened.name}, but not on the same images of "
                "it: what one is tested on, the other has seen. Test them on images that neither was trained on."
            )
        divided = name, opened
    assert dataset is not None
    return divided[1] if divided else dataset
