"""Initial weights: He et al.'s Gaussian for convolutions, from scratch (PAPER 4.3)."""

import torch
from torch import nn

from resnets.models.blocks import HighwayBlock

FC_STD = 0.01


@torch.no_grad()
def initialize(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw new weights in place.

    Convolutions: N(0, 2 / fan_out), as in the authors' recommended re-implementation; BatchNorm: gamma 1, beta 0,
    also at the end of a residual branch; fully-connected layers: N(0, 0.01^2); biases 0, those of highway
    gates at their negative start.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, FC_STD, generator=generator)
            module.bias.zero_()
    for module in model.modules():
        if isinstance(module, HighwayBlock) and module.gate.bias is not None:
            module.gate.bias.fill_(module.gate_bias)
