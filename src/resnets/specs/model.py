"""What a network is, as data: residual and plain nets, highway nets, VGG (He et al. 2015, Sec. 3 and 4).

A spec says everything that decides the function a net computes, and nothing else. `models/build.py` turns
one into a module, `specs/counts.py` counts it without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnets.specs.errors import SpecError
from resnets.specs.io import shown

Shortcut = Literal["A", "B", "C", "none"]
ZeroPad = Literal["end", "both"]
StemPool = Literal["official", "torchvision", "none"]

# Far beyond the paper's nets, whose largest has 600 blocks. A damaged file must not ask for years of building, nor for
# tensors whose size overflows.
MOST_STAGES = 16
MOST_BLOCKS = 10_000
"""Of a net, over all stages; of VGG, convolutions."""
MOST_FILTERS = 65_536
MOST_CLASSES = 1_000_000
MOST_CHANNELS = 1_024
_LARGEST_BIAS = 1_000.0


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetSpec:
    """A residual net, or its plain counterpart when `shortcut` is "none" (Table 1; Sec. 3.3 and 4.2)."""

    block: Literal["basic", "bottleneck"]
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the width at the end (Fig. 5)."""
    blocks: tuple[int, ...]
    """Number of blocks in each stage."""
    widths: tuple[int, ...]
    """Filters of the 3x3 convolutions in each stage."""
    stem: Literal["7x7", "3x3"]
    """First convolution: 7x7 with stride 2 and a max pool (ImageNet), or 3x3 with stride 1 (CIFAR)."""
    stem_pool: StemPool = "none"
    """Max pool 3x3, stride 2: "official" (ceil mode, no padding), "torchvision" (padding 1), or none."""
    shortcut: Shortcut
    """A: zero-padded identity; B: projection where dimensions change; C: projections; none: a plain net."""
    zero_pad: ZeroPad = "end"
    """Where option A puts the zero channels: all at the end, or half on each side."""
    stride_on: Literal["1x1", "3x3"] = "1x1"
    """Which convolution of a bottleneck has the stride: the first 1x1 (the paper, v1) or the 3x3 (v1.5)."""
    num_classes: int = 1000
    """Number of outputs of the last fully-connected layer."""
    in_channels: int = 3
    """Channels of the input images."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _check_stages(self.blocks, self.widths, zero_padded=self.shortcut == "A")
        _check_ends(self.num_classes, self.in_channels)
        _check(
            self.stem == "7x7" or self.stem_pool == "none",
            'model.stem_pool belongs to the 7x7 stem; with the 3x3 stem it is "none".',
        )

    @property
    def expansion(self) -> int:
        """Output channels of a block as a multiple of its width: 1 (basic) or 4 (bottleneck)."""
        return 1 if self.block == "basic" else 4

    @property
    def stem_width(self) -> int:
        """Filters of the first convolution: those of the first stage (64 on ImageNet, 16 on CIFAR)."""
        return self.widths[0]

    @property
    def depth(self) -> int:
        """Weighted layers: convolutions outside shortcuts, and the fully-connected layer."""
        return 2 + sum(self.blocks) * (2 if self.block == "basic" else 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class HighwaySpec:
    """The CIFAR skeleton with a learned, data-dependent gate on every block (Sec. 2 of the paper).

    y = ReLU(T * H(x) + (1 - T) * x), with T = sigmoid(conv3x3(x) + b): one gate value a channel and pixel.
    Where dimensions change, x goes through option A.
    """

    blocks: tuple[int, ...]
    """Number of blocks in each stage."""
    widths: tuple[int, ...]
    """Filters of the convolutions in each stage."""
    gate_bias: float = -2.0
    """Initial bias of the gates; negative, so that a new net mostly carries its input."""
    zero_pad: ZeroPad = "end"
    """Where option A puts the zero channels: all at the end, or half on each side."""
    num_classes: int = 10
    """Number of outputs of the last fully-connected layer."""
    in_channels: int = 3
    """Channels of the input images."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _check_stages(self.blocks, self.widths, zero_padded=True)
        _check_ends(self.num_classes, self.in_channels)
        _check(
            -_LARGEST_BIAS <= self.gate_bias <= _LARGEST_BIAS,
            f"model.gate_bias is {self.gate_bias}; it is between {-_LARGEST_BIAS:g} and {_LARGEST_BIAS:g}.",
        )

    @property
    def depth(self) -> int:
        """Weighted layers on the transform path: gates are not counted."""
        return 2 + 2 * sum(self.blocks)


@dataclass(frozen=True, kw_only=True, slots=True)
class VGGSpec:
    """VGG-16 or VGG-19, the nets the paper compares with: 3x3 convolutions with bias, no BatchNorm."""

    convs: tuple[int, ...]
    """Number of 3x3 convolutions in each stage; a 2x2 max pool ends each."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Filters in each stage."""
    hidden: int = 4096
    """Width of the two hidden fully-connected layers."""
    dropout: float = 0.5
    """Share of hidden units dropped while training."""
    num_classes: int = 1000
    """Number of outputs of the last fully-connected layer."""
    in_channels: int = 3
    """Channels of the input images."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        _check_counts("convs", self.convs, "convolution", self.widths)
        _check(
            1 <= self.hidden <= MOST_FILTERS,
            f"model.hidden is {shown(self.hidden)}; it is at least 1 and at most {MOST_FILTERS:,}.",
        )
        _check(0 <= self.dropout < 1, f"model.dropout is {self.dropout}; it is at least 0 and below 1.")
        _check_ends(self.num_classes, self.in_channels)

    @property
    def depth(self) -> int:
        """Weighted layers: convolutions and the three fully-connected layers."""
        return sum(self.convs) + 3


def _check_stages(blocks: tuple[int, ...], widths: tuple[int, ...], *, zero_padded: bool) -> None:
    _check_counts("blocks", blocks, "block", widths)
    _check(
        not zero_padded or list(widths) == sorted(widths),
        f"model.widths is {widths}; option A adds zero channels, so widths cannot shrink from stage to stage.",
    )


def _check_counts(name: str, counts: tuple[int, ...], noun: str, widths: tuple[int, ...]) -> None:
    """Refuse numbers of blocks or convolutions a stage, and widths, that no net has."""
    _check(len(counts) > 0, f"model.{name} is empty; a net has at least one stage.")
    _check(
        len(counts) == len(widths),
        f"model.{name} has {len(counts)} stages and model.widths has {len(widths)}; give one width a stage.",
    )
    _check(len(counts) <= MOST_STAGES, f"model.{name} has {len(counts)} stages; a net has at most {MOST_STAGES}.")
    _check(min(counts) >= 1, f"model.{name} is {shown(counts)}; every stage has at least one {noun}.")
    _check(sum(counts) <= MOST_BLOCKS, f"model.{name} is {shown(counts)}; a net has at most {MOST_BLOCKS:,} {noun}s.")
    _check(
        1 <= min(widths) <= max(widths) <= MOST_FILTERS,
        f"model.widths is {shown(widths)}; every width is at least 1 and at most {MOST_FILTERS:,}.",
    )


def _check_ends(num_classes: int, in_channels: int) -> None:
    for name, value, most in (("num_classes", num_classes, MOST_CLASSES), ("in_channels", in_channels, MOST_CHANNELS)):
        _check(1 <= value <= most, f"model.{name} is {shown(value)}; it is at least 1 and at most {most:,}.")


ModelSpec = ResNetSpec | HighwaySpec | VGGSpec
