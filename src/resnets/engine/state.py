"""Everything about a run that is not a function of its spec and step: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from resnets.engine.schedule import ScheduleState
from resnets.engine.stopping import Best

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = 2


@dataclass(slots=True)
class TrainState:
    """The model, the optimiser and the memory of the loop, at a step."""

    model: nn.Module
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler
    step: int = 0
    """Optimiser steps done."""
    schedule: ScheduleState = field(default_factory=ScheduleState)
    average: nn.Module | None = None
    """The averaged weights, in a module like `model`; None where the run keeps none."""
    best: Best = field(default_factory=Best)
    """The best evaluation so far, for runs that stop early."""
    evaluated_step: int = -1
    """Step of the latest evaluation, -1 before the first."""
    window: torch.Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    """Sum of losses, errors, and images since the last logged line, on the model's device (float64, or
    float32 on mps)."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Path and reason of every image that could not be read."""
    updating: bool = False
    """Whether an update has begun and not ended: the weights may be those of no step, and are not to be saved."""

    @property
    def tested_model(self) -> nn.Module:
        """The module that is evaluated and stored: the averaged weights where there are some."""
        return self.model if self.average is None else self.average

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, for `torch.save` and `weights_only=True`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best": self.best.state_dict(),
            "evaluated_step": self.evaluated_step,
            "window": self.window,
            "skipped": dict(self.skipped),
        }

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.model.load_state_dict(values["model"])
        self.optimizer.load_state_dict(values["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            momentum = kept.get("momentum_buffer")
            if momentum is not None:
                # The fused update walks memory in storage order: the buffer needs the layout that its weights have
                # now, which is another one where a run goes on with another --channels-last.
                kept["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        self.scaler.load_state_dict(values["scaler"])
        self.schedule = ScheduleState.from_state_dict(values["schedule"])
        if self.average is not None:
            self.average.load_state_dict(values["average"])
        self.best = Best.from_state_dict(values["best"])
        self.step = values["step"]
        self.evaluated_step = values["evaluated_step"]
        self.window.copy_(values["window"])
        self.skipped = dict(values["skipped"])


def tested_weights(values: dict[str, Any]) -> tuple[dict[str, torch.Tensor], int]:
    """Return the weights of a checkpoint that the run would store, and the step they are of.

    The best where it stops early, else the averaged ones, else the latest.
    """
    best = values["best"]
    if best["weights"]:
        return best["weights"], best["step"]
    return values["average"] or values["model"], values["step"]
