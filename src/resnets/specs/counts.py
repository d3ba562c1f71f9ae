"""Layers, parameters, multiply-adds and activation memory of a net, from its spec alone.

The convention is the paper's (Table 1, where multiply-adds are called FLOPs): convolutions and fully-connected
layers count, projection shortcuts included; BatchNorm, ReLU, pooling, additions and biases do not. Parameters are
those that are trained: BatchNorm's running statistics are left out.

Activation memory is what autograd keeps of one image for the backward pass, each tensor counted once. A
convolution keeps its input, BatchNorm its input (the output of the convolution before it), and ReLU its output,
which is the input of the next convolution. ReLU works in place, so BatchNorm's own output takes no memory, and an
addition keeps nothing. A max pool keeps int64 indices besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from resnets.specs.errors import SpecError
from resnets.specs.model import HighwaySpec, ResNetSpec, VGGSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnets.specs.model import ModelSpec

Kind = Literal["conv", "bn", "pool", "fc"]
Branch = Literal["main", "projection", "gate"]

INDEX_BYTES = 8
"""Bytes of one index that a max pool keeps (int64)."""
VGG_GRID = 7
"""Side of the map that VGG's average pool hands to its first fully-connected layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer of a net at one input size, per image."""

    name: str
    """Prefix in the state dict, such as `layer1.0.conv1`; the module's name for a pool."""
    stage: str
    """Stage in the paper's names: conv1, pool1, conv2_x, ..., head."""
    kind: Kind
    """Convolution, BatchNorm, pooling or fully-connected."""
    branch: Branch = "main"
    """Main path, projection shortcut, or gate of a highway net."""
    in_channels: int
    """Channels of the input; features of a fully-connected layer."""
    out_channels: int
    """Channels of the output; features of a fully-connected layer."""
    kernel: int = 1
    """Side of the square window, in pixels of the input."""
    stride: int = 1
    """Distance between windows, in pixels of the input."""
    height: int = 1
    """Height of the output in pixels."""
    width: int = 1
    """Width of the output in pixels."""
    parameters: int = 0
    """Trained values: weights and biases."""
    multiply_adds: int = 0
    """Multiplications followed by an addition; 0 for BatchNorm and pooling."""
    saved_values: int = 0
    """Values kept for the backward pass that this layer, or the ReLU after it, brings into being."""
    saved_indices: int = 0
    """Indices kept for the backward pass: one an output value of a max pool."""

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the output in pixels."""
        return self.height, self.width


def layers(spec: ModelSpec, height: int, width: int) -> list[Layer]:
    """Return the layers of a net in forward order for images of `height` x `width` pixels.

    Raises:
        SpecError: the spec is of a class of its own, or the images are too small for the net.
    """
    if min(height, width) < 1:
        raise SpecError(f"The input is {height} x {width} pixels; both sides are at least 1.")
    match spec:
        case ResNetSpec() | HighwaySpec():
            found = list(_residual_layers(spec, (height, width)))
        case VGGSpec():
            found = list(_vgg_layers(spec, (height, width)))
        case _:
            raise SpecError(
                f"Counts are for the paper's families (ResNetSpec, HighwaySpec, VGGSpec); "
                f"this spec is a {type(spec).__name__}. Count the built model instead."
            )
    empty = next((layer for layer in found if min(layer.output_size) < 1), None)
    if empty is not None:
        raise SpecError(
            f"The input is {height} x {width} pixels, too small for this net: nothing is left after {empty.name}. "
            f"It is made for {' x '.join(map(str, input_size(spec)))}."
        )
    return found


def input_size(spec: ModelSpec) -> tuple[int, int]:
    """Return the height and width in pixels that the paper feeds the net: 32 x 32 (CIFAR) or 224 x 224."""
    cifar = isinstance(spec, HighwaySpec) or (isinstance(spec, ResNetSpec) and spec.stem == "3x3")
    return (32, 32) if cifar else (224, 224)


def count_parameters(spec: ModelSpec) -> int:
    """Return the number of trained parameters.

    >>> from resnets.specs.catalogue import model_spec
    >>> count_parameters(model_spec("cifar-resnet56"))
    853018
    """
    return sum(layer.parameters for layer in layers(spec, *input_size(spec)))


def count_multiply_adds(spec: ModelSpec, height: int, width: int, *, convolutions_only: bool = False) -> int:
    """Return the multiply-adds of one image of `height` x `width` pixels.

    Args:
        spec: the net.
        height: height of the image in pixels.
        width: width of the image in pixels.
        convolutions_only: leave out fully-connected layers, as the paper does for VGG-16 and nowhere else.
    """
    return sum(
        layer.multiply_adds for layer in layers(spec, height, width) if layer.kind == "conv" or not convolutions_only
    )


def activation_bytes(spec: ModelSpec, height: int, width: int, bytes_per_value: int) -> int:
    """Return the bytes that one image keeps for the backward pass, with `bytes_per_value` 4 (fp32) or 2 (bf16)."""
    return sum(
        layer.saved_values * bytes_per_value + layer.saved_indices * INDEX_BYTES
        for layer in layers(spec, height, width)
    )


def _conv(
    *,
    name: str,
    stage: str,
    channels: tuple[int, int],
    kernel: int,
    size: tuple[int, int],
    stride: int = 1,
    branch: Branch = "main",
    bias: bool = False,
    also_saved: int = 0,
) -> Layer:
    """Return a convolution with kernel // 2 pixels of padding, on an input of `size`.

    Its output is kept, by the BatchNorm, ReLU or gate that follows; `also_saved` are values kept besides.
    """
    height, width = ((side - 1) // stride + 1 for side in size)
    weights = kernel * kernel * channels[0] * channels[1]
    outputs = channels[1] * height * width
    return Layer(
        name=name,
        stage=stage,
        kind="conv",
        branch=branch,
        in_channels=channels[0],
        out_channels=channels[1],
        kernel=kernel,
        stride=stride,
        height=height,
        width=width,
        parameters=weights + bias * channels[1],
        multiply_adds=weights * height * width,
        saved_values=outputs + also_saved,
    )


def _batch_norm(conv: Layer, name: str, kept_after: int = 1) -> Layer:
    """Return the BatchNorm after `conv`, with `kept_after` tensors of its size kept between it and the next layer."""
    return Layer(
        name=name,
        stage=conv.stage,
        kind="bn",
        branch=conv.branch,
        in_channels=conv.out_channels,
        out_channels=conv.out_channels,
        height=conv.height,
        width=conv.width,
        parameters=2 * conv.out_channels,
        saved_values=kept_after * conv.out_channels * conv.height * conv.width,
    )


def _pool(*, name: str, stage: str, channels: int, kernel: int, stride: int, size: tuple[int, int]) -> Layer:
    """Return a max pool with an output of `size`: its output, the next layer's input, and its indices are kept."""
    outputs = channels * size[0] * size[1]
    return Layer(
        name=name,
        stage=stage,
        kind="pool",
        in_channels=channels,
        out_channels=channels,
        kernel=kernel,
        stride=stride,
        height=size[0],
        width=size[1],
        saved_values=outputs,
        saved_indices=outputs,
    )


