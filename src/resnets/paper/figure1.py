"""Figure 1: plain-20 and plain-56 on CIFAR-10; the deeper net has the higher training error, and so test error."""

from __future__ import annotations

from resnets.paper.core.cifar import (
    CPU_SETTING,
    compared,
    full,
    on_cpu,
    on_gpu,
    reported,
    smallest_training_difference,
    test_difference,
    training_difference,
)
from resnets.paper.core.experiment import Budget, Experiment, Picture, PlannedRun, Row
from resnets.paper.core.verdict import Above, AtLeast

_DEEP_AND_SHALLOW: dict[Budget, tuple[PlannedRun, PlannedRun]] = {
    "full": (full("plain56"), full("plain20")),
    "gpu": (on_gpu("plain56"), on_gpu("plain20")),
    "cpu": (on_cpu("plain56"), on_cpu("plain20")),
}
_TRAINING = {
    "full": Above(limit=0, why="the claim of the figure, which prints no values"),
    "gpu": AtLeast(limit=2, why="a large effect even after an eighth of the iterations"),
    "cpu": AtLeast(limit=5, why="the claim in small; three seeds gave 10.0 to 12.6"),
}
_TEST = {
    "full": AtLeast(limit=1, why="the claim of the figure, which shows some points"),
    "gpu": AtLeast(limit=1, why="the claim of the figure, which shows some points"),
    "cpu": AtLeast(limit=5, why="the claim in small; three seeds gave 12.4 to 15.2"),
}


def _rows(budget: Budget) -> list[Row]:
    deep, shallow = _DEEP_AND_SHALLOW[budget]
    rows = [
        compared(
            deep,
            shallow,
            training_difference,
            meaning="training error at the end, points",
            rule=_TRAINING[budget],
            source="Fig. 1, left",
            budget=budget,
        ),
        compared(
            deep,
            shallow,
            test_difference,
            meaning="test error, points",
            rule=_TEST[budget],
            source="Fig. 1, right",
            budget=budget,
        ),
    ]
    if budget == "full":
        rows.append(
            compared(
                deep,
                shallow,
                lambda first, second: smallest_training_difference(first, second, 10_000),
                meaning="smallest difference of the training errors after 10k iterations, points",
                rule=Above(limit=0, why="the deeper net is above at all times, in means over 1,000 iterations"),
                source="Fig. 1, left",
                budget=budget,
            )
        )
    return rows + reported((shallow, deep), budget=budget, source="Fig. 1")


def _picture(budget: Budget) -> Picture:
    deep, shallow = _DEEP_AND_SHALLOW[budget]
    return Picture(
        name="figure1" if budget == "full" else f"figure1-{budget}",
        title="Fig. 1. Plain nets on CIFAR-10" + ("" if budget == "full" else ", scaled down"),
        runs=(shallow, deep),
        budget=budget,
    )


EXPERIMENT = Experiment(
    title="Figure 1. Degradation of plain nets on CIFAR-10",
    claim="With 56 layers a plain net has a higher training error, and with it a higher test error, than with 20.",
    rows=tuple(row for budget in _DEEP_AND_SHALLOW for row in _rows(budget)),
    pictures=tuple(map(_picture, _DEEP_AND_SHALLOW)),
    cost={
        "cpu": "2 nets, 1 to 2 minutes",
        "gpu": "2 nets of 8,000 iterations, some minutes on one GPU (estimated)",
        "full": "2 nets of 64,000 iterations, hours on one GPU (estimated)",
    },
    notes=(f"Budget cpu: {CPU_SETTING}.",),
)
