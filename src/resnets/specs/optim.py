"""How weights are updated: SGD, learning-rate schedules and warm-ups (He et al. 2015, Sec. 3.4 and 4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from resnets.specs.errors import SpecError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class SGD:
    """Stochastic gradient descent with momentum and weight decay."""

    base_lr: float = 0.1
    """Learning rate before any schedule."""
    momentum: float = 0.9
    """Share of the last update that is kept."""
    weight_decay: float = 1e-4
    """Factor of the L2 penalty's gradient."""
    decay_scope: Literal["weights", "all"] = "weights"
    """What decays: weights of convolutions and fully-connected layers (the original), or every parameter."""
    momentum_form: Literal["caffe", "torch"] = "caffe"
    """v = m v + lr g (the original), or v = m v + g scaled by lr; they differ when lr changes."""
    nesterov: bool = False
    """Nesterov's form of momentum; the paper does not use it."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _check(0 < self.base_lr < math.inf, f"optimizer.base_lr is {self.base_lr}; it is above 0 and finite.")
        _check(0 <= self.momentum < 1, f"optimizer.momentum is {self.momentum}; it is at least 0 and below 1.")
        _check(
            0 <= self.weight_decay < math.inf,
            f"optimizer.weight_decay is {self.weight_decay}; it is 0 or more and finite.",
        )
        _check(not self.nesterov or self.momentum > 0, "optimizer.nesterov needs optimizer.momentum above 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDecay:
    """Divide the learning rate at fixed steps (CIFAR-10: 32k and 48k, Sec. 4.2)."""

    milestones_steps: tuple[int, ...] = (32_000, 48_000)
    """Steps at which the learning rate is multiplied by `factor`."""
    factor: float = 0.1
    """Multiplier at each milestone."""

    def __post_init__(self) -> None:
        """Refuse unordered milestones."""
        _check(
            all(a < b for a, b in zip((0, *self.milestones_steps), self.milestones_steps, strict=False)),
            f"schedule.milestones_steps is {self.milestones_steps}; steps are positive and increase.",
        )
        _check(0 < self.factor < 1, f"schedule.factor is {self.factor}; it lies between 0 and 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plateau:
    """Divide the learning rate when the validation error stops improving (ImageNet, Sec. 3.4)."""

    factor: float = 0.1
    """Multiplier at each plateau."""
    patience: int = 5
    """Evaluations without improvement before the learning rate falls."""
    min_improvement: float = 0.1
    """Percentage points of top-1 error that count as an improvement."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _check(0 < self.factor < 1, f"schedule.factor is {self.factor}; it lies between 0 and 1.")
        _check(self.patience >= 1, f"schedule.patience is {self.patience}; it is at least 1.")
        _check(self.min_improvement >= 0, f"schedule.min_improvement is {self.min_improvement}; it is 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """Half a cosine from the base learning rate down to a share of it at the last step."""

    final_share: float = 0.0
    """Learning rate at the end as a share of the base learning rate."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _check(0 <= self.final_share <= 1, f"schedule.final_share is {self.final_share}; it lies between 0 and 1.")


ScheduleSpec = StepDecay | Plateau | Cosine


@dataclass(frozen=True, kw_only=True, slots=True)
class NoWarmup:
    """Start at the schedule's learning rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearWarmup:
    """Raise the learning rate in a straight line over the first steps."""

    steps: int = 500
    """Steps until the full learning rate."""

    def __post_init__(self) -> None:
        """Refuse an empty warm-up."""
        _check(self.steps >= 1, f"warmup.steps is {self.steps}; it is at least 1 (or choose warmup:no-warmup).")


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorWarmup:
    """Train at a small learning rate until the training error falls (ResNet-110, Sec. 4.2)."""

    lr: float = 0.01
    """Learning rate during warm-up."""
    until_error: float = 80.0
    """Training error, in percent, below which the full learning rate begins."""
    window_steps: int = 100
    """Steps over which the training error is averaged; the paper leaves this open."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        _check(0 < self.lr < math.inf, f"warmup.lr is {self.lr}; it is above 0 and finite.")
        _check(0 < self.until_error <= 100, f"warmup.until_error is {self.until_error}; it lies between 0 and 100.")
        _check(self.window_steps >= 1, f"warmup.window_steps is {self.window_steps}; it is at least 1.")


WarmupSpec = NoWarmup | LinearWarmup | ErrorWarmup