def _average_pool(channels: int, side: int) -> Layer:
    """Return the average pool to `side` x `side` pixels before the head, whose output the head keeps."""
    return Layer(
        name="avgpool",
        stage="head",
        kind="pool",
        in_channels=channels,
        out_channels=channels,
        height=side,
        width=side,
        saved_values=channels * side * side,
    )


def _linear(name: str, inputs: int, outputs: int, saved_values: int = 0) -> Layer:
    return Layer(
        name=name,
        stage="head",
        kind="fc",
        in_channels=inputs,
        out_channels=outputs,
        parameters=inputs * outputs + outputs,
        multiply_adds=inputs * outputs,
        saved_values=saved_values,
    )


def _residual_layers(spec: ResNetSpec | HighwaySpec, size: tuple[int, int]) -> Iterator[Layer]:
    """Yield stem, stages and head of a residual, plain or highway net (Table 1; Sec. 4.2)."""
    for layer in _stem(spec, size):
        yield layer
        size = layer.output_size
    channels = spec.widths[0]
    for index, (blocks, width) in enumerate(zip(spec.blocks, spec.widths, strict=True)):
        for number in range(blocks):
            block = _Block(
                name=f"layer{index + 1}.{number}",
                stage=f"conv{index + 2}_x",
                in_channels=channels,
                width=width,
                stride=2 if index > 0 and number == 0 else 1,
                size=size,
            )
            found = list(_highway_block(block) if isinstance(spec, HighwaySpec) else _residual_block(spec, block))
            yield from found
            channels, size = found[-1].out_channels, found[-1].output_size
    yield _average_pool(channels, 1)
    yield _linear("fc", channels, spec.num_classes)


