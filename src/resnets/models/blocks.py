"""Residual blocks and their shortcuts (He et al. 2015, Sec. 3.2, 3.3 and Fig. 5).

Every block is a chain of convolution -> BatchNorm -> ReLU, with the shortcut added before the last ReLU; where the
shortcut is "none", the addition is missing and nothing else differs. ReLU and the addition work in place on
BatchNorm's output, which the backward pass does not need. A forward hook on a BatchNorm therefore sees the layer's
response (Fig. 7), but has to copy it to keep it.

Attributes are named as in torchvision, because their names are the keys of the state dict.
Shapes: n images, c channels, h x w pixels.
"""

from typing import Protocol, runtime_checkable

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from resnets.specs.errors import SpecError
from resnets.specs.model import ResNetSpec, ZeroPad


@runtime_checkable
class BlockFactory(Protocol):
    """What a net calls to make each of its blocks: a block class of this module, or one of your own."""

    def __call__(self, in_channels: int, width: int, stride: int, spec: ResNetSpec) -> nn.Module:
        """Return a block from (n, in_channels, h, w) to (n, width * spec.expansion, h / stride, w / stride)."""
        ...


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: the block of the 18- and 34-layer nets and of all CIFAR nets (Fig. 5, left)."""

    def __init__(self, in_channels: int, width: int, stride: int, spec: ResNetSpec) -> None:
        """Make a block with `width` output channels whose first convolution has the stride."""
        super().__init__()
        self.conv1 = convolution(in_channels, width, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, kernel=3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(in_channels, width, stride, spec)

    def forward(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        """Return relu(F(x) + shortcut(x)), or relu(F(x)) in a plain net."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            out += self.downsample(x)
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, the last four times as wide: the 50-, 101- and 152-layer nets (Fig. 5, right)."""

    def __init__(self, in_channels: int, width: int, stride: int, spec: ResNetSpec) -> None:
        """Make a block with 4 * `width` output channels; `spec.stride_on` says which convolution has the stride."""
        super().__init__()
        out_channels = width * spec.expansion
        first, second = (stride, 1) if spec.stride_on == "1x1" else (1, stride)
        self.conv1 = convolution(in_channels, width, kernel=1, stride=first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, kernel=3, stride=second)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, out_channels, kernel=1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride, spec)

    def forward(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        """Return relu(F(x) + shortcut(x)), or relu(F(x)) in a plain net."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            out += self.downsample(x)
        return F.relu(out, inplace=True)


class ZeroPadShortcut(nn.Module):
    """Option A: every stride-th pixel, and zeros for the channels that the input does not have."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, zero_pad: ZeroPad) -> None:
        """Put the zero channels after the input's ("end"), or half on each side ("both")."""
        super().__init__()
        missing = out_channels - in_channels
        if missing < 0:
            raise SpecError(
                f"model.shortcut A cannot go from {in_channels} to {out_channels} channels: "
                'it only adds channels. Use widths that never shrink, or shortcut "B".'
            )
        before = missing // 2 if zero_pad == "both" else 0
        self.stride = stride
        self.padding = (0, 0, 0, 0, before, missing - before)

    def forward(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        """Return x[:, :, ::stride, ::stride] with zero channels around it, in the memory format of x."""
        # Padding keeps channels-last, which concatenation with zeros loses, and is the fastest forward pass on CPU.
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


def shortcut(in_channels: int, out_channels: int, stride: int, spec: ResNetSpec) -> nn.Module | None:
    """Return what a block adds to its output: identity, option A, a projection (B, C), or None in a plain net.

    Sec. 3.3 and 4.1; a projection is followed by BatchNorm and no ReLU, as in the authors' released models.
    """
    same = stride == 1 and in_channels == out_channels
    match spec.shortcut:
        case "none":
            return None
        case "A" | "B" if same:
            return nn.Identity()
        case "A":
            return ZeroPadShortcut(in_channels, out_channels, stride, spec.zero_pad)
        case "B" | "C":
            return nn.Sequential(
                convolution(in_channels, out_channels, kernel=1, stride=stride), nn.BatchNorm2d(out_channels)
            )


def convolution(in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps the size at stride 1, without bias: the BatchNorm after it has one."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
