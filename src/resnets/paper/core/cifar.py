"""The CIFAR-10 runs that several experiments share, in three sizes, and how numbers are read off them (Sec. 4.2)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from resnets.paper.core.experiment import FromRuns, PlannedRun, Row, Unavailable
from resnets.paper.core.scaled import scaled
from resnets.paper.core.verdict import Report
from resnets.recipes.find import recipe
from resnets.specs.model import ResNetSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.experiment import Budget
    from resnets.paper.core.verdict import Rule
    from resnets.specs.model import Shortcut

CPU_STEPS = 1_200
"""Iterations of the runs that fit two CPU cores: 8 x 8 pixels, half the filters, half the batch."""
GPU_STEPS = 8_000
"""Iterations of the short runs on a GPU (an eighth of the paper's)."""
GPU_DEEP_STEPS = 16_000
"""Iterations of the runs on a GPU that compare depths (a quarter of the paper's)."""

CPU_SETTING = (
    f"{CPU_STEPS:,} iterations of 64 images mean-pooled to 8 x 8 pixels, 8/16/32 filters; learning rate, its shape and "
    "everything else as in the paper; seconds to a minute a net on one idle core"
)

SCATTER = 0.8
"""Largest difference of a test error from Table 6 that passes, in percentage points: public reproductions with
slightly different schedules lie up to 0.7 off, and one run has a standard deviation of 0.2 to 0.3."""


def net_name(name: str) -> str:
    """Return a net as the paper writes it.

    >>> net_name("resnet56"), net_name("plain20"), net_name("highway20")
    ('ResNet-56', 'plain-20', 'highway-20')
    """
    family = name.rstrip("0123456789")
    return f"{'ResNet' if family == 'resnet' else family}-{name[len(family) :]}"


def full(name: str, seeds: tuple[int, ...] = (0,)) -> PlannedRun:
    """Return the paper's own run of a net: `resnet56`, `plain20`, `highway56`."""
    return PlannedRun(name=net_name(name), spec=recipe(f"cifar10.{name}"), seeds=seeds)


def on_gpu(name: str, *, steps: int = GPU_STEPS, shortcut: Shortcut | None = None) -> PlannedRun:
    """Return a run of a net at its own size with a compressed schedule."""
    return _with_shortcut(PlannedRun(name=net_name(name), spec=scaled(f"cifar10.{name}", steps=steps)), shortcut)


def on_cpu(name: str, *, shortcut: Shortcut | None = None) -> PlannedRun:
    """Return a run of a net that takes a minute or two on one CPU core; see `CPU_SETTING`."""
    spec = scaled(f"cifar10.{name}", steps=CPU_STEPS, image_px=8, first_width=8, batch=64)
    return _with_shortcut(PlannedRun(name=net_name(name), spec=spec), shortcut)


def _with_shortcut(plan: PlannedRun, shortcut: Shortcut | None) -> PlannedRun:
    model = plan.spec.model
    if shortcut is None or not isinstance(model, ResNetSpec):
        return plan
    spec = dataclasses.replace(plan.spec, model=dataclasses.replace(model, shortcut=shortcut))
    return dataclasses.replace(plan, name=f"{plan.name} option {shortcut}", spec=spec)


def final_error(run: FoundRun, split: Literal["test", "validation"]) -> float:
    """Return the top-1 error of the final weights on a split, in percent.

    Raises:
        Unavailable: they were evaluated on another split, or the log is damaged.
    """
    final = run.log.final
    if final is None or final.split != split:
        raise Unavailable(f"{run.path} has no {split} error of its final weights")
    return final.top1_error


def test_error(run: FoundRun) -> float:
    """Return the top-1 error of the final weights on the test split, in percent; see `final_error`."""
    return final_error(run, "test")


def window(run: FoundRun) -> int:
    """Return over how many last iterations training error and loss are averaged: 1,000 of the paper's 64,000."""
    return max(100, run.spec.steps // 64)


def training_error(run: FoundRun) -> float:
    """Return the training error at the end, in percent: of the augmented batches of the last iterations."""
    return run.training_mean("top1_error", window(run))


def training_loss(run: FoundRun) -> float:
    """Return the training loss at the end: of the augmented batches of the last iterations."""
    return run.training_mean("loss", window(run))


def test_difference(first: FoundRun, second: FoundRun) -> float:
    """Return the test error of the first run minus that of the second, in percentage points."""
    return test_error(first) - test_error(second)


def training_difference(first: FoundRun, second: FoundRun) -> float:
    """Return the training error of the first run minus that of the second, in percentage points."""
    return training_error(first) - training_error(second)


def loss_difference(first: FoundRun, second: FoundRun) -> float:
    """Return the training loss of the first run minus that of the second."""
    return training_loss(first) - training_loss(second)


def smallest_training_difference(first: FoundRun, second: FoundRun, from_step: int) -> float:
    """Return the smallest difference of the training errors after `from_step`, each a mean over `window` iterations."""
    steps = window(first)
    ends = range(from_step + steps, first.spec.steps + 1, steps)
    return min(
        first.training_mean_at("top1_error", steps, end) - second.training_mean_at("top1_error", steps, end)
        for end in ends
    )


def steps_until_training_error(run: FoundRun, below: int | float) -> int:
    """Return the iterations until the training error, a mean over 100, is first below `below` percent.

    Raises:
        Unavailable: it never is.
    """
    for point in run.log.training:
        if point.step >= 100 and run.training_mean_at("top1_error", 100, point.step) < below:
            return point.step
    raise Unavailable(f"the training error stays above {below:g} %")


def reported(
    plans: Iterable[PlannedRun],
    *,
    budget: Budget,
    source: str,
    why: str = "the paper draws the curve and prints no value",
    training: bool = True,
    test: bool = True,
) -> list[Row]:
    """Return rows that show the errors of runs without judging them: training first, then test."""
    kinds = [("training error at the end, %", training_error)] if training else []
    kinds += [("test error, %", test_error)] if test else []
    return [
        Row(
            run=plan.name,
            meaning=meaning,
            ours=FromRuns(runs=(plan,), read=read),
            rule=Report(why=why),
            source=source,
            budget=budget,
        )
        for meaning, read in kinds
        for plan in plans
    ]


def compared(
    first: PlannedRun,
    second: PlannedRun,
    read: Callable[[FoundRun, FoundRun], float],
    *,
    meaning: str,
    rule: Rule,
    source: str,
    budget: Budget,
    decimals: int = 2,
) -> Row:
    """Return a row about the difference of two runs, read seed by seed."""
    return Row(
        run=f"{first.name} - {second.name}",
        meaning=meaning,
        ours=FromRuns(runs=(first, second), read=read),
        rule=rule,
        source=source,
        budget=budget,
        decimals=decimals,
    )