def _stem(spec: ResNetSpec | HighwaySpec, size: tuple[int, int]) -> Iterator[Layer]:
    imagenet = isinstance(spec, ResNetSpec) and spec.stem == "7x7"
    conv = _conv(
        name="conv1",
        stage="conv1",
        channels=(spec.in_channels, spec.widths[0]),
        kernel=7 if imagenet else 3,
        stride=2 if imagenet else 1,
        size=size,
        also_saved=spec.in_channels * size[0] * size[1],
    )
    yield conv
    yield _batch_norm(conv, "bn1")
    if isinstance(spec, ResNetSpec) and spec.stem_pool != "none":
        # One pixel of padding on each side, or none and a last window that hangs over (Caffe's ceil mode).
        height, width = ((side + 1) // 2 if spec.stem_pool == "torchvision" else side // 2 for side in conv.output_size)
        yield _pool(name="maxpool", stage="pool1", channels=conv.out_channels, kernel=3, stride=2, size=(height, width))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """Where a block sits and what it gets."""

    name: str
    stage: str
    in_channels: int
    width: int
    stride: int
    size: tuple[int, int]

    def conv(self, name: str, channels: tuple[int, int], kernel: int, stride: int, size: tuple[int, int]) -> Layer:
        return _conv(
            name=f"{self.name}.{name}", stage=self.stage, channels=channels, kernel=kernel, stride=stride, size=size
        )


def _residual_block(spec: ResNetSpec, block: _Block) -> Iterator[Layer]:
    """Yield a projection, where there is one, and the main path, whose last layer has the size of the output."""
    out_channels = block.width * spec.expansion
    changes = block.stride != 1 or block.in_channels != out_channels
    if spec.shortcut == "C" or (spec.shortcut == "B" and changes):
        yield from _projection(block, out_channels)
    if spec.block == "basic":
        yield from _two_convolutions(block)
        return
    strides = (block.stride, 1) if spec.stride_on == "1x1" else (1, block.stride)
    reduce = block.conv("conv1", (block.in_channels, block.width), 1, strides[0], block.size)
    middle = block.conv("conv2", (block.width, block.width), 3, strides[1], reduce.output_size)
    restore = block.conv("conv3", (block.width, out_channels), 1, 1, middle.output_size)
    for number, conv in enumerate((reduce, middle, restore), start=1):
        yield conv
        yield _batch_norm(conv, f"{block.name}.bn{number}")


def _two_convolutions(block: _Block, kept_at_end: int = 1) -> Iterator[Layer]:
    """Yield the 3x3 convolutions of a basic block, with `kept_at_end` tensors kept after the second."""
    first = block.conv("conv1", (block.in_channels, block.width), 3, block.stride, block.size)
    second = block.conv("conv2", (block.width, block.width), 3, 1, first.output_size)
    yield first
    yield _batch_norm(first, f"{block.name}.bn1")
    yield second
    yield _batch_norm(second, f"{block.name}.bn2", kept_at_end)


def _projection(block: _Block, out_channels: int) -> Iterator[Layer]:
    conv = _conv(
        name=f"{block.name}.downsample.0",
        stage=block.stage,
        branch="projection",
        channels=(block.in_channels, out_channels),
        kernel=1,
        stride=block.stride,
        size=block.size,
    )
    yield conv
    yield _batch_norm(conv, f"{block.name}.downsample.1", kept_after=0)


def _highway_block(block: _Block) -> Iterator[Layer]:
    """Yield the gate and the main path: besides the block's output, H - x is kept, for the gradient of the gate."""
    yield _conv(
        name=f"{block.name}.gate",
        stage=block.stage,
        branch="gate",
        channels=(block.in_channels, block.width),
        kernel=3,
        stride=block.stride,
        size=block.size,
        bias=True,
    )
    yield from _two_convolutions(block, kept_at_end=2)


def _vgg_layers(spec: VGGSpec, size: tuple[int, int]) -> Iterator[Layer]:
    """Yield stages of convolutions with bias and ReLU, a 2x2 max pool after each, and three fully-connected layers."""
    channels, position = spec.in_channels, 0
    image = channels * size[0] * size[1]
    for stage, (convolutions, width) in enumerate(zip(spec.convs, spec.widths, strict=True), start=1):
        for _ in range(convolutions):
            yield _conv(
                name=f"features.{position}",
                stage=f"conv{stage}_x",
                channels=(channels, width),
                kernel=3,
                size=size,
                bias=True,
                also_saved=image if position == 0 else 0,
            )
            channels, position = width, position + 2  # a ReLU follows
        size = (size[0] // 2, size[1] // 2)
        yield _pool(name=f"features.{position}", stage=f"pool{stage}", channels=channels, kernel=2, stride=2, size=size)
        position += 1
    yield _average_pool(channels, VGG_GRID)
    # A hidden layer keeps the output of its ReLU and, with dropout, the mask and the output of the dropout.
    kept = spec.hidden * (3 if spec.dropout else 1)
    yield _linear("classifier.0", channels * VGG_GRID * VGG_GRID, spec.hidden, kept)
    yield _linear("classifier.3", spec.hidden, spec.hidden, kept)
    yield _linear("classifier.6", spec.hidden, spec.num_classes)
