"""The paper's CIFAR runs made smaller: fewer iterations, smaller images, thinner nets (He et al. 2015, Sec. 4.2).

What stays: the nets' depth and wiring, the optimiser, the shape of the schedule (learning rate divided by 10 at 1/2
and 3/4 of the run), mirroring and random crops. What changes is stated with every result.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from resnets.recipes.find import recipe
from resnets.specs.data import Cifar, PadCrop
from resnets.specs.model import HighwaySpec, ResNetSpec
from resnets.specs.run import shorten

if TYPE_CHECKING:
    from typing import Literal

    from resnets.specs.run import TrainSpec

EVALUATIONS = 10
"""Evaluations of a scaled run: a test set can cost as much as many of its steps."""


def scaled(
    name: str, *, steps: int, image_px: Literal[32, 16, 8] = 32, first_width: int = 16, batch: int = 128
) -> TrainSpec:
    """Return the recipe `name` of CIFAR, made smaller.

    Args:
        name: such as `cifar10.plain56`.
        steps: of the run; the milestones are at 1/2 and 3/4 of them.
        image_px: side of the mean-pooled images; the padding of the crops shrinks with it.
        first_width: filters of the first stage; the second and third have twice and four times as many.
        batch: images a step.
    """
    spec = shorten(recipe(name), steps)
    model = spec.model
    assert isinstance(model, ResNetSpec | HighwaySpec)
    assert isinstance(spec.dataset, Cifar)
    return dataclasses.replace(
        spec,
        model=dataclasses.replace(model, widths=tuple(first_width * factor for factor in (1, 2, 4))),
        dataset=dataclasses.replace(spec.dataset, image_px=image_px),
        augment=PadCrop(pad_px=image_px // 8, flip=True),
        global_batch=batch,
        evaluate_every_steps=max(1, steps // EVALUATIONS),
    )
