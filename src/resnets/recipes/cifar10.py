"""The paper's runs on CIFAR-10 (He et al. 2015, Sec. 4.2): `resnetN`, `plainN`, `highwayN` for any N = 6n+2.

Batch 128, SGD with momentum 0.9 and weight decay 1e-4, learning rate 0.1 divided by 10 at 32k and 48k of
64k steps, 4-pixel padding with random crops and mirroring, per-pixel mean subtracted. Trained on all 50,000
images; the split on which the authors chose the schedule is `--dataset.validation-images 5000`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.recipes.families import FAMILIES, family_recipe
from resnets.specs.catalogue import CIFAR_DEPTHS, model_spec
from resnets.specs.data import Cifar, PadCrop
from resnets.specs.optim import SGD, ErrorWarmup, NoWarmup, StepDecay
from resnets.specs.run import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Callable

WARMUP_DEPTH = 110
"""From this depth on, training starts at 0.01 until the training error is below 80 % (Sec. 4.2)."""

LISTED = {
    f"{family}{depth}": f"{depth} layers, {FAMILIES[family]}; any {family}N with N = 6n+2"
    for family, depths in CIFAR_DEPTHS.items()
    for depth in depths
}


def paper_run(family: str, depth: int) -> TrainSpec:
    """Return the paper's CIFAR-10 run of the net `cifar-{family}{depth}`."""
    return TrainSpec(
        recipe=f"cifar10.{family}{depth}",
        model=model_spec(f"cifar-{family}{depth}"),
        dataset=Cifar(),
        augment=PadCrop(pad_px=4, flip=True),
        optimizer=SGD(base_lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=StepDecay(milestones_steps=(32_000, 48_000), factor=0.1),
        warmup=ErrorWarmup() if depth >= WARMUP_DEPTH else NoWarmup(),
        steps=64_000,
        full_steps=64_000,
        global_batch=128,
    )


def __getattr__(name: str) -> Callable[[], TrainSpec]:
    """Return the recipe of a family and depth, such as `resnet56`."""
    return family_recipe(__name__, name, paper_run)
