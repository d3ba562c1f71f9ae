"""Everything that a training run needs, put together and checked before anything is written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from resnets.artifacts.transfer import check_finite, check_head, check_variant
from resnets.data.batches import training_batches
from resnets.data.open import open_dataset
from resnets.data.preprocess import folder_preprocess, preprocess_for
from resnets.data.splits import FileSplit, ResidentSplit
from resnets.data.statistics import Statistics, needs_statistics, training_statistics
from resnets.engine.checkpoint import latest_checkpoint
from resnets.engine.device import use_channels_last, worker_processes
from resnets.engine.progress import counting
from resnets.models.build import build
from resnets.specs.catalogue import model_name
from resnets.specs.data import ImageFolder, Mix, ScaleCrop
from resnets.specs.errors import DataError, SpecError, counted
from resnets.specs.finetune import GivenWeights
from resnets.specs.optim import Plateau
from resnets.tasks.classify.adopt import adopt, adopt_size, channel_means, check_normalisation
from resnets.tasks.classify.evaluate import EvaluationReport, evaluate_model
from resnets.tasks.classify.load import load_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from resnets.artifacts.model_folder import StoredModel
    from resnets.artifacts.run_directory import RunDirectory
    from resnets.data.batches import TrainingBatches
    from resnets.data.preprocess import Preprocessor
    from resnets.data.splits import Dataset
    from resnets.engine.distributed import Distributed
    from resnets.specs.run import Machine, TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a run works with."""

    spec: TrainSpec
    machine: Machine
    ranks: Distributed
    directory: RunDirectory
    dataset: Dataset
    preprocessor: Preprocessor
    channels_last: bool
    workers: int
    command: str
    notes: tuple[str, ...]
    """What was adapted to the data and the weights."""
    statistics: Statistics | None
    """Mean image and colour axes, where they come from the training images."""
    given: StoredModel | None
    """The weights to start from; None where a checkpoint or random weights come first."""

    def batches(self, *, mixed: bool = True) -> TrainingBatches:
        """Return the training stream; without `mixed`, images are neither erased nor mixed with each other.

        Raises:
            UserError: the images do not fit the batch or the model.
        """
        spec = self.spec if mixed else dataclasses.replace(self.spec, erase_probability=0.0, mix=Mix())
        return training_batches(
            self.dataset.splits["train"],
            self.preprocessor,
            spec,
            statistics=self.statistics,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            device=self.ranks.device,
            channels_last=self.channels_last,
            workers=self.workers,
        )

    def evaluate(
        self, model: torch.nn.Module, split: str, should_stop: Callable[[], bool] = lambda: False
    ) -> EvaluationReport:
        """Return the errors of `model` on a split, a centre view an image."""
        return evaluate_model(
            model,
            self.dataset.splits[split],
            self.preprocessor,
            self.dataset.classes,
            ranks=self.ranks,
            precision=self.spec.precision,
            channels_last=self.channels_last,
            workers=self.workers,
            should_stop=should_stop,
        )


def prepare(
    spec: TrainSpec,
    root: Path | None,
    directory: RunDirectory,
    machine: Machine,
    ranks: Distributed,
    command: str,
    *,
    quiet: bool,
) -> Parts:
    """Return the parts of a run, with the spec fitted to the data and to the weights it starts from.

    Raises:
        UserError: the data, the weights, the run directory or the spec cannot be used.
    """
    ranks.check_batch(spec.global_batch, spec.accumulation)
    directory.saved_spec()
    with ranks.first_goes_ahead():
        dataset = open_dataset(spec.dataset, root)
    if len(set(ranks.gather([dataset.fingerprint]))) > 1:
        raise DataError(
            f"The processes of this run do not see the same images in {dataset.name}: files or classes differ. Give all "
            "of them the same data."
        )
    given = _given_weights(spec, directory, ranks)
    spec = _adopt(spec, given, directory)
    spec, notes = _fit_to_data(spec, dataset, ranks.world_size)
    _check(spec, dataset, given)
    directory.check_same(spec)
    if ranks.is_first and not directory.is_finished:
        directory.check_writable()
    # From here on it may take minutes, so nothing is refused any more that could have been before.
    statistics = _statistics(spec, dataset, directory, machine, ranks, quiet)
    preprocessor = preprocess_for(spec.dataset, dataset.splits["train"], statistics)
    if given is not None:
        check_normalisation(preprocessor.spec, channel_means(preprocessor), given)
    if statistics is not None and statistics.skipped:
        first = statistics.skipped[0]
        notes += (
            f"The mean image leaves out {counted(len(statistics.skipped), 'image')}: {first.path}: {first.reason}; …",
        )
    return Parts(
        spec=spec,
        machine=machine,
        ranks=ranks,
        directory=directory,
        dataset=dataset,
        preprocessor=preprocessor,
        channels_last=use_channels_last(ranks.device, machine),
        workers=worker_processes(machine, ranks.device),
        command=command,
        notes=notes,
        statistics=statistics,
        given=given,
    )


