"""Sec. 2: highway nets have gates on their shortcuts, with parameters; identity shortcuts have none and never close."""

from __future__ import annotations

from resnets.paper.core.cifar import CPU_SETTING, compared, on_cpu, on_gpu, reported, test_difference
from resnets.paper.core.experiment import Budget, Computed, Experiment, Picture, PlannedRun, Row
from resnets.paper.core.verdict import AtLeast, Report, Within
from resnets.specs.catalogue import model_spec
from resnets.specs.counts import count_multiply_adds, count_parameters

DEPTHS = (20, 56)
_NAMES = tuple(f"{family}{depth}" for depth in DEPTHS for family in ("highway", "resnet"))
RUNS: dict[Budget, dict[str, PlannedRun]] = {
    "gpu": {name: on_gpu(name) for name in _NAMES},
    "cpu": {name: on_cpu(name) for name in _NAMES},
}


def _over_plain(family: str, depth: int) -> int:
    return count_parameters(model_spec(f"cifar-{family}{depth}")) - count_parameters(model_spec(f"cifar-plain{depth}"))


def _times_the_cost(depth: int) -> float:
    gated, identity = model_spec(f"cifar-highway{depth}"), model_spec(f"cifar-resnet{depth}")
    return count_multiply_adds(gated, 32, 32) / count_multiply_adds(identity, 32, 32)


EXPERIMENT = Experiment(
    title="Sec. 2. Highway against identity shortcuts, at equal depth",
    claim=(
        "Gates of highway nets depend on the data and have parameters; when one closes, its layer is no longer residual. "
        "Identity shortcuts are never closed and have no parameters."
    ),
    rows=(
        *(
            Row(
                run=f"ResNet-{depth}",
                meaning="parameters beyond the plain net",
                ours=Computed(value=lambda depth=depth: _over_plain("resnet", depth)),
                rule=Within(tolerance=0, why="identity shortcuts are free of parameters"),
                paper=0,
                source="Sec. 2",
                decimals=0,
            )
            for depth in DEPTHS
        ),
        *(
            Row(
                run=f"highway-{depth}",
                meaning="parameters of the gates",
                ours=Computed(value=lambda depth=depth: _over_plain("highway", depth)),
                rule=AtLeast(limit=1, why="gates have parameters"),
                source="Sec. 2",
                decimals=0,
            )
            for depth in DEPTHS
        ),
        *(
            Row(
                run=f"highway-{depth} : ResNet-{depth}",
                meaning="multiply-adds, ratio",
                ours=Computed(value=lambda depth=depth: _times_the_cost(depth)),
                rule=Report(why="the paper gives no figure"),
                source="not in the paper",
            )
            for depth in DEPTHS
        ),
        *(
            compared(
                runs[f"highway{depth}"],
                runs[f"resnet{depth}"],
                test_difference,
                meaning="test error, points",
                rule=Report(why="the paper trains no highway net of its own"),
                source="not in the paper",
                budget=budget,
            )
            for budget, runs in RUNS.items()
            for depth in DEPTHS
        ),
        *(
            row
            for budget, runs in RUNS.items()
            for row in reported(
                runs.values(),
                budget=budget,
                source="not in the paper",
                why="the paper trains no highway net of its own",
            )
        ),
    ),
    pictures=tuple(
        Picture(
            name=f"highway-{budget}",
            title="Highway and identity shortcuts" + (", in small" if budget == "cpu" else ", 8,000 iterations"),
            runs=tuple(runs.values()),
            budget=budget,
        )
        for budget, runs in RUNS.items()
    ),
    cost={
        "cpu": "4 nets, about 4 minutes",
        "gpu": "4 nets of 8,000 iterations, about 10 minutes on one GPU (estimated)",
    },
    notes=(
        "Our highway block has a 3 x 3 gate a channel with bias -2 and carries x where the gate is 0. Table 6 quotes "
        "highway nets of 19 and 32 layers by their authors, which are other nets.",
        f"Budget cpu: {CPU_SETTING}.",
    ),
)
