"""The CIFAR nets on the embedded 8 x 8 digits: seconds to minutes on a CPU, no download.

Deep plain nets already train worse here than residual ones of the same depth. The length is 500 steps of
128 images; the learning rate falls at 1/2 and 3/4 of it, as in the paper's CIFAR runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.recipes.families import FAMILIES, family_recipe
from resnets.specs.catalogue import model_spec
from resnets.specs.data import DIGITS_CLASSES, Digits, PadCrop
from resnets.specs.optim import SGD, StepDecay
from resnets.specs.run import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Callable

LISTED = {
    f"{family}{depth}": f"{depth} layers, {kind}; any {family}N with N = 6n+2"
    for family, kind in FAMILIES.items()
    for depth in (8, 20, 32, 56)
}


def short_run(family: str, depth: int) -> TrainSpec:
    """Return a 500-step run of the net `cifar-{family}{depth}` on the digits."""
    return TrainSpec(
        recipe=f"digits.{family}{depth}",
        model=model_spec(f"cifar-{family}{depth}", num_classes=len(DIGITS_CLASSES), in_channels=1),
        dataset=Digits(),
        # A mirrored digit is another shape, or none.
        augment=PadCrop(pad_px=1, flip=False),
        optimizer=SGD(base_lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=StepDecay(milestones_steps=(250, 375), factor=0.1),
        steps=500,
        full_steps=500,
        global_batch=128,
        evaluate_every_steps=50,
    )


def __getattr__(name: str) -> Callable[[], TrainSpec]:
    """Return the recipe of a family and depth, such as `resnet56`."""
    return family_recipe(__name__, name, short_run)
