"""An exponential moving average of the weights, tested and stored in their place (Polyak averaging)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move `average` towards `model` after update number `step` (from 1): a = d * a + (1 - d) * w.

    The decay d grows as (1 + step) / (10 + step) up to `decay`, so that the random weights of the start are soon
    forgotten. BatchNorm's statistics are averaged too; counters are copied.
    """
    decay = min(decay, (1 + step) / (10 + step))
    averaged, current = [], []
    counters, counts = [], []
    for kept, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        floating = kept.is_floating_point()
        (averaged if floating else counters).append(kept)
        (current if floating else counts).append(value)
    get_ema_multi_avg_fn(decay)(averaged, current, None)  # pyright: ignore[reportArgumentType]
    if counters:
        torch._foreach_copy_(counters, counts)  # pyright: ignore[reportPrivateImportUsage]