def _check(spec: TrainSpec, dataset: Dataset, given: StoredModel | None) -> None:
    """Refuse what data, weights and spec cannot do together.

    Raises:
        SpecError: a rule follows a split that is not there, or fields exclude each other.
        ModelError: the weights are of another net or normalisation, or damaged.
    """
    if given is not None:
        check_variant(spec.model, given)
        check_finite(given.model.state_dict(), given.name)
        if isinstance(spec.dataset, ImageFolder):
            means = None if spec.dataset.mean_image else spec.dataset.mean
            check_normalisation(folder_preprocess(spec.dataset), means, given)
    if given is not None or spec.finetune.head_steps:
        with torch.device("meta"):
            check_head(build(spec.model), len(dataset.classes))
    if spec.finetune.freeze_batch_norm == "yes" and spec.batch_norm.recalibration_batches:
        raise SpecError(
            "batch_norm.recalibration_batches replaces the statistics that finetune.freeze_batch_norm keeps; set one of "
            "them to 0 or no."
        )
    if isinstance(spec.schedule, Plateau) and "validation" not in dataset.splits:
        raise SpecError(
            "schedule:plateau follows the validation error, and this dataset has no validation split; hold one out "
            "(--dataset.validation-images 5000 for CIFAR)."
        )
    if spec.finetune.patience_evaluations and "validation" not in dataset.splits:
        raise SpecError(
            "finetune.patience_evaluations follows the validation loss, and this dataset has no validation split; hold "
            "one out (--dataset.validation-images 5000 for CIFAR) or set it to 0."
        )


def _given_weights(spec: TrainSpec, directory: RunDirectory, ranks: Distributed) -> StoredModel | None:
    """Return the weights that the run starts from, unless it has gone on from them already.

    Raises:
        ModelError: there are none of that name, they are damaged, or cannot be had.
    """
    if not isinstance(spec.init, GivenWeights):
        return None
    if not spec.init.source:
        raise SpecError(
            "This run starts from trained weights: name them with --init-from (a run directory or model folder, "
            "torchvision:resnet50, timm:resnet50.a1_in1k or hf-hub:OWNER/NAME)."
        )
    if directory.is_finished or latest_checkpoint(directory.checkpoints) is not None:
        return None
    with ranks.first_goes_ahead():
        return load_source(spec.init.source)


def _adopt(spec: TrainSpec, given: StoredModel | None, directory: RunDirectory) -> TrainSpec:
    """Return the spec with the net, the image size and the normalisation of the given weights.

    A run that is resumed takes them from its own `config.json`: the weights may be gone by then.
    """
    if not isinstance(spec.init, GivenWeights):
        return spec
    if given is None:
        saved = directory.saved_spec()
        if saved is None:
            return spec
        adopts = spec.init.model == "adopt"
        changes: dict[str, Any] = {"model": saved.model} if adopts else {}
        if isinstance(saved.dataset, ImageFolder) and isinstance(spec.dataset, ImageFolder):
            names = ("image_px", "resize_px") if spec.dataset.image_px == 0 else ()
            names += ("color", "mean", "std", "interpolation", "mean_image") if adopts else ()
            adopted = {name: getattr(saved.dataset, name) for name in names}
            changes["dataset"] = dataclasses.replace(spec.dataset, **adopted)
        return dataclasses.replace(spec, **changes)
    if spec.init.model == "adopt":
        return adopt(spec, given)
    return adopt_size(spec, given)


