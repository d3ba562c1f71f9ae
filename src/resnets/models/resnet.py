"""Stem, stages and head of the paper's nets (He et al. 2015, Table 1 and Sec. 4.2).

State-dict names are torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, …, `fc`); `features` uses the paper's
(conv2_x … conv5_x).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from resnets.models.blocks import BasicBlock, Block, Bottleneck, HighwayBlock
from resnets.specs.model import HighwaySpec, ResNetSpec, StemPool


class FeatureShape(NamedTuple):
    """Channels of a stage's output, and the pixels of the input that one of its pixels stands for."""

    channels: int
    stride: int


def make_stem_pool(kind: StemPool) -> nn.Module:
    """Return the pool after conv1; 112 x 112 becomes 56 x 56 either way, over windows a pixel apart."""
    match kind:
        case "official":
            return nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
        case "torchvision":
            return nn.MaxPool2d(3, 2, padding=1)
        case "none":
            return nn.Identity()


class ResNet(nn.Module):
    """A residual, plain or highway net: stem, stages of blocks, global average pool, fully-connected layer.

    Args:
        spec: the net.
        make_block: (in_channels, width, stride) to a block; None takes the spec's. A block of your own goes here.
        expansion: output channels of a block as a multiple of its width.
    """

    def __init__(
        self,
        spec: ResNetSpec | HighwaySpec,
        make_block: Callable[[int, int, int], nn.Module] | None = None,
        expansion: int | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        make_block = make_block or _block_of(spec)
        expansion = expansion or (spec.expansion if isinstance(spec, ResNetSpec) else 1)
        large = isinstance(spec, ResNetSpec) and spec.stem == "7x7"
        channels = spec.widths[0]
        if large:
            self.conv1 = nn.Conv2d(spec.in_channels, channels, 7, 2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(spec.in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = make_stem_pool(spec.stem_pool if isinstance(spec, ResNetSpec) else "none")
        stride = (2 if large else 1) * (1 if isinstance(self.maxpool, nn.Identity) else 2)
        self._shapes: dict[str, FeatureShape] = {}
        for number, (blocks, width) in enumerate(zip(spec.blocks, spec.widths, strict=True), start=1):
            first_stride = 1 if number == 1 else 2
            self.add_module(f"layer{number}", make_stage(make_block, channels, width, blocks, first_stride, expansion))
            channels, stride = width * expansion, stride * first_stride
            self._shapes[f"conv{number + 1}_x"] = FeatureShape(channels, stride)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, spec.num_classes)

    def feature_shapes(self) -> dict[str, FeatureShape]:
        """Return channels and stride of every map that `features` returns."""
        return dict(self._shapes)

    def features(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n c_stage h_stage w_stage"]]:
        """Return the output of each stage by the paper's names."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = {}
        for number, name in enumerate(self._shapes, start=1):
            x = self.get_submodule(f"layer{number}")(x)
            maps[name] = x
        return maps

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits."""
        *_, last = self.features(x).values()
        return self.fc(self.avgpool(last).flatten(1))


def make_stage(
    make_block: Callable[[int, int, int], nn.Module],
    in_channels: int,
    width: int,
    blocks: int,
    stride: int,
    expansion: int,
) -> nn.Sequential:
    """Return a stage of `blocks` blocks, of which the first has the stride (conv3_1, conv4_1, conv5_1 in Table 1)."""
    first = make_block(in_channels, width, stride)
    return nn.Sequential(first, *(make_block(width * expansion, width, 1) for _ in range(blocks - 1)))


def _block_of(spec: ResNetSpec | HighwaySpec) -> Callable[[int, int, int], nn.Module]:
    if isinstance(spec, HighwaySpec):
        return lambda channels, width, stride: HighwayBlock(
            channels, width, stride, zero_pad=spec.zero_pad, gate_bias=spec.gate_bias
        )
    block: Block = BasicBlock if spec.block == "basic" else Bottleneck
    return lambda channels, width, stride: block(
        channels, width, stride, shortcut=spec.shortcut, zero_pad=spec.zero_pad, stride_on=spec.stride_on
    )
