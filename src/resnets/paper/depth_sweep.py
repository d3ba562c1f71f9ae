"""Sec. 4.2: training error over depth; it grows for plain nets from about 20 layers on, and falls for residual ones."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from resnets.paper.core.cifar import (
    CPU_SETTING,
    GPU_DEEP_STEPS,
    compared,
    on_cpu,
    on_gpu,
    reported,
    test_difference,
    training_difference,
    training_loss,
)
from resnets.paper.core.experiment import Computed, Experiment, FromRuns, Picture, Row
from resnets.paper.core.verdict import Above, AtMost, Below, Report, Within
from resnets.recipes.find import recipe

if TYPE_CHECKING:
    from resnets.artifacts.found_runs import FoundRun

CPU = tuple(on_cpu(f"plain{depth}") for depth in (8, 20, 32, 56))
GPU = tuple(on_gpu(f"resnet{depth}", steps=GPU_DEEP_STEPS) for depth in (20, 32, 56, 110))


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Return Spearman's correlation: that of the ranks, equal values sharing theirs.

    >>> rank_correlation([20, 32, 56], [1.0, 1.5, 1.4])
    0.5
    """
    ranks = [[_rank(values, value) for value in values] for values in (first, second)]
    centred = [[rank - sum(row) / len(row) for rank in row] for row in ranks]
    products = [sum(a * b for a, b in zip(centred[i], centred[j], strict=True)) for i, j in ((0, 1), (0, 0), (1, 1))]
    return products[0] / (products[1] * products[2]) ** 0.5 if products[1] and products[2] else 0.0


def _rank(values: list[float], value: float) -> float:
    return sum(other < value for other in values) + 0.5 * sum(other == value for other in values)


def _correlation(*runs: FoundRun) -> float:
    depths = [float(run.spec.model.depth) for run in runs]
    return rank_correlation(depths, [training_loss(run) for run in runs])


EXPERIMENT = Experiment(
    title="Sec. 4.2. Depth against training error",
    claim="More layers train worse in plain nets, and better in residual nets of up to 110 layers.",
    rows=(
        Row(
            run="depths of n = 3, 5, 7, 9, 18, 200",
            meaning="nets with another number of layers than 6n + 2",
            ours=Computed(
                value=lambda: sum(
                    recipe(f"cifar10.resnet{6 * n + 2}").model.depth != 6 * n + 2 for n in (3, 5, 7, 9, 18, 200)
                )
            ),
            rule=Within(tolerance=0, why="a count is exact"),
            paper=0,
            source="Sec. 4.2",
            decimals=0,
        ),
        *(
            compared(
                deeper,
                shallower,
                training_difference,
                meaning="training error at the end, points",
                rule=AtMost(limit=0.3, why="depth lowers it; 0.3 for the scatter of seeds"),
                source="Fig. 6, middle",
                budget="gpu",
            )
            for shallower, deeper in itertools.pairwise(GPU)
        ),
        *(
            compared(
                deeper,
                GPU[0],
                test_difference,
                meaning="test error, points",
                rule=Below(limit=0, why="accuracy gained from depth (Table 6)"),
                source="Table 6",
                budget="gpu",
            )
            for deeper in GPU[2:]
        ),
        *reported(GPU, budget="gpu", source="Fig. 6, middle", why="shortened, no numbers of the paper"),
        Row(
            run="plain-20, plain-32, plain-56",
            meaning="Spearman's correlation of depth and training loss",
            ours=FromRuns(runs=CPU[1:], read=_correlation),
            rule=Above(limit=0, why="the loss grows with depth; three seeds gave 1 each"),
            source="Fig. 6, left",
            budget="cpu",
        ),
        *(
            Row(
                run=plan.name,
                meaning="training loss of the last 100 iterations",
                ours=FromRuns(runs=(plan,), read=training_loss),
                rule=Report(why="in small, no numbers of the paper"),
                source="Fig. 6, left",
                budget="cpu",
                decimals=3,
            )
            for plan in CPU
        ),
    ),
    pictures=(
        Picture(name="depth-sweep-cpu", title="Plain nets of 8 to 56 layers, in small", runs=CPU, budget="cpu"),
        Picture(name="depth-sweep-gpu", title="Residual nets, 16,000 iterations", runs=GPU, budget="gpu"),
    ),
    cost={
        "cpu": "4 plain nets, about 2 minutes",
        "gpu": "4 residual nets of 16,000 iterations, about 30 minutes on one GPU (estimated)",
    },
    notes=(
        f"Budget cpu: {CPU_SETTING}. The claim is about depths from 20 on.",
        "The paper's own runs over depth are the full budget of `table6` and `figure6`.",
    ),
)
