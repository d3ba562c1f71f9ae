"""The paper's nets as others have them: torchvision's, timm's, and the small CIFAR net of most public repositories.

The same function as our net of the same spec, weights go across by name, so that only the code differs in a comparison.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnets.specs.catalogue import IMAGENET_STAGES, VGG_STAGES
from resnets.specs.model import ResNetSpec, VGGSpec

_WIDTHS = (64, 128, 256, 512)


def torchvision_net(spec: Any) -> nn.Module | None:
    """Return torchvision's net of a spec, in the spec's variant, with new weights; None where it has none.

    torchvision puts the stride of a bottleneck on the 3x3 convolution and pads its stem pooling (v1.5). Where the spec
    says otherwise both are moved, so that the net does the work of the spec and no more.
    """
    from torchvision.models import resnet as resnets
    from torchvision.models import vgg16, vgg19

    if isinstance(spec, VGGSpec):
        makers: dict[tuple[int, ...], Any] = {VGG_STAGES[16]: vgg16, VGG_STAGES[19]: vgg19}
        if spec.convs not in makers or spec.widths[-1] != 512 or spec.in_channels != 3:
            return None
        return makers[spec.convs](num_classes=spec.num_classes, dropout=spec.dropout)
    if not _is_known(spec):
        return None
    block = resnets.BasicBlock if spec.block == "basic" else resnets.Bottleneck
    model = resnets.ResNet(block, list(spec.blocks), num_classes=spec.num_classes)
    return in_variant(model, spec)


def timm_net(spec: Any) -> nn.Module | None:
    """Return timm's net of a spec, in the spec's variant, with new weights; None where it has none.

    Raises:
        ImportError: timm is not installed.
    """
    if not _is_known(spec):
        return None
    import timm  # pyright: ignore[reportMissingImports]

    depth = next(depth for depth, stages in IMAGENET_STAGES.items() if stages == (spec.block, spec.blocks))
    return in_variant(timm.create_model(f"resnet{depth}", num_classes=spec.num_classes), spec)


def in_variant(model: Any, spec: ResNetSpec) -> nn.Module:
    """Return torchvision's or timm's residual net with the stride, the pooling and the input channels of `spec`."""
    if spec.stride_on == "1x1" and spec.block == "bottleneck":
        for block in model.modules():
            if hasattr(block, "conv3") and block.conv2.stride == (2, 2):
                block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    if spec.stem_pool == "official":
        model.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
    if spec.in_channels != 3:
        model.conv1 = nn.Conv2d(spec.in_channels, spec.widths[0], 7, 2, 3, bias=False)
    return model


def plain_cifar_net(spec: Any) -> nn.Module | None:
    """Return the net of Sec. 4.2 as most public repositories write it, with new weights; None for any other net."""
    is_small = isinstance(spec, ResNetSpec) and spec.stem == "3x3" and spec.block == "basic"
    return PlainCifarNet(spec) if is_small and spec.shortcut in ("A", "none") else None


class PlainCifarNet(nn.Module):
    """A residual net with zero-padded shortcuts, or none, of torch's own modules."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        width = spec.widths[0]
        self.conv1 = nn.Conv2d(spec.in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for index, (count, width) in enumerate(zip(spec.blocks, spec.widths, strict=True)):
            blocks = []
            for number in range(count):
                blocks.append(_Block(channels, width, 2 if index and not number else 1, spec))
                channels = width
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, spec.num_classes)
        self._stages = len(spec.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images (n, channels, height, width)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        for number in range(1, self._stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(functional.avg_pool2d(x, x.shape[3]).flatten(1))


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, spec: ResNetSpec) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.residual = stride, spec.shortcut == "A"
        before = (width - channels) // 2 if spec.zero_pad == "both" else 0
        self.padding = (0, 0, 0, 0, before, width - channels - before)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if not self.residual:
            return functional.relu(y)
        if self.stride > 1 or self.padding[-1]:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], self.padding)
        return functional.relu(y + x)


def with_weights(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Return the model with the weights, which have its names.

    Raises:
        RuntimeError: a weight is missing, superfluous or of another shape.
    """
    own = model.state_dict()
    kept = {name: value for name, value in weights.items() if name in own or not name.endswith("num_batches_tracked")}
    model.load_state_dict(kept)
    return model


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two arrays of logits, as a share of the largest of `b`."""
    return float(torch.abs(a - b).max() / torch.abs(b).max())


def _is_known(spec: Any) -> bool:
    return (
        isinstance(spec, ResNetSpec)
        and spec.stem == "7x7"
        and spec.stem_pool != "none"
        and spec.shortcut == "B"
        and spec.widths == _WIDTHS
        and (spec.block, spec.blocks) in IMAGENET_STAGES.values()
    )
