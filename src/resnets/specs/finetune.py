"""What a run starts from, and how it treats weights that are trained already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnets.specs.errors import SpecError


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomWeights:
    """Start from random weights: all nets of the paper are trained from scratch (Sec. 3.4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenWeights:
    """Start from the weights of a trained net; only the last layer is new where the classes differ."""

    source: str = ""
    """Run directory, model folder, torchvision:NAME, timm:NAME or hf-hub:OWNER/NAME (flag: --init-from)."""
    model: Literal["adopt", "check"] = "adopt"
    """The run's net and normalisation become those of the weights, or have to be them already."""


InitSpec = RandomWeights | GivenWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune:
    """How weights that are trained already are treated; every field is off in the paper's recipes."""

    head_steps: int = 0
    """First steps in which only the last layer learns, while all others and their BatchNorm stand still."""
    freeze_batch_norm: Literal["no", "yes", "auto"] = "no"
    """Keep BatchNorm's statistics as given; auto does where there are fewer than 1,000 training images."""
    balance: Literal["none", "sampling", "loss"] = "none"
    """Rare classes are drawn as often as frequent ones, or weigh as much in the loss."""
    patience_evaluations: int = 0
    """Stop after so many evaluations without a lower validation loss, and keep the best weights; 0 never stops."""

    def __post_init__(self) -> None:
        """Refuse negative counts."""
        for name in ("head_steps", "patience_evaluations"):
            if getattr(self, name) < 0:
                raise SpecError(f"finetune.{name} is {getattr(self, name)}; it is 0 or more.")
