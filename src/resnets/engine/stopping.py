"""When a run that fine-tunes has learnt what it can: the validation loss has not fallen for a number of evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from resnets.specs.finetune import Finetune


@dataclass(slots=True)
class Best:
    """The evaluation with the lowest loss, its weights, and how long ago it was."""

    loss: float = math.inf
    """Mean cross-entropy."""
    step: int = -1
    """Step of that evaluation; -1 before the first."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """State dict at that step, on the CPU."""
    stale_evaluations: int = 0
    """Evaluations since then."""
    stopped: bool = False
    """Whether the run has ended for it."""

    def observe(self, finetune: Finetune, step: int, loss: float, model: nn.Module) -> None:
        """Take note of an evaluation of `model` at `step`.

        Evaluations while only the last layer learns can become the best, but are no sign that nothing more is to
        be learnt.
        """
        if not finetune.patience_evaluations:
            return
        if loss < self.loss:
            # New dicts and tensors: a checkpoint that is being written must not change under the writer.
            weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            self.loss, self.step, self.weights, self.stale_evaluations = loss, step, weights, 0
        elif step > finetune.head_steps:
            self.stale_evaluations += 1
            # Without a finite loss there are no best weights to end with.
            self.stopped = self.step >= 0 and self.stale_evaluations >= finetune.patience_evaluations

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values for a checkpoint."""
        return {name: getattr(self, name) for name in ("loss", "step", "weights", "stale_evaluations", "stopped")}

    @classmethod
    def from_state_dict(cls, values: dict[str, Any]) -> Best:
        """Return what `state_dict` described."""
        return cls(**values)
