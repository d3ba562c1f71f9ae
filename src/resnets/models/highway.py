"""Highway nets on the paper's CIFAR skeleton: the residual net with a learned gate on every block.

Sec. 2 of the paper sets its shortcuts, parameter-free and never closed, against the gated ones of highway nets
(Srivastava et al. 2015). Here the gate is the only difference: skeleton, option A and the last ReLU are those of
the residual net.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from resnets.models.blocks import ZeroPadShortcut, convolution
from resnets.models.resnet import ResNet
from resnets.specs.model import HighwaySpec, ResNetSpec


class HighwayNet(ResNet):
    """A CIFAR highway net; its weights are drawn from the global random state, its gate biases are the spec's."""

    def __init__(self, spec: HighwaySpec) -> None:
        """Build the residual net of the same blocks and widths from highway blocks."""
        skeleton = ResNetSpec(
            block="basic",
            blocks=spec.blocks,
            widths=spec.widths,
            stem="3x3",
            shortcut="A",
            zero_pad=spec.zero_pad,
            num_classes=spec.num_classes,
            in_channels=spec.in_channels,
        )
        super().__init__(skeleton, HighwayBlock)
        self.spec = spec
        for module in self.modules():
            if isinstance(module, HighwayBlock):
                nn.init.constant_(module.gate.get_parameter("bias"), spec.gate_bias)


class HighwayBlock(nn.Module):
    """relu(T * H(x) + (1 - T) * x): two 3x3 convolutions H, and a gate T for every channel and pixel."""

    def __init__(self, in_channels: int, width: int, stride: int, spec: ResNetSpec) -> None:
        """Make a block with `width` output channels; `spec` says where option A puts its zeros."""
        super().__init__()
        self.gate = nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1)
        self.conv1 = convolution(in_channels, width, kernel=3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, kernel=3)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and in_channels == width
        self.carry = nn.Identity() if same else ZeroPadShortcut(in_channels, width, stride, spec.zero_pad)

    def forward(self, x: Float[Tensor, "n c_in h_in w_in"]) -> Float[Tensor, "n c h w"]:
        """Return relu(T * (H(x) - x) + x): the same function, with one product less kept for the backward pass."""
        gate = torch.sigmoid(self.gate(x))
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        carried = self.carry(x)
        return F.relu(gate * (out - carried) + carried, inplace=True)
