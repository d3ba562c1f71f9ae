"""The Caffe form of our nets: layers under the names of the authors' released models, and our names for them.

conv1, bn_conv1, scale_conv1, res2a_branch2a, bn2a_branch2a, scale2a_branch2a, res2a_branch1, ..., fc1000. Blocks are
2a, 2b, ...; nets with a long stage number the blocks of their middle stages: 4a, 4b1, 4b2, ... VGG: conv1_1, ..., fc8.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from resnets.models.interop.caffe.operations import (
    Addition,
    BatchNorm,
    Convolution,
    Copy,
    Ending,
    InnerProduct,
    Input,
    Layer,
    Operation,
    Pooling,
    ReLU,
    Scale,
)
from resnets.models.interop.caffe.protobuf import FormatError
from resnets.specs import counts
from resnets.specs.catalogue import model_name
from resnets.specs.errors import SpecError
from resnets.specs.model import HighwaySpec, ModelSpec, ResNetSpec, VGGSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LONGEST_LETTERED, _SHORTEST_NUMBERED = 6, 4
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(?:conv(\d)|downsample\.0)")


def deploy(spec: ModelSpec | Any, side: int | None = None) -> list[Layer]:
    """Return the layers, without weights, of a net for images of `side` x `side` pixels, by default the paper's size.

    Raises:
        FormatError: Caffe has no layers for the net, or the images are too small for it.
    """
    spec = _expressible(spec)
    side = side or input_side(spec)
    if isinstance(spec, VGGSpec) and side != input_side(spec):
        raise FormatError(
            f"{model_name(spec)} is for {input_side(spec)} x {input_side(spec)} pixels in Caffe, not {side}."
        )
    try:
        planned = counts.layers(spec, side, side)
    except SpecError as error:
        raise FormatError(str(error)) from error
    chain = _Chain(Input(spec.in_channels, side, side))
    if isinstance(spec, VGGSpec):
        _add_vgg(chain, spec, planned)
    else:
        _add_residual(chain, spec, planned)
    chain.add("prob", Ending("Softmax"))
    return chain.layers


def input_side(spec: ModelSpec) -> int:
    """Return the side of the images in pixels that the paper feeds a net, or that VGG's fully-connected layers need."""
    return counts.VGG_GRID * 2 ** len(spec.convs) if isinstance(spec, VGGSpec) else counts.input_size(spec)[0]


def parameter_names(spec: ModelSpec) -> dict[str, str]:
    """Return our prefix for every layer of `deploy` that has weights: `res2a_branch1` is `layer1.0.downsample.0`.

    Raises:
        FormatError: Caffe has no layers for the net.
    """
    spec = _expressible(spec)
    planned = counts.layers(spec, *counts.input_size(spec))
    weighted = [layer for layer in planned if layer.kind in ("conv", "bn", "fc")]
    if isinstance(spec, VGGSpec):
        convolutions = [layer.name for layer in weighted if layer.kind == "conv"]
        names = dict(zip(_vgg_convolutions(spec), convolutions, strict=True))
        return names | {f"fc{number + 6}": f"classifier.{3 * number}" for number in range(3)}
    names = {}
    convolution = ""
    for layer in weighted:
        if layer.kind == "bn":
            names[_statistics(convolution)] = layer.name
        else:
            convolution = _residual_name(layer, spec)
            names[convolution] = layer.name
    return names


def _expressible(spec: ModelSpec | Any) -> ResNetSpec | VGGSpec:
    match spec:
        case HighwaySpec():
            raise FormatError(
                f"{model_name(spec)} cannot be written: Caffe has no layer for the gates of a highway net."
            )
        case ResNetSpec(shortcut="A"):
            raise FormatError(
                f"{model_name(spec)} cannot be written: Caffe has no layer for the zero channels of option A. "
                "Options B and C and plain nets can be."
            )
        case ResNetSpec() | VGGSpec():
            return spec
        case _:
            raise FormatError(f"A {type(spec).__name__} cannot be written; residual nets, plain nets and VGG can be.")


class _Chain:
    """Layers in order; each takes the output of the one before it, unless it is told otherwise."""

    def __init__(self, images: Input) -> None:
        self.layers = [Layer("data", images, (), ("data",))]
        self.output = "data"

    def add(self, name: str, operation: Operation, *bottoms: str, in_place: bool = False) -> None:
        bottoms = bottoms or (self.output,)
        self.output = bottoms[0] if in_place else name
        self.layers.append(Layer(name, operation, bottoms, (self.output,)))

    def add_normalised(self, name: str, operation: Convolution, bottom: str) -> None:
        """Add a convolution with its BatchNorm and Scale."""
        self.add(name, operation, bottom)
        self.add(_statistics(name), BatchNorm(), in_place=True)
        self.add(_statistics(name, "scale"), Scale(), in_place=True)


