"""Sec. 4.2: depth raises the training error of plain nets, and shortcuts remove that, with not a parameter more."""

from __future__ import annotations

from resnets.paper.core.cifar import (
    CPU_SETTING,
    compared,
    full,
    loss_difference,
    on_cpu,
    on_gpu,
    reported,
    test_difference,
    training_difference,
)
from resnets.paper.core.experiment import Computed, Experiment, Picture, Row
from resnets.paper.core.verdict import Above, AtLeast, AtMost, Below, Within
from resnets.specs.catalogue import CIFAR_DEPTHS, model_spec
from resnets.specs.counts import count_multiply_adds, count_parameters

PLAIN_20, PLAIN_56 = full("plain20"), full("plain56")
RESNET_20, RESNET_56 = full("resnet20"), full("resnet56")
GPU = {name: on_gpu(name) for name in ("plain20", "plain56", "resnet20", "resnet56")}
CPU = {name: on_cpu(name) for name in ("plain20", "plain56", "resnet20", "resnet56")}

_LOSS = "training loss of the last 100 iterations"
_TRAINING = "training error at the end, points"
_TEST = "test error, points"


def _unequal() -> int:
    """Return how many depths have a residual net with other parameters or multiply-adds than the plain one."""
    unequal = 0
    for depth in CIFAR_DEPTHS["plain"]:
        plain, residual = model_spec(f"cifar-plain{depth}"), model_spec(f"cifar-resnet{depth}")
        unequal += count_parameters(plain) != count_parameters(residual)
        unequal += count_multiply_adds(plain, 32, 32) != count_multiply_adds(residual, 32, 32)
    return unequal


EXPERIMENT = Experiment(
    title="Sec. 4.2. Degradation, and its removal by shortcuts",
    claim=(
        "A deep plain net has a higher training error than a shallow one. The residual net of the same depth, width, "
        "parameters and cost does not."
    ),
    rows=(
        Row(
            run="plain and residual, 5 depths",
            meaning="depths with other parameters or multiply-adds",
            ours=Computed(value=_unequal),
            rule=Within(tolerance=0, why="identity shortcuts with zero padding have no parameters"),
            paper=0,
            source="Sec. 4.2",
            decimals=0,
        ),
        *(
            compared(first, second, training_difference, meaning=_TRAINING, rule=rule, source="Fig. 6", budget="full")
            for first, second, rule in (
                (PLAIN_56, PLAIN_20, Above(limit=0, why="degradation")),
                (RESNET_56, RESNET_20, Below(limit=0, why="with shortcuts depth lowers the training error")),
            )
        ),
        compared(
            PLAIN_56,
            RESNET_56,
            test_difference,
            meaning=_TEST,
            rule=AtLeast(limit=2, why="the curves of Fig. 6 lie further apart"),
            source="Fig. 6",
            budget="full",
        ),
        *(
            compared(
                GPU[first],
                GPU[second],
                training_difference,
                meaning=_TRAINING,
                rule=rule,
                source="Fig. 6",
                budget="gpu",
            )
            for first, second, rule in (
                ("plain56", "plain20", AtLeast(limit=2, why="degradation, well above the scatter of seeds")),
                ("resnet56", "resnet20", AtMost(limit=0.3, why="no degradation; 0.3 for the scatter of seeds")),
            )
        ),
        compared(
            GPU["plain56"],
            GPU["resnet56"],
            test_difference,
            meaning=_TEST,
            rule=AtLeast(limit=2, why="well above the scatter of seeds"),
            source="Fig. 6",
            budget="gpu",
        ),
        *(
            compared(
                CPU[first],
                CPU[second],
                loss_difference,
                meaning=_LOSS,
                rule=rule,
                source="Fig. 6",
                budget="cpu",
                decimals=3,
            )
            for first, second, rule in (
                ("plain56", "plain20", AtLeast(limit=0.10, why="degradation; three seeds gave 0.26 to 0.40")),
                (
                    "resnet56",
                    "plain56",
                    AtMost(limit=-0.15, why="shortcuts remove it; three seeds gave -0.45 to -0.26"),
                ),
                (
                    "resnet56",
                    "resnet20",
                    AtMost(
                        limit=0.20,
                        why="what deep nets lose by their slower start, less than plain ones do; three seeds gave 0.14 to 0.15",
                    ),
                ),
            )
        ),
        *reported(CPU.values(), budget="cpu", source="Fig. 6", why="in small, no numbers of the paper"),
        *reported(GPU.values(), budget="gpu", source="Fig. 6", why="shortened, no numbers of the paper"),
    ),
    pictures=(
        Picture(
            name="degradation-gpu",
            title="Plain and residual nets, 8,000 iterations",
            runs=tuple(GPU.values()),
            budget="gpu",
        ),
        Picture(
            name="degradation-cpu", title="Plain and residual nets, in small", runs=tuple(CPU.values()), budget="cpu"
        ),
    ),
    cost={
        "cpu": "4 nets, about 3 minutes",
        "gpu": "4 nets of 8,000 iterations, about 10 minutes on one GPU (estimated)",
        "full": "4 nets of 64,000 iterations, hours on one GPU (estimated)",
    },
    notes=(
        f"Budget cpu: {CPU_SETTING}. That a deeper residual net is better does not show in so few iterations: "
        "deeper nets start more slowly.",
    ),
)
