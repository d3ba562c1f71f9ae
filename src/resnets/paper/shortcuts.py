"""Sec. 3.3 and 4.1: shortcut options A, B and C; here on CIFAR-10, where the paper uses A throughout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.paper.core.cifar import CPU_SETTING, compared, on_cpu, on_gpu, reported, test_difference, test_error
from resnets.paper.core.experiment import Computed, Experiment, FromRuns, Row
from resnets.paper.core.verdict import AtLeast, AtMost, Report, Within
from resnets.specs.catalogue import model_spec
from resnets.specs.counts import count_parameters, layers

if TYPE_CHECKING:
    from resnets.artifacts.found_runs import FoundRun
    from resnets.specs.model import Shortcut

PROJECTIONS = {
    "resnet18-a": 0,
    "resnet18": 3,
    "resnet18-c": 8,
    "resnet34-a": 0,
    "resnet34": 3,
    "resnet34-c": 16,
    "resnet50": 4,
    "resnet101": 4,
    "resnet152": 4,
}
"""Projections of each net; 34 layers have "thirteen" more with option C than with B."""
OPTIONS: tuple[Shortcut, ...] = ("A", "B", "C")
GPU = {depth: tuple(on_gpu(f"resnet{depth}", shortcut=option) for option in OPTIONS) for depth in (20, 56)}
GPU_PLAIN_56 = on_gpu("plain56")
CPU = tuple(on_cpu("resnet20", shortcut=option) for option in OPTIONS)


def projections(name: str) -> int:
    """Return the number of projection shortcuts of a net."""
    return sum(layer.branch == "projection" and layer.kind == "conv" for layer in layers(model_spec(name), 224, 224))


def largest_difference(*runs: FoundRun) -> float:
    """Return by how much the test errors of some runs lie apart, in percentage points."""
    errors = [test_error(run) for run in runs]
    return max(errors) - min(errors)


def _added_by_option_a() -> int:
    pairs = [(f"resnet{depth}-a", f"plain{depth}") for depth in (18, 34)]
    pairs += [(f"cifar-resnet{depth}", f"cifar-plain{depth}") for depth in (20, 32, 44, 56, 110)]
    return sum(count_parameters(model_spec(a)) - count_parameters(model_spec(plain)) for a, plain in pairs)


EXPERIMENT = Experiment(
    title="Sec. 4.1. Shortcut options A, B, C (on CIFAR-10)",
    claim=(
        "Zero padding (A), projections where dimensions grow (B) and projections everywhere (C) are all far better than "
        "no shortcut; they differ little, so projections are not essential."
    ),
    rows=(
        *(
            Row(
                run=name,
                meaning="projections",
                ours=Computed(value=lambda name=name: projections(name)),
                rule=Within(tolerance=0, why="a count is exact"),
                paper=count,
                source="Sec. 3.3",
                decimals=0,
            )
            for name, count in PROJECTIONS.items()
        ),
        Row(
            run="7 nets with option A, and plain",
            meaning="parameters that the shortcuts add",
            ours=Computed(value=_added_by_option_a),
            rule=Within(tolerance=0, why="identity and zero padding have none"),
            paper=0,
            source="Sec. 3.3",
            decimals=0,
        ),
        *(
            Row(
                run=f"ResNet-{depth}, A, B and C",
                meaning="largest difference of the test errors, points",
                ours=FromRuns(runs=plans, read=largest_difference),
                rule=AtMost(limit=1.0, why="differences are small; a run scatters by 0.3"),
                source="Table 3",
                budget="gpu",
            )
            for depth, plans in GPU.items()
        ),
        *(
            compared(
                GPU_PLAIN_56,
                plan,
                test_difference,
                meaning="test error, points",
                rule=AtLeast(limit=2, why="every option is far better than no shortcut"),
                source="Table 3",
                budget="gpu",
            )
            for plan in GPU[56]
        ),
        *reported((*GPU[20], *GPU[56]), budget="gpu", source="not in the paper", why="the paper compares on ImageNet"),
        Row(
            run="ResNet-20, A, B and C",
            meaning="largest difference of the test errors, points",
            ours=FromRuns(runs=CPU, read=largest_difference),
            rule=Report(why="in small, where seeds alone differ by a point"),
            source="Table 3",
            budget="cpu",
        ),
        *reported(CPU, budget="cpu", source="not in the paper", why="the paper compares on ImageNet"),
    ),
    cost={
        "cpu": "3 nets, about a minute",
        "gpu": "7 nets of 8,000 iterations, about 20 minutes on one GPU (estimated)",
    },
    notes=(
        "The paper compares the options on ImageNet (Table 3, `table3`); CIFAR-10 stands in for it here.",
        f"Budget cpu: {CPU_SETTING}.",
    ),
)
