"""That a run has diverged: the line of its log that says so, and what a person is told of it, then and later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.specs.run import TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """The loss or a weight of a run has become no finite number."""

    step: int
    """Optimiser steps done when it was noticed."""
    checkpoint_step: int = 0
    """That of the checkpoint before it; 0 where none was written."""
    lr: float | None = None
    """Learning rate of the step."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """What decides how the numbers of a start are rounded: device, threads, versions; and the digest of its images."""

    def values(self) -> dict[str, Any]:
        """Return what the line of the log holds beside the step."""
        return {
            "diverged": {"checkpoint_step": self.checkpoint_step, "lr": self.lr, "conditions": self.conditions},
        }

    def noticed(self) -> str:
        """Return what happened, and what is left."""
        kept = (
            f"the checkpoint of step {self.checkpoint_step} is intact"
            if self.checkpoint_step
            else "no checkpoint was written yet"
        )
        rate = "" if self.lr is None else f" (the learning rate was {self.lr:g})"
        return f"The loss or a weight is not a finite number at step {self.step}{rate}; {kept}."

    def message(self, spec: TrainSpec) -> str:
        """Return what happened, what is left, and what usually helps."""
        frozen = spec.finetune.freeze_batch_norm == "yes"
        also = ", or --finetune.freeze-batch-norm no, where the given weights have poor statistics" if frozen else ""
        return f"{self.noticed()} A lower --optimizer.base-lr or a warm-up usually helps{also}; give it a new --run."

    def repeated(self, path: Path, spec: TrainSpec) -> str:
        """Return what is said to a start, under the same conditions, of the run that lies in the folder `path`."""
        otherwise = (
            "Under other conditions (device, --threads, processes, memory layout, --compile, --deterministic, versions, "
            "images)"
        )
        way = (
            f"{otherwise}, the same command goes on from step {self.checkpoint_step}; without the folder it begins anew."
            if self.checkpoint_step
            else f"{otherwise}, or without the folder, the same command begins anew."
        )
        return (
            f"{path} diverged at step {self.step}, and this start would repeat it: nothing was trained. "
            f"{self.message(spec)} {way}"
        )


def kept_in(path: Path) -> str:
    """Return the sentence about a run that is not tried again by itself: where it is, and how it would be."""
    return f"It is kept in {path}; remove that folder to train it anew."
