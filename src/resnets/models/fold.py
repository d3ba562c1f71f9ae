"""BatchNorm folded into the convolutions before it: the same function for testing, with fewer passes over memory."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnets.models.blocks import BasicBlock, Bottleneck
from resnets.models.highway import HighwayBlock, HighwayNet
from resnets.models.resnet import ResNet

_KNOWN = (ResNet, HighwayNet, BasicBlock, Bottleneck, HighwayBlock)
"""Exactly these: a subclass may apply the same layers in another order."""
_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
_SHORTCUT_PAIR = ("0", "1")


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy of a residual, plain or highway net whose convolutions have absorbed their BatchNorm, for testing.

    Its logits are the model's but for rounding. Of blocks of your own, where it is not known which convolution a
    BatchNorm belongs to, nothing is folded; any other net is returned itself.
    """
    if not isinstance(model, ResNet):
        return model
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        if type(module) in _KNOWN:
            for convolution, norm in _PAIRS:
                _fold(module, convolution, norm)
            shortcut = getattr(module, "downsample", None)
            if isinstance(shortcut, nn.Sequential):
                _fold(shortcut, *_SHORTCUT_PAIR)
    return folded


def _fold(parent: nn.Module, convolution: str, norm: str) -> None:
    first, second = getattr(parent, convolution, None), getattr(parent, norm, None)
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
        setattr(parent, convolution, fuse_conv_bn_eval(first, second))
        setattr(parent, norm, nn.Identity())
