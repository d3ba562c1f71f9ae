"""Figure 6: training and test error on CIFAR-10 of plain nets, of residual nets, and of 110 against 1202 layers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from resnets.paper.core.cifar import (
    CPU_SETTING,
    GPU_DEEP_STEPS,
    compared,
    full,
    on_cpu,
    on_gpu,
    reported,
    test_difference,
    training_difference,
    training_error,
)
from resnets.paper.core.experiment import Experiment, FromRuns, Picture, Row
from resnets.paper.core.verdict import Above, AtLeast, Below

if TYPE_CHECKING:
    from resnets.paper.core.experiment import PlannedRun
    from resnets.paper.core.verdict import Rule

PLAIN = tuple(full(f"plain{depth}") for depth in (20, 32, 44, 56))
PLAIN_110 = full("plain110")
RESIDUAL = tuple(full(f"resnet{depth}") for depth in (20, 32, 44, 56))
RESIDUAL_110 = full("resnet110")
ANY_110 = full("resnet110", (0, 1, 2, 3, 4))
"""For pictures, which show the first of Table 6's seeds that is there."""
RESIDUAL_1202 = full("resnet1202")
GPU_PLAIN = tuple(on_gpu(f"plain{depth}") for depth in (20, 56))
GPU_RESIDUAL = tuple(on_gpu(f"resnet{depth}", steps=GPU_DEEP_STEPS) for depth in (20, 32, 56, 110))
CPU_PLAIN = tuple(on_cpu(f"plain{depth}") for depth in (20, 32, 56))
CPU_RESIDUAL = tuple(on_cpu(f"resnet{depth}") for depth in (20, 56))

_GROWS = Above(limit=0, why="the training error of plain nets grows with depth, pair by pair")
_FALLS = Below(limit=0, why="the training error of residual nets falls with depth, pair by pair")


def _pairs(plans: tuple[PlannedRun, ...], rule: Rule, source: str) -> list[Row]:
    return [
        compared(
            deeper,
            shallower,
            training_difference,
            meaning="training error at the end, points",
            rule=rule,
            source=source,
            budget="full",
        )
        for shallower, deeper in itertools.pairwise(plans)
    ]


EXPERIMENT = Experiment(
    title="Figure 6. Training and test error on CIFAR-10",
    claim=(
        "Plain nets get worse with depth, residual ones better, up to 110 layers; 1202 layers train to the same error "
        "and test worse."
    ),
    rows=(
        *_pairs(PLAIN, _GROWS, "Fig. 6, left"),
        compared(
            PLAIN[-1],
            PLAIN[0],
            test_difference,
            meaning="test error, points",
            rule=AtLeast(limit=1, why="the curves lie apart by more than that"),
            source="Fig. 6, left",
            budget="full",
        ),
        Row(
            run="plain-110",
            meaning="training error at the end, %",
            ours=FromRuns(runs=(PLAIN_110,), read=training_error),
            rule=Above(limit=30, why="the paper reports an error above 60 % and does not draw it"),
            paper=60,
            printed="> 60",
            source="Fig. 6, left",
            budget="full",
        ),
        *_pairs((*RESIDUAL, RESIDUAL_110), _FALLS, "Fig. 6, middle"),
        *reported((*PLAIN, PLAIN_110, *RESIDUAL, RESIDUAL_110, RESIDUAL_1202), budget="full", source="Fig. 6"),
        *reported(GPU_PLAIN, budget="gpu", source="Fig. 6, left", why="shortened"),
        *reported(GPU_RESIDUAL, budget="gpu", source="Fig. 6, middle", why="shortened"),
        *reported(CPU_PLAIN, budget="cpu", source="Fig. 6, left", why="in small"),
        *reported(CPU_RESIDUAL, budget="cpu", source="Fig. 6, middle", why="in small"),
    ),
    pictures=(
        Picture(name="figure6-plain", title="Fig. 6, left. Plain nets on CIFAR-10", runs=PLAIN, budget="full"),
        Picture(
            name="figure6-residual",
            title="Fig. 6, middle. Residual nets on CIFAR-10",
            runs=(*RESIDUAL, ANY_110),
            budget="full",
        ),
        Picture(
            name="figure6-1202",
            title="Fig. 6, right. 110 and 1202 layers on CIFAR-10",
            runs=(ANY_110, RESIDUAL_1202),
            budget="full",
        ),
        Picture(
            name="figure6-plain-gpu", title="Fig. 6, left. Plain nets, 8,000 iterations", runs=GPU_PLAIN, budget="gpu"
        ),
        Picture(
            name="figure6-residual-gpu",
            title="Fig. 6, middle. Residual nets, 16,000 iterations",
            runs=GPU_RESIDUAL,
            budget="gpu",
        ),
        Picture(name="figure6-plain-cpu", title="Fig. 6, left, in small. Plain nets", runs=CPU_PLAIN, budget="cpu"),
        Picture(
            name="figure6-residual-cpu",
            title="Fig. 6, middle, in small. Residual nets",
            runs=CPU_RESIDUAL,
            budget="cpu",
        ),
    ),
    cost={
        "cpu": "5 nets, about 3 minutes",
        "gpu": "2 nets of 8,000 and 4 of 16,000 iterations: tens of minutes on one GPU (estimated)",
        "full": "64,000 iterations of 5 plain and 6 residual nets: days on one GPU (estimated)",
    },
    notes=(
        f"Budget cpu: {CPU_SETTING}. That deeper residual nets are better does not show in so few iterations.",
        "The judged claims in small are those of `degradation` and `depth_sweep`.",
    ),
)
