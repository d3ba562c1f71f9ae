"""BatchNorm folded into the convolutions before it: the same function for testing, with fewer passes over memory."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnets.models.blocks import BasicBlock, Bottleneck
from resnets.models.highway import HighwayBlock
from resnets.models.resnet import ResNet

_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
_SHORTCUT_PAIR = ("0", "1")


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy of one of the paper's nets, in evaluation mode, whose convolutions have absorbed their BatchNorm.

    Its logits are the model's but for rounding. Blocks and nets of your own are copied as they are: where their
    BatchNorm belongs is not known.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        if isinstance(module, ResNet | BasicBlock | Bottleneck | HighwayBlock):
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