def _statistics(
    spec: TrainSpec, dataset: Dataset, directory: RunDirectory, machine: Machine, ranks: Distributed, quiet: bool
) -> Statistics | None:
    """Return the statistics of the training images: those that the run has kept, or new ones."""
    train = dataset.splits["train"]
    if not needs_statistics(spec) or not isinstance(train, FileSplit):
        return None
    statistics = None
    if ranks.is_first:
        kept = directory.load_statistics(dataset.fingerprint)
        if kept is not None:
            statistics = Statistics.from_tensors(kept)
        else:
            with counting("Mean of the training images", quiet=quiet) as on_images:
                statistics = training_statistics(
                    spec, train, workers=worker_processes(machine, None), on_images=on_images
                )
    # The other ranks wait here, so that one process reads the images.
    return next(item for item in ranks.gather([statistics]) if item is not None)


def _fit_to_data(spec: TrainSpec, dataset: Dataset, world_size: int) -> tuple[TrainSpec, tuple[str, ...]]:
    """Return the spec whose model has the classes and channels of the data, and what else was adapted.

    Raises:
        SpecError: images of this size, or so few in a pass, are too small for the net.
    """
    side, channels = _input_shape(spec, dataset)
    fields: dict[str, Any] = {"num_classes": len(dataset.classes), "in_channels": channels}
    spec = dataclasses.replace(spec, model=dataclasses.replace(spec.model, **fields))
    spec, notes = _fit_to_size(spec, len(dataset.splits["train"]), world_size)
    augment = spec.augment
    if isinstance(augment, ScaleCrop) and augment.min_resize_px > _LARGEST_ZOOM * side:
        notes += (
            f"Training crops of {side} pixels are cut from images of {augment.min_resize_px} and more: they see little of "
            "each. --augment.min-resize-px, --augment.max-resize-px and --dataset.resize-px usually follow "
            "--dataset.image-px (the paper: 256, 480 and 256 for 224).",
        )
    images = spec.global_batch // (world_size * spec.accumulation)
    try:
        with torch.device("meta"):
            build(spec.model).train()(torch.empty(images, channels, side, side))
    except (RuntimeError, ValueError) as error:
        raise SpecError(
            f"{model_name(spec.model)} cannot train on passes of {counted(images, 'image')} of {side} x {side} pixels: {error}"
        ) from error
    return spec, notes


def _input_shape(spec: TrainSpec, dataset: Dataset) -> tuple[int, int]:
    """Return the side and the channels of the images that the model sees."""
    train = dataset.splits["train"]
    if isinstance(train, ResidentSplit):
        return train.images.shape[1], train.images.shape[3]
    assert isinstance(spec.dataset, ImageFolder)
    return spec.dataset.image_px, 1 if spec.dataset.color == "gray" else 3


_LARGEST_ZOOM = 3
SMALL_DATASET = 1_000
"""Training images below which `freeze_batch_norm="auto"` keeps the statistics of the given weights."""


def _fit_to_size(spec: TrainSpec, images: int, world_size: int) -> tuple[TrainSpec, tuple[str, ...]]:
    """Return the spec with what depends on the number of training images, and a line about each change."""
    notes: tuple[str, ...] = ()
    finetune = spec.finetune
    if finetune.freeze_batch_norm == "auto":
        freeze = images < SMALL_DATASET and isinstance(spec.init, GivenWeights)
        finetune = dataclasses.replace(finetune, freeze_batch_norm="yes" if freeze else "no")
        kept = "keeps the statistics of the given weights" if freeze else "learns"
        notes += (f"BatchNorm {kept}: there are {images:,} training images (--finetune.freeze-batch-norm).",)
    spec = dataclasses.replace(spec, finetune=finetune)
    parts = world_size * spec.accumulation
    if isinstance(spec.init, GivenWeights) and images < spec.global_batch and images >= parts:
        batch = images - images % parts
        notes += (f"The batch shrinks from {spec.global_batch} to {batch}: there are {images} training images.",)
        spec = dataclasses.replace(spec, global_batch=batch)
    return spec, notes
