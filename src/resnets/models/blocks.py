"""Residual blocks and their shortcuts (He et al. 2015, Sec. 3.2, 3.3 and 4.1; Fig. 2 and 5).

Letters of shapes: n images, c channels, h height, w width.
"""

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from resnets.specs.model import Shortcut, ZeroPad


class ZeroPadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the channels that the input lacks; no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, zero_pad: ZeroPad) -> None:
        super().__init__()
        extra = out_channels - in_channels
        before = extra // 2 if zero_pad == "both" else 0
        self.stride = stride
        self.channels = (before, extra - before)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Return the subsampled input between its zero channels."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.channels))


def make_shortcut(
    option: Shortcut, in_channels: int, out_channels: int, stride: int, zero_pad: ZeroPad
) -> nn.Module | None:
    """Return what the shortcut does to its input; None is the identity (Sec. 3.3, options A, B and C).

    A projection is a 1x1 convolution and BatchNorm, without ReLU, under torchvision's names.
    """
    changes = stride != 1 or in_channels != out_channels
    if option == "C" or (option == "B" and changes):
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    if option == "A" and changes:
        return ZeroPadShortcut(in_channels, out_channels, stride, zero_pad)
    return None


class Block(Protocol):
    """The constructor that every block has; a block of your own needs the same."""

    def __call__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        *,
        shortcut: Shortcut,
        zero_pad: ZeroPad,
        stride_on: str,
    ) -> nn.Module:
        """Return a module from (n, in_channels, h, w) to (n, width * expansion, h / stride, w / stride)."""
        ...


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by BatchNorm; ReLU between them and after the addition (Fig. 5 left).

    With shortcut "none" the addition is left out and nothing else changes: the plain net's layers.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int, *, shortcut: Shortcut, zero_pad: ZeroPad, stride_on: str
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.residual = shortcut != "none"
        self.downsample = make_shortcut(shortcut, in_channels, width, stride, zero_pad)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Return ReLU(F(x) + shortcut(x)), equations (1) and (2), or ReLU(F(x)) in a plain net."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions: reduce, work on few channels, restore to 4 times the width (Fig. 5 right).

    The stride is on the first 1x1 (the authors' nets) or on the 3x3 ("v1.5", torchvision's).
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, *, shortcut: Shortcut, zero_pad: ZeroPad, stride_on: str
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.residual = shortcut != "none"
        self.downsample = make_shortcut(shortcut, in_channels, out_channels, stride, zero_pad)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Return ReLU(F(x) + shortcut(x)), equations (1) and (2), or ReLU(F(x)) in a plain net."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)


class HighwayBlock(nn.Module):
    """The basic block with a learned gate T between its output and its input (Sec. 2).

    y = ReLU(T * H(x) + (1 - T) * x), T = sigmoid(conv3x3(x) + b): one value a channel and pixel. Where
    dimensions change, x goes through option A.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, *, zero_pad: ZeroPad, gate_bias: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.gate = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=True)
        self.gate_bias = gate_bias
        self.carry = make_shortcut("A", in_channels, width, stride, zero_pad)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Return ReLU(T * H(x) + (1 - T) * x)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        carried = x if self.carry is None else self.carry(x)
        return self.relu(torch.lerp(carried, y, torch.sigmoid(self.gate(x)).to(y.dtype)))