def _add_residual(chain: _Chain, spec: ResNetSpec, planned: list[counts.Layer]) -> None:
    convolutions = [layer for layer in planned if layer.kind == "conv"]
    chain.add_normalised("conv1", _convolution(convolutions[0]), "data")
    chain.add("conv1_relu", ReLU(), in_place=True)
    if spec.stem_pool != "none":
        # Rounded up, a padded pool would have 57 pixels and not 56; Caffe rounds down only since 2018 (round_mode).
        padded = spec.stem_pool == "torchvision"
        chain.add("pool1", Pooling("max", 3, stride=2, pad=int(padded), floor=padded))
    for _, block in itertools.groupby(convolutions[1:], key=lambda layer: _block_of(layer)[:2]):
        _add_block(chain, spec, list(block))
    chain.add("pool5", Pooling("average", convolutions[-1].height))
    chain.add(f"fc{spec.num_classes}", InnerProduct(spec.num_classes))


def _add_block(chain: _Chain, spec: ResNetSpec, convolutions: list[counts.Layer]) -> None:
    start = shortcut = chain.output
    main = [layer for layer in convolutions if layer.branch == "main"]
    for layer in convolutions:
        if layer.branch == "projection":
            shortcut = _residual_name(layer, spec)
            chain.add_normalised(shortcut, _convolution(layer), start)
    chain.output = start
    for layer in main:
        name = _residual_name(layer, spec)
        chain.add_normalised(name, _convolution(layer), chain.output)
        if layer is not main[-1] or spec.shortcut == "none":
            chain.add(f"{name}_relu", ReLU(), in_place=True)
    if spec.shortcut != "none":
        block = _residual_name(main[0], spec).partition("_")[0]
        chain.add(block, Addition(), shortcut, chain.output)
        chain.add(f"{block}_relu", ReLU(), in_place=True)


def _add_vgg(chain: _Chain, spec: VGGSpec, planned: list[counts.Layer]) -> None:
    names = _vgg_convolutions(spec)
    for layer in planned:
        if layer.kind == "conv":
            name = next(names)
            chain.add(name, _convolution(layer, bias=True))
            chain.add(name.replace("conv", "relu"), ReLU(), in_place=True)
        elif layer.name.startswith("features."):
            chain.add(layer.stage, Pooling("max", 2, stride=2))
    for number in (6, 7):
        chain.add(f"fc{number}", InnerProduct(spec.hidden))
        chain.add(f"relu{number}", ReLU(), in_place=True)
        if spec.dropout:
            chain.add(f"drop{number}", Copy("Dropout", spec.dropout), in_place=True)
    chain.add("fc8", InnerProduct(spec.num_classes))


def _convolution(layer: counts.Layer, *, bias: bool = False) -> Convolution:
    return Convolution(layer.out_channels, layer.kernel, layer.stride, layer.kernel // 2, bias)


def _vgg_convolutions(spec: VGGSpec) -> Iterator[str]:
    return (f"conv{stage}_{number}" for stage, count in enumerate(spec.convs, 1) for number in range(1, count + 1))


def _statistics(convolution: str, prefix: str = "bn") -> str:
    """Return `bn_conv1` or `bn2a_branch1` for `conv1` or `res2a_branch1`; the same with `scale`."""
    return f"{prefix}_conv1" if convolution == "conv1" else convolution.replace("res", prefix, 1)


def _residual_name(layer: counts.Layer, spec: ResNetSpec) -> str:
    if layer.name == "conv1":
        return "conv1"
    if layer.kind == "fc":
        return f"fc{spec.num_classes}"
    stage, block, number = _block_of(layer)
    branch = "1" if number is None else f"2{_LETTERS[number - 1]}"
    return f"res{stage + 1}{_block_name(spec.blocks, stage - 1, block)}_branch{branch}"


def _block_of(layer: counts.Layer) -> tuple[int, int, int | None]:
    """Return stage, from 1, block, from 0, and convolution, from 1 or None for the projection."""
    match = _BLOCK.fullmatch(layer.name)
    if match is None:
        raise ValueError(f"{layer.name} lies in no block")
    return int(match[1]), int(match[2]), int(match[3]) if match[3] else None


def _block_name(blocks: Iterable[int], stage: int, block: int) -> str:
    """Return a, b, c, ...; or a, b1, b2, ... in the longer stages of a net that has one of more than six blocks."""
    blocks = tuple(blocks)
    if max(blocks) <= _LONGEST_LETTERED or blocks[stage] < _SHORTEST_NUMBERED:
        return _LETTERS[block]
    return f"b{block}" if block else "a"
