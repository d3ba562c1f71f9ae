"""A net in the words of Table 1: its stages row by row, and the variant in a sentence."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnets.specs import counts
from resnets.specs.model import HighwaySpec, VGGSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resnets.specs.counts import Layer
    from resnets.specs.model import ModelSpec, ResNetSpec

_SHORTCUTS = {
    "none": "plain: no shortcuts",
    "B": "option B: projections where dimensions change, identity elsewhere",
    "C": "option C: a projection in every block",
}
_ZEROS = {"end": "at the end", "both": "half on each side"}
_POOLS = {
    "official": "official stem pooling (no padding, ceil mode)",
    "torchvision": "torchvision's stem pooling (padding 1)",
    "none": "no stem pooling",
}
_STRIDES = {"1x1": "stride on the first 1x1 (the paper, v1)", "3x3": "stride on the 3x3 (v1.5)"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One row of Table 1."""

    name: str
    """The paper's name: conv1, pool1, conv2_x, ..., head."""
    output: tuple[int, int]
    """Height and width of the stage's output in pixels."""
    layers: str
    """The layers as Table 1 writes them, such as `[3x3, 64; 3x3, 64] x 2`."""
    blocks: int
    """Blocks of a residual stage, convolutions of a VGG stage, 0 elsewhere."""
    parameters: int
    """Trained parameters, BatchNorm and shortcuts included."""
    multiply_adds: int
    """Multiply-adds of one image."""


def stages(spec: ModelSpec, height: int, width: int) -> list[Stage]:
    """Return the rows of Table 1 for images of `height` x `width` pixels."""
    return [
        _stage(name, list(group))
        for name, group in itertools.groupby(counts.layers(spec, height, width), key=lambda layer: layer.stage)
    ]


def variant(spec: ModelSpec) -> list[str]:
    """Return what sets this variant of a net apart, one phrase a choice: shortcut, stride, stem pooling."""
    match spec:
        case VGGSpec():
            return ["3x3 convolutions with bias", "no BatchNorm", f"dropout {spec.dropout:g}"]
        case HighwaySpec():
            gate = f"relu(T H(x) + (1 - T) x), T a 3x3 gate for every channel and pixel, bias {spec.gate_bias:g}"
            return [gate, f"option A where dimensions change: zeros for new channels, {_ZEROS[spec.zero_pad]}"]
        case _:
            return _residual_variant(spec)


def _residual_variant(spec: ResNetSpec) -> list[str]:
    if spec.shortcut == "A":
        phrases = [f"option A: identity shortcuts, zeros for new channels, {_ZEROS[spec.zero_pad]}"]
    else:
        phrases = [_SHORTCUTS[spec.shortcut]]
    if spec.block == "bottleneck":
        phrases.append(_STRIDES[spec.stride_on])
    if spec.stem == "7x7":
        phrases.append(_POOLS[spec.stem_pool])
    return phrases


def _stage(name: str, layers: list[Layer]) -> Stage:
    convolutions = [layer for layer in layers if layer.kind == "conv" and layer.branch == "main"]
    windowed = [layer for layer in layers if layer.branch == "main" and layer.kind in ("conv", "pool")]
    blocks = 0
    if name == "head":
        words = f"average pool, {'-, '.join(str(layer.out_channels) for layer in layers if layer.kind == 'fc')}-way fc"
    elif not convolutions:
        pool = layers[0]
        words = f"{pool.kernel}x{pool.kernel} max pool, stride {pool.stride}"
    elif name == "conv1":
        words = f"{_filters(convolutions)}, stride {convolutions[0].stride}"
    else:
        words, blocks = _blocks(convolutions)
    output = (1, 1) if name == "head" else windowed[-1].output_size
    return Stage(
        name=name,
        output=output,
        layers=words,
        blocks=blocks,
        parameters=sum(layer.parameters for layer in layers),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
    )


def _blocks(convolutions: list[Layer]) -> tuple[str, int]:
    """Return `[3x3, 64; 3x3, 64] x 2` and 2: one block's convolutions and the number of blocks."""
    blocks = [list(group) for _, group in itertools.groupby(convolutions, key=_block_name)]
    return f"[{_filters(blocks[0])}] x {len(blocks)}", len(blocks)


def _block_name(layer: Layer) -> str:
    """Return `layer1.0` for `layer1.0.conv1`; in VGG every convolution is a block of its own."""
    return layer.name if layer.name.startswith("features.") else layer.name.rpartition(".")[0]


def _filters(convolutions: Iterable[Layer]) -> str:
    return "; ".join(f"{layer.kernel}x{layer.kernel}, {layer.out_channels}" for layer in convolutions)
