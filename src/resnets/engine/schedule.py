"""The learning rate of every step (He et al. 2015, Sec. 3.4 and 4.2).

Fixed steps, cosine and linear warm-up are pure functions of the step. The plateau rule and the warm-up
that waits for the training error depend on what happened: their memory is `ScheduleState`, which a
checkpoint holds.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from resnets.specs.optim import Cosine, ErrorWarmup, LinearWarmup, NoWarmup, Plateau, StepDecay

if TYPE_CHECKING:
    from resnets.specs.run import TrainSpec


@dataclass(slots=True)
class ScheduleState:
    """What the plateau rule and the error-triggered warm-up remember."""

    recent_errors: list[float] = field(default_factory=list)
    """Training error, in percent, of the latest warm-up steps, oldest first."""
    warmup_ended_step: int = -1
    """Step at which the error-triggered warm-up ended; -1 while it lasts."""
    best_error: float = math.inf
    """Lowest evaluation error so far, in percent, as the plateau rule counts it."""
    stale_evaluations: int = 0
    """Evaluations since then."""
    drops: int = 0
    """How many times the plateau rule has cut the learning rate."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, values: dict[str, Any]) -> ScheduleState:
        """Return the state that `state_dict` described."""
        return cls(**{item.name: values[item.name] for item in fields(cls)})


def learning_rate(spec: TrainSpec, step: int, state: ScheduleState) -> float:
    """Return the learning rate of the update that follows `step` finished ones.

    Args:
        spec: the run.
        step: optimiser steps done, from 0.
        state: memory of the rules that have one; unused by the others.
    """
    match spec.warmup:
        case ErrorWarmup(lr=lr) if state.warmup_ended_step < 0:
            return lr
        case LinearWarmup(steps=steps) if step < steps:
            return _scheduled(spec, step, state) * (step + 1) / steps
        case NoWarmup() | LinearWarmup() | ErrorWarmup():
            return _scheduled(spec, step, state)


def _scheduled(spec: TrainSpec, step: int, state: ScheduleState) -> float:
    base = spec.optimizer.base_lr
    match spec.schedule:
        case StepDecay(milestones_steps=milestones, factor=factor):
            return base * factor ** sum(step >= milestone for milestone in milestones)
        case Plateau(factor=factor):
            return base * factor**state.drops
        case Cosine(final_share=final):
            return base * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * step / spec.steps)))


def needs_step_errors(spec: TrainSpec, state: ScheduleState) -> bool:
    """Return whether `observe_step` still waits for the error of each step."""
    return isinstance(spec.warmup, ErrorWarmup) and state.warmup_ended_step < 0


def observe_step(spec: TrainSpec, state: ScheduleState, step: int, error: float) -> bool:
    """Tell the warm-up the training error (percent) of the batch of update `step`; return whether it ended now.

    The paper ends it when "the training error is below 80 %" and leaves the window open: here the mean of
    the last `window_steps` batches, not before there are that many.
    """
    if not isinstance(spec.warmup, ErrorWarmup) or state.warmup_ended_step >= 0:
        return False
    window = spec.warmup.window_steps
    state.recent_errors = [*state.recent_errors, error][-window:]
    if len(state.recent_errors) < window or sum(state.recent_errors) / window >= spec.warmup.until_error:
        return False
    state.warmup_ended_step = step
    state.recent_errors = []
    return True


def observe_evaluation(spec: TrainSpec, state: ScheduleState, error: float) -> bool:
    """Tell the plateau rule an evaluation's top-1 error (percent); return whether it cut the learning rate."""
    schedule = spec.schedule
    if not isinstance(schedule, Plateau):
        return False
    if error <= state.best_error - schedule.min_improvement:
        state.best_error = error
        state.stale_evaluations = 0
        return False
    state.stale_evaluations += 1
    if state.stale_evaluations < schedule.patience:
        return False
    state.drops += 1
    state.stale_evaluations = 0
    return True
