"""Sec. 4.1: the gradients of plain nets with BatchNorm do not vanish, so that is not why they are hard to train."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from resnets.paper.core.cifar import CPU_SETTING, full, on_cpu, on_gpu
from resnets.paper.core.experiment import Computed, Experiment, FromRuns, Row, Unavailable
from resnets.paper.core.images import training_images
from resnets.paper.core.verdict import AtLeast, Report
from resnets.paper.figure7 import digits_responses

if TYPE_CHECKING:
    from resnets.artifacts.found_runs import FoundRun
    from resnets.data.preprocess import Preprocessor
    from resnets.data.splits import Split
    from resnets.paper.core.experiment import Budget, PlannedRun

IMAGES = 128
"""Images of the batch, as in training."""

RATIO = "gradient norm, first layer : last layer"
_HEALTHY = AtLeast(
    limit=0.05,
    why="only vanishing is judged: a factor of 0.9 in each of 55 layers would leave 0.003, of 0.7 3e-9",
)
_HEALTHY_CPU = AtLeast(
    limit=0.05,
    why="as for the full run; three seeds gave 0.29 to 0.69 for plain-56, 1.4 to 2.1 for plain-20",
)


@functools.cache
def ratio_of_new_net(name: str) -> float:
    """Return the ratio of gradient norms of a new net of the catalogue on embedded digits."""
    from resnets.data.open import open_dataset
    from resnets.data.preprocess import preprocess_for
    from resnets.models.build import build
    from resnets.specs.catalogue import model_spec
    from resnets.specs.data import Digits

    split = open_dataset(Digits()).splits["train"]
    model = build(model_spec(name, num_classes=10, in_channels=1), seed=0)
    return _ratio(model, split, preprocess_for(Digits(), split))


def ratio_of_run(run: FoundRun) -> float:
    """Return the ratio of gradient norms of a finished run's net on images that it was trained on.

    Raises:
        Unavailable: the images are not here.
        ModelError: the weights are damaged.
    """
    from resnets.artifacts.model_folder import load_model
    from resnets.artifacts.run_directory import RunDirectory

    split = training_images(run)
    stored = load_model(RunDirectory(run.path).model)
    return _ratio(stored.model, split, stored.preprocessor)


def _ratio(model: object, split: Split, preprocessor: Preprocessor) -> float:
    import torch
    from torch import nn

    from resnets.analysis.gradients import first_to_last, gradient_norms
    from resnets.data.batches import evaluation_batches

    assert isinstance(model, nn.Module)
    batches = evaluation_batches(
        split, preprocessor, batch_size=IMAGES, device=torch.device("cpu"), channels_last=False
    )
    batch = next(iter(batches))
    if len(batch) < 2:
        raise Unavailable("needs two training images that can be read")
    return first_to_last(gradient_norms(model, batch.images, batch.labels))


def _new(run: str, name: str) -> Row:
    return Row(
        run=f"{run}, new, on digits",
        meaning=RATIO,
        ours=Computed(value=lambda: ratio_of_new_net(name), slow=True),
        rule=_HEALTHY if run.startswith("plain") else Report(why="for comparison"),
        source="Sec. 4.1",
    )


def _trained(plan: PlannedRun, budget: Budget) -> Row:
    rule = _HEALTHY_CPU if budget == "cpu" else _HEALTHY
    return Row(
        run=plan.name,
        meaning=f"{RATIO}, after training",
        ours=FromRuns(runs=(plan,), read=ratio_of_run, needs_weights=True),
        rule=rule if plan.name.startswith("plain") else Report(why="for comparison"),
        source="Sec. 4.1",
        budget=budget,
    )


_NAMES = ("plain20", "plain56", "resnet20", "resnet56")

EXPERIMENT = Experiment(
    title="Sec. 4.1. Gradients of plain nets",
    claim=(
        "The difficulty of deep plain nets is unlikely to be vanishing gradients: BatchNorm gives forward signals a "
        "variance, and gradients on their way back have healthy norms."
    ),
    rows=(
        Row(
            run="plain-56, new, on digits",
            meaning="smallest standard deviation of a response",
            ours=Computed(
                value=lambda: min(one.std for one in digits_responses("cifar-plain56", like_trained=False)), slow=True
            ),
            rule=AtLeast(limit=0.9, why="BatchNorm makes it 1 in every layer"),
            source="Sec. 4.1",
        ),
        _new("plain-20", "cifar-plain20"),
        _new("plain-56", "cifar-plain56"),
        _new("ResNet-20", "cifar-resnet20"),
        _new("ResNet-56", "cifar-resnet56"),
        *(_trained(full(name), "full") for name in _NAMES),
        *(_trained(on_gpu(name), "gpu") for name in _NAMES),
        *(_trained(on_cpu(name), "cpu") for name in _NAMES),
    ),
    cost={
        "cpu": "4 nets, those of `degradation`; about 4 minutes on two cores",
        "gpu": "4 nets, those of `degradation`; about 10 minutes on one GPU",
        "full": "64,000 iterations of 4 nets: those of figures 1 and 6",
    },
    notes=(
        f"The gradient of the mean cross entropy of {IMAGES} training images with respect to a layer's output after "
        "BatchNorm, over the whole batch, BatchNorm normalising with the batch.",
        "In a new plain net gradients grow on their way back, the more so the deeper it is: they do not vanish. Training "
        "evens them out.",
        f"Budget cpu: {CPU_SETTING}.",
    ),
)
