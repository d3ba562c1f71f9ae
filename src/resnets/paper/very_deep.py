"""Sec. 4.2: nets of over 1000 layers can be trained."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, NamedTuple

from resnets.engine.threads import threads
from resnets.paper.core.cifar import compared, reported, test_difference
from resnets.paper.core.experiment import Computed, Experiment, FromRuns, Picture, PlannedRun, Row
from resnets.paper.core.scaled import scaled
from resnets.paper.core.verdict import AtMost, Below, Report, Within
from resnets.specs.catalogue import model_spec
from resnets.specs.counts import count_parameters

if TYPE_CHECKING:
    from resnets.artifacts.found_runs import FoundRun

N = 200
DEPTH = 6 * N + 2
PARAMETERS = 97_216 * N - 21_926
GPU_STEPS = 4_000
SHARE = 50.0


def _on_gpu(name: str, label: str) -> PlannedRun:
    return PlannedRun(
        name=label, spec=dataclasses.replace(scaled(f"cifar10.{name}", steps=GPU_STEPS), precision="bf16")
    )


DEEP, SHALLOW = _on_gpu(f"resnet{DEPTH}", f"ResNet-{DEPTH}"), _on_gpu("resnet110", "ResNet-110")


class Trial(NamedTuple):
    """What a few steps of the net came to."""

    parameters: int
    not_finite: int
    """Losses and norms of gradients that are no finite number."""
    first_loss: float


@functools.cache
def trial(steps: int = 2) -> Trial:
    """Build the net of 1202 layers and take a few steps: 4 random images of 8 x 8 pixels, learning rate 0.01."""
    with threads(1):
        return _trial(steps)


def _trial(steps: int) -> Trial:
    import torch

    from resnets.models.build import build

    model = build(model_spec(f"cifar-resnet{DEPTH}"), seed=0).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 8, 8, generator=generator)
    labels = torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    values: list[float] = []
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        values += [loss.item(), norm.item()]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Trial(parameters, sum(not math.isfinite(value) for value in values), values[0])


def share_of_first_error(run: FoundRun) -> float:
    """Return the training error at the end as a share of that of the first 100 iterations, in percent."""
    first = run.training_mean_at("top1_error", 100, 100)
    return 100 * run.training_mean("top1_error", 100) / first


EXPERIMENT = Experiment(
    title="Sec. 4.2. A net of 1202 layers can be trained",
    claim="Training a net of over 1000 layers shows no difficulty of optimisation.",
    rows=(
        Row(
            run=f"ResNet-{DEPTH}",
            meaning="parameters, counted from its spec",
            ours=Computed(value=lambda: count_parameters(model_spec(f"cifar-resnet{DEPTH}"))),
            rule=Within(tolerance=0, why="97,216 n - 21,926 with n = 200; the paper prints 19.4M"),
            paper=PARAMETERS,
            printed="19.4M",
            source="Table 6",
            decimals=0,
        ),
        Row(
            run=f"ResNet-{DEPTH}",
            meaning="parameters of the built net",
            ours=Computed(value=lambda: trial().parameters, slow=True),
            rule=Within(tolerance=0, why="97,216 n - 21,926 with n = 200; the paper prints 19.4M"),
            paper=PARAMETERS,
            printed="19.4M",
            source="Table 6",
            budget="cpu",
            decimals=0,
        ),
        Row(
            run=f"ResNet-{DEPTH}, 2 steps",
            meaning="losses and gradient norms that are not finite",
            ours=Computed(value=lambda: trial().not_finite, slow=True),
            rule=AtMost(limit=0, why="signals and gradients neither vanish nor explode through 1202 layers"),
            source="Sec. 4.2",
            budget="cpu",
            decimals=0,
        ),
        Row(
            run=f"ResNet-{DEPTH}, 2 steps",
            meaning="training loss of the first step",
            ours=Computed(value=lambda: trial().first_loss, slow=True),
            rule=Report(why="4 random images and random weights"),
            source="not in the paper",
            budget="cpu",
            decimals=3,
        ),
        Row(
            run=f"ResNet-{DEPTH}",
            meaning="training error at the end as a share of the first, %",
            ours=FromRuns(runs=(DEEP,), read=share_of_first_error, has_to_train=True),
            rule=Below(
                limit=SHARE, why="it trains: after a sixteenth of the schedule less than half of the error is left"
            ),
            source="Sec. 4.2",
            budget="gpu",
        ),
        compared(
            DEEP,
            SHALLOW,
            test_difference,
            meaning="test error, points",
            rule=Report(why="too short a run to compare depths by"),
            source="Table 6",
            budget="gpu",
        ),
        *reported((SHALLOW, DEEP), budget="gpu", source="Fig. 6, right", why="a sixteenth of the schedule"),
    ),
    pictures=(
        Picture(
            name="very-deep-gpu", title="110 and 1202 layers, 4,000 iterations", runs=(SHALLOW, DEEP), budget="gpu"
        ),
    ),
    cost={
        "cpu": "two steps of the net on 4 images of 8 x 8 pixels, about 10 seconds",
        "gpu": "4,000 iterations of 1202 and of 110 layers in bf16, about an hour on one GPU (estimated)",
    },
    notes=("The paper's own run of 1202 layers is the full budget of `depth1202` and `table6`.",),
)
