"""What a net costs, one of the user's own too: parameters and multiply-adds of the built model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from resnets.models.build import build
from resnets.specs.catalogue import model_name

if TYPE_CHECKING:
    from resnets.specs.model import ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCost:
    """Parameters, and multiply-adds of one image."""

    model: str
    """Full name of the variant."""
    parameters: int
    """Trained values."""
    multiply_adds: int
    """Of the convolutions and matrix products of one image, as Table 1 counts them."""
    input_shape: tuple[int, int, int]
    """Channels, height and width of the image."""


def model_cost(spec: ModelSpec, side_px: int) -> ModelCost:
    """Return what the net of `spec` costs on images of `side_px` x `side_px` pixels, without computing it."""
    shape = (spec.in_channels, side_px, side_px)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build(spec).eval()
        model(torch.empty(1, *shape))
    return ModelCost(
        model=model_name(spec),
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        multiply_adds=counter.get_total_flops() // 2,
        input_shape=shape,
    )
