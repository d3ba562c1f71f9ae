"""Figure 4: training and validation error on ImageNet of plain and residual nets of 18 and 34 layers (Sec. 4.1)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resnets.paper.core.cifar import final_error, training_difference
from resnets.paper.core.experiment import Experiment, FromRuns, Picture, PlannedRun, Row, Unavailable
from resnets.paper.core.imagenet import COST, check_images, on_imagenet
from resnets.paper.core.pictures import draw_curves
from resnets.paper.core.verdict import Above, AtLeast, Below, Report
from resnets.recipes.find import recipe
from resnets.specs.data import ImageFolder, ScaleCrop
from resnets.specs.optim import StepDecay
from resnets.specs.run import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.experiment import Budget
    from resnets.paper.core.verdict import Rule
    from resnets.specs.run import TrainSpec

RECIPES = {"plain-18": "plain18", "plain-34": "plain34", "ResNet-18": "resnet18_a", "ResNet-34": "resnet34_a"}
FULL = {net: on_imagenet(net, name) for net, name in RECIPES.items()}

SMALL_STEPS = 800
SMALL_CLASSES = 20
SMALL_SETTING = (
    f"{SMALL_CLASSES} classes at 40 x 40 pixels, {SMALL_STEPS} iterations of 64, learning rate 0.05 divided by 10 at one "
    "and at two thirds; whatever is counted in pixels scaled by 40/224"
)


def small(name: str) -> TrainSpec:
    """Return the ImageNet run `name` in the size of `results/tiny-imagenet-20`; see `SMALL_SETTING`."""
    spec = recipe(f"imagenet.{name}")
    assert isinstance(spec.dataset, ImageFolder)
    assert isinstance(spec.augment, ScaleCrop)
    spec = dataclasses.replace(
        spec,
        model=dataclasses.replace(spec.model, num_classes=SMALL_CLASSES),
        dataset=dataclasses.replace(spec.dataset, image_px=40, resize_px=46),
        augment=dataclasses.replace(spec.augment, min_resize_px=46, max_resize_px=86),
        optimizer=dataclasses.replace(spec.optimizer, base_lr=0.05),
        schedule=StepDecay(milestones_steps=(200_000, 400_000), factor=0.1),
        evaluate_every_steps=50_000,
        global_batch=64,
    )
    return shorten(spec, SMALL_STEPS)


SMALL_FLAGS = (
    "--dataset.image-px 40 --dataset.resize-px 46 --augment.min-resize-px 46 --augment.max-resize-px 86 --global-batch 64 "
    "--optimizer.base-lr 0.05 schedule:step-decay --schedule.milestones-steps 267 533 --evaluate-every-steps 67 "
    f"--steps {SMALL_STEPS}"
)
"""What makes the ImageNet recipes the runs in small, on the command line of `resnets train`."""
SMALL_MISSING = (
    f"no finished run of {SMALL_STEPS} iterations on {SMALL_CLASSES} classes of ImageNet, which you supply; for RECIPE "
    f"{{recipes}} (and --seed N): resnets train imagenet.RECIPE --data tiny-imagenet-20/ {SMALL_FLAGS}"
)

SMALL = {net: PlannedRun(name=net, spec=small(name)) for net, name in RECIPES.items()}


def validation_error(run: FoundRun) -> float:
    """Return the error of the final weights on the validation images, centre crop, in percent; see `final_error`."""
    return final_error(run, "validation")


def validation_difference(first: FoundRun, second: FoundRun) -> float:
    """Return the validation error of the first run minus that of the second, in points."""
    return validation_error(first) - validation_error(second)


def share_above(first: FoundRun, second: FoundRun) -> float:
    """Return in which share of the run, in percent, the training error of the first is above that of the second.

    Both are averaged over the iterations between two evaluations; the first interval is left out.
    """
    every = first.spec.evaluate_every_steps
    last = min(max((point.step for point in run.log.training), default=0) for run in (first, second))
    ends = range(2 * every, last + 1, every)
    above = [
        first.training_mean_at("top1_error", every, end) > second.training_mean_at("top1_error", every, end)
        for end in ends
    ]
    if not above:
        raise Unavailable("the runs are shorter than two evaluations")
    return 100 * sum(above) / len(above)


def early_difference(first: FoundRun, second: FoundRun) -> float:
    """Return the mean validation error of the first run minus that of the second before the learning rate first falls.

    The lower one learns faster.
    """
    fall = min(_first_fall(run) for run in (first, second))
    early = [
        [entry.top1_error for entry in run.log.evaluations if entry.split == "validation" and entry.step < fall]
        for run in (first, second)
    ]
    count = min(map(len, early))
    if not count:
        raise Unavailable("there is no evaluation before the learning rate falls")
    return sum(one - other for one, other in zip(early[0][:count], early[1][:count], strict=True)) / count


def _first_fall(run: FoundRun) -> int:
    """Return the step of the first line of the log with a lower learning rate than the first; after the end if none."""
    rates = [(point.step, point.lr) for point in run.log.training if point.lr is not None]
    return next((step for step, rate in rates if rate < rates[0][1]), run.spec.steps + 1)


def _from_runs(
    plans: Mapping[str, PlannedRun], nets: tuple[str, ...], read: Callable[..., float], budget: Budget
) -> FromRuns:
    """Return what is read off the runs of some nets; those of the full budget are of all validation images."""

    def read_checked(*runs: FoundRun) -> float:
        for run in runs:
            check_images(run)
        return read(*runs)

    recipes = " and ".join(RECIPES[net] for net in nets)
    return FromRuns(
        runs=tuple(plans[net] for net in nets),
        read=read_checked if budget == "full" else read,
        missing="" if budget == "full" else SMALL_MISSING.format(recipes=recipes),
    )


def _row(
    plans: Mapping[str, PlannedRun],
    first: str,
    second: str,
    meaning: str,
    read: Callable[[FoundRun, FoundRun], float],
    rule: Rule,
    budget: Budget,
) -> Row:
    return Row(
        run=f"{first} - {second}" if "points" in meaning else f"{first} above {second}",
        meaning=meaning,
        ours=_from_runs(plans, (first, second), read, budget),
        rule=rule,
        source="Fig. 4",
        budget=budget,
    )


def _errors(plans: Mapping[str, PlannedRun], budget: Budget, why: str) -> list[Row]:
    return [
        Row(
            run=net,
            meaning="validation error at the end, centre crop, %",
            ours=_from_runs(plans, (net,), validation_error, budget),
            rule=Report(why=why),
            source="Fig. 4",
            budget=budget,
        )
        for net in plans
    ]


def _draw_checked(runs: Mapping[str, FoundRun], path: Path, title: str) -> None:
    """Draw the curves of runs that the rows are filled from, and of no others."""
    for run in runs.values():
        check_images(run)
    draw_curves(runs, path, title)


def _pictures(plans: Mapping[str, PlannedRun], suffix: str, budget: Budget, data: str) -> list[Picture]:
    return [
        Picture(
            name=f"figure4-{name}{suffix}",
            title=f"Fig. 4, {side}. {kind} nets on {data}",
            runs=tuple(plans[net] for net in nets),
            budget=budget,
            draw=_draw_checked if budget == "full" else None,
        )
        for name, side, kind, nets in (
            ("plain", "left", "Plain", ("plain-18", "plain-34")),
            ("residual", "right", "Residual", ("ResNet-18", "ResNet-34")),
        )
    ]


_VALIDATION = "validation error, points"
_TRAINING = "training error at the end, points"
_THROUGHOUT = "training error, % of the run"
_EARLY = "validation error before the learning rate falls, points"
_DEGRADES = Above(limit=0, why="degradation: the deeper plain net is worse, in training too")
_GAINS = Below(limit=0, why="with shortcuts the deeper net is better")
_FASTER = Below(limit=0, why="18 layers end on par with and without shortcuts, but with them learn faster")
_ONE_SEED = Report(why="one seed in small: its sign is shown, and supports no verdict")
_TOO_SHORT = Report(why="deeper nets start more slowly; the gain does not show in so few iterations")

EXPERIMENT = Experiment(
    title="Figure 4. Plain and residual nets of 18 and 34 layers on ImageNet",
    claim=(
        "The plain net of 34 layers has the higher training error throughout; with shortcuts it has the lower one, in "
        "validation too. No parameters are added."
    ),
    rows=(
        _row(
            FULL,
            "plain-34",
            "plain-18",
            _THROUGHOUT,
            share_above,
            AtLeast(limit=95, why="throughout the whole training procedure; 5 % for the noise at the drops"),
            "full",
        ),
        _row(FULL, "plain-34", "plain-18", _VALIDATION, validation_difference, _DEGRADES, "full"),
        _row(FULL, "ResNet-34", "ResNet-18", _TRAINING, training_difference, _GAINS, "full"),
        _row(FULL, "ResNet-34", "ResNet-18", _VALIDATION, validation_difference, _GAINS, "full"),
        _row(FULL, "ResNet-18", "plain-18", _EARLY, early_difference, _FASTER, "full"),
        *_errors(FULL, "full", "the paper draws the curve; Table 2 has the errors of ten crops"),
        _row(SMALL, "plain-34", "plain-18", _TRAINING, training_difference, _ONE_SEED, "cpu"),
        _row(SMALL, "plain-34", "plain-18", _VALIDATION, validation_difference, _ONE_SEED, "cpu"),
        _row(SMALL, "ResNet-18", "plain-18", _EARLY, early_difference, _ONE_SEED, "cpu"),
        _row(SMALL, "ResNet-34", "plain-34", _VALIDATION, validation_difference, _ONE_SEED, "cpu"),
        _row(SMALL, "ResNet-34", "ResNet-18", _VALIDATION, validation_difference, _TOO_SHORT, "cpu"),
        *_errors(SMALL, "cpu", "in small, no numbers of the paper"),
    ),
    pictures=(
        *_pictures(FULL, "", "full", "ImageNet"),
        *_pictures(SMALL, "-small", "cpu", f"{SMALL_CLASSES} classes of ImageNet, in small"),
    ),
    cost={
        "cpu": "no training: the runs of results/tiny-imagenet-20 are read; others you train by the command that empty rows "
        "show, an hour on two cores",
        "full": COST,
    },
    notes=(
        "To fill the rows: `resnets train imagenet.plain18 --data IMAGENET`, and plain34, resnet18_a, resnet34_a. Training "
        "errors are of augmented batches, validation errors of the centre crop.",
        f"Budget cpu: {SMALL_SETTING}.",
    ),
)
