"""The solution by construction: a deeper net that computes what a trained one does (He et al. 2015, Sec. 1).

Blocks that are the identity go to the end of the stages of a trained net. The deeper net has the same outputs, so its
training error could always be as low; that solvers do not find such solutions for plain nets is the degradation.

- A residual block is the identity when the gamma and beta of its last BatchNorm are 0: its input has passed a ReLU, so
  the last ReLU changes nothing. Its other weights are new, and it can be trained on. The shortcuts of option C have a
  BatchNorm of their own, which passes its input on in evaluation mode only: there, training starts elsewhere.
- A plain block is the identity when its 3x3 kernels are Dirac's and its BatchNorms pass their input on, which they do
  in evaluation mode. A plain bottleneck cannot be: it squeezes its input through a quarter of the channels.
- A highway block is the identity when its gate is closed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import nn

from resnets.models.blocks import BasicBlock, Bottleneck
from resnets.models.build import build
from resnets.models.highway import HighwayBlock
from resnets.models.resnet import ResNet
from resnets.specs.errors import ModelError
from resnets.specs.model import HighwaySpec, ResNetSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLOSED = -200.0
"""A gate's bias whose sigmoid is 0 in float32."""


def insert_identity_blocks(model: nn.Module, extra: int | Sequence[int], *, seed: int = 0) -> ResNet:
    """Return a deeper net with the same outputs in evaluation mode; that of a residual net also in training mode.

    Except with shortcut option C: the projection of each new block has a BatchNorm, which in training mode normalises
    with the batch.

    Args:
        model: a residual, plain or highway net of the paper's blocks; it stays as it is. Its device, type and mode are
            those of the result.
        extra: blocks that each stage gets at its end; one number for all stages, or one for each.
        seed: of the new weights that do not matter for the outputs.

    Raises:
        ModelError: the net has other blocks, no block of it can be the identity, or `extra` does not fit its stages.
    """
    if not isinstance(model, ResNet) or not isinstance(model.spec, ResNetSpec | HighwaySpec):
        raise ModelError(f"Identity blocks go into residual, plain and highway nets; this is a {type(model).__name__}.")
    spec = model.spec
    counts = [extra] * len(spec.blocks) if isinstance(extra, int) else list(extra)
    if len(counts) != len(spec.blocks) or min(counts) < 0:
        raise ModelError(f"extra is {extra}; give 0 or more blocks, for all stages or for each of {len(spec.blocks)}.")
    blocks = [block for stage in model.stages() for block in stage.children()]
    other = [type(block).__name__ for block in blocks if type(block) not in (BasicBlock, Bottleneck, HighwayBlock)]
    if other:
        raise ModelError(
            f"{other[0]} is not a block of the paper: it is not known which of its weights make it an identity."
        )
    if isinstance(spec, ResNetSpec) and spec.shortcut == "none" and spec.block == "bottleneck" and any(counts):
        raise ModelError("A plain bottleneck cannot be the identity: it has a quarter of the channels in its middle.")
    deeper_spec = dataclasses.replace(spec, blocks=tuple(map(sum, zip(spec.blocks, counts, strict=True))))
    deeper = build(deeper_spec, seed=seed)
    assert isinstance(deeper, ResNet)
    parameter = next(model.parameters())
    deeper.to(parameter.device, parameter.dtype)
    # Blocks are numbered within their stage, so the old ones keep their names.
    deeper.load_state_dict(deeper.state_dict() | model.state_dict())
    for stage, old in zip(deeper.stages(), spec.blocks, strict=True):
        for block in list(stage.children())[old:]:
            _make_identity(block)
    return deeper.train(model.training)


@torch.no_grad()
def _make_identity(block: nn.Module) -> None:
    if isinstance(block, HighwayBlock):
        nn.init.zeros_(block.gate.weight)
        nn.init.constant_(block.gate.get_parameter("bias"), _CLOSED)
        return
    assert isinstance(block, BasicBlock | Bottleneck)
    if block.downsample is None:
        for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            _pass_on(convolution, norm)
        return
    if isinstance(block.downsample, nn.Sequential):  # option C projects in every block
        convolution, norm = block.downsample
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _pass_on(convolution, norm)
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def _pass_on(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Make a convolution and its BatchNorm return their input, in evaluation mode to the last bit."""
    nn.init.dirac_(convolution.weight)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
