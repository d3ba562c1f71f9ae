"""Recipes for a whole family of depths, found by name: `resnet56`, `plain20`, any 6n+2."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from resnets.specs.run import TrainSpec

FAMILIES = {
    "resnet": "residual net with option A shortcuts",
    "plain": "the same net without shortcuts",
    "highway": "the same net with gated shortcuts",
}


def family_recipe(module: str, name: str, run: Callable[[str, int], TrainSpec]) -> Callable[[], TrainSpec]:
    """Return the recipe function called `name` in `module`, which calls `run(family, depth)`.

    Raises:
        AttributeError: the name is not that of a family followed by a depth.
    """
    match = re.fullmatch(rf"({'|'.join(FAMILIES)})(\d+)", name)
    if match is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return functools.partial(run, match[1], int(match[2]))
