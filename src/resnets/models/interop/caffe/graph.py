"""Which of our nets a graph of layers is: read off the graph, then checked layer by layer and edge by edge.

Names decide nothing here. Two graphs are compared in one order of their layers, which depends only on how they are
connected: that of a depth-first walk from the logits, in which the shorter branch of an addition comes first.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from resnets.models.interop.caffe.deploy import deploy
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
    Scale,
    describe,
)
from resnets.models.interop.caffe.protobuf import FormatError
from resnets.specs.catalogue import model_name
from resnets.specs.errors import SpecError
from resnets.specs.model import ResNetSpec, VGGSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.specs.model import ModelSpec, Shortcut, StemPool

_LONGEST_BLOCK = 16
"""Layers of a bottleneck block, with something to spare."""


@dataclass(frozen=True, slots=True)
class Node:
    """A layer of a graph; BatchNorm and the Scale after it are one."""

    layers: tuple[Layer, ...]
    inputs: tuple[int, ...]
    """Positions of the nodes whose outputs it takes."""

    @property
    def operation(self) -> Operation:
        """What its first layer computes."""
        return self.layers[0].operation

    @property
    def name(self) -> str:
        """Name of its first layer."""
        return self.layers[0].name


@dataclass(frozen=True, slots=True)
class Graph:
    """What leads from images to logits."""

    nodes: tuple[Node, ...]
    """In the order of a depth-first walk; the last one gives the logits."""
    images: Input
    dropout: float
    """Share of units that the first dropout layer drops in training; 0 without one."""


def connect(layers: Sequence[Layer]) -> Graph:
    """Return the graph of layers that leads to the logits: the output of the last fully-connected layer.

    Raises:
        FormatError: there are no logits, a layer's input does not exist, or its output leads nowhere.
    """
    found = _join_scales(_connect(layers))
    heads = [index for index, node in enumerate(found) if isinstance(node.operation, InnerProduct)]
    if not heads:
        raise FormatError("it has no fully-connected layer (InnerProduct), so it has no logits")
    found = _shorter_branch_first(found)
    order = _walk(found, heads[-1])
    for index in sorted(set(range(len(found))) - set(order)):
        if not isinstance(found[index].operation, Input):
            raise FormatError(f"layer {found[index].name!r} does not lead to the logits")
    place = {index: position for position, index in enumerate(order)}
    nodes = tuple(Node(found[index].layers, tuple(place[source] for source in found[index].inputs)) for index in order)
    images = [node.operation for node in nodes if isinstance(node.operation, Input)]
    if len(images) != 1:
        raise FormatError(f"it has {len(images)} inputs; a net that classifies images has one")
    dropouts = (layer.operation.dropout for layer in layers if isinstance(layer.operation, Copy))
    return Graph(nodes, images[0], next((share for share in dropouts if share), 0.0))


def recognise(graph: Graph, in_channels: int) -> ModelSpec:
    """Return the variant that a graph looks like; whether it is this one, `match` says.

    Raises:
        FormatError: it is nothing like a net of the paper.
    """
    try:
        if any(isinstance(node.operation, BatchNorm) for node in graph.nodes):
            return _recognise_residual(graph, in_channels)
        return _recognise_vgg(graph, in_channels)
    except SpecError as error:
        raise FormatError(f"it is no net of the paper ({error})") from error


def match(graph: Graph, spec: ModelSpec) -> list[tuple[Node, Node]]:
    """Return every node of a graph with its counterpart in the Caffe form of `spec`.

    Raises:
        FormatError: a layer computes something else, is connected in another way, is missing or superfluous.
    """
    if graph.images.height != graph.images.width:
        raise FormatError(f"its images are {graph.images.height} x {graph.images.width} pixels; they have to be square")
    expected = connect(deploy(spec, graph.images.height or None)).nodes
    for found, wanted in zip(graph.nodes, expected, strict=False):
        if not _same(found.operation, wanted.operation):
            raise FormatError(
                f"layer {found.name!r} is {describe(found.operation)}; in {model_name(spec)} its place has "
                f"{describe(wanted.operation)}"
            )
        if found.inputs != wanted.inputs:
            raise FormatError(f"layer {found.name!r} has its input from another layer than in {model_name(spec)}")
    length = min(len(graph.nodes), len(expected))
    for surplus in graph.nodes[length:]:
        raise FormatError(f"layer {surplus.name!r}, {describe(surplus.operation)}, has no place in {model_name(spec)}")
    for missing in expected[length:]:
        raise FormatError(f"it lacks {describe(missing.operation)} where {model_name(spec)} has {missing.name!r}")
    return list(zip(graph.nodes, expected, strict=True))


def _connect(layers: Sequence[Layer]) -> list[Node]:
    """Return a node for every layer that computes something, in the order of the file."""
    found: list[Node] = []
    producer: dict[str, int] = {}
    for layer in layers:
        if isinstance(layer.operation, Ending):
            continue
        sources = tuple(producer.get(bottom, -1) for bottom in layer.bottoms)
        if -1 in sources:
            bottom = layer.bottoms[sources.index(-1)]
            raise FormatError(f"layer {layer.name!r} takes {bottom!r}, which no layer before it gives")
        _check_arity(layer)
        if isinstance(layer.operation, Copy):
            producer.update(dict.fromkeys(layer.tops, sources[0]))
            continue
        for top in layer.tops:
            if isinstance(layer.operation, Input) and top in producer:
                continue  # data layers for training and for testing give the same
            producer[top] = len(found)
            found.append(Node((layer,), sources))
    return found


def _check_arity(layer: Layer) -> None:
    match layer.operation:
        case Input():
            fits = not layer.bottoms and layer.tops
        case Addition():
            fits = len(layer.bottoms) == 2 and len(layer.tops) == 1
        case Copy():
            fits = len(layer.bottoms) == 1 and layer.tops
        case _:
            fits = len(layer.bottoms) == len(layer.tops) == 1
    if not fits:
        inputs, outputs = len(layer.bottoms), len(layer.tops)
        raise FormatError(
            f"layer {layer.name!r}, {describe(layer.operation)}, has {inputs} inputs and {outputs} outputs"
        )


def _join_scales(found: list[Node]) -> list[Node]:
    """Return the nodes with every Scale that alone follows a BatchNorm joined to it."""
    uses = [0] * len(found)
    for source in itertools.chain.from_iterable(node.inputs for node in found):
        uses[source] += 1
    joined: list[Node] = []
    place: list[int] = []
    for node in found:
        inputs = tuple(place[source] for source in node.inputs)
        if isinstance(node.operation, Scale) and uses[node.inputs[0]] == 1:
            before = joined[inputs[0]]
            if isinstance(before.operation, BatchNorm) and len(before.layers) == 1:
                joined[inputs[0]] = Node((*before.layers, *node.layers), before.inputs)
                place.append(inputs[0])
                continue
        place.append(len(joined))
        joined.append(Node(node.layers, inputs))
    return joined


def _shorter_branch_first(found: list[Node]) -> list[Node]:
    """Return the nodes with the inputs of every addition ordered by their distance from the images."""
    depth: list[int] = []
    for node in found:
        depth.append(1 + max((depth[source] for source in node.inputs), default=0))
    return [Node(node.layers, tuple(sorted(node.inputs, key=lambda source: depth[source]))) for node in found]


def _walk(found: list[Node], head: int) -> list[int]:
    """Return `head` and all that it depends on, every node after its inputs."""
    order: list[int] = []
    seen = {head}
    waiting = [(head, iter(found[head].inputs))]
    while waiting:
        index, inputs = waiting[-1]
        source = next((source for source in inputs if source not in seen), None)
        if source is None:
            order.append(index)
            waiting.pop()
        else:
            seen.add(source)
            waiting.append((source, iter(found[source].inputs)))
    return order


def _same(found: Operation, wanted: Operation) -> bool:
    """Return whether two operations compute the same, their weights and biases aside."""
    match found, wanted:
        case (BatchNorm(), BatchNorm()) | (Input(), Input()):
            return True
        case Pooling(kind="average"), Pooling(kind="average"):
            return found.whole_map or (found.kernel, found.pad) == (wanted.kernel, wanted.pad)
        case Convolution(), Convolution():
            return _without_bias(found) == _without_bias(wanted)
        case InnerProduct(), InnerProduct():
            return found.outputs == wanted.outputs
        case _:
            return found == wanted


def _without_bias(operation: Convolution) -> tuple[int, ...]:
    window = operation.kernel, operation.stride, operation.pad, operation.dilation
    return operation.outputs, operation.groups, *window


@dataclass(frozen=True, slots=True)
class _Block:
    convolutions: tuple[Convolution, ...]
    projected: bool

    @property
    def stride(self) -> int:
        return max(convolution.stride for convolution in self.convolutions)


def _recognise_residual(graph: Graph, in_channels: int) -> ResNetSpec:
    convolutions = [node.operation for node in graph.nodes if isinstance(node.operation, Convolution)]
    additions = [node for node in graph.nodes if isinstance(node.operation, Addition)]
    blocks = [_block(graph, node) for node in additions]
    if not additions:
        main = convolutions[1:]
        blocks = [_Block(tuple(main[start : start + 2]), projected=False) for start in range(0, len(main), 2)]
    sizes = {len(block.convolutions) for block in blocks}
    if sizes not in ({2}, {3}):
        raise FormatError(
            f"its blocks have {sorted(sizes) or 'no'} convolutions; those of a net of the paper have 2 or 3"
        )
    starts = [index for index, block in enumerate(blocks) if index == 0 or block.stride != 1]
    stem, stem_pool = convolutions[0], _stem_pool(graph)
    return ResNetSpec(
        block="basic" if sizes == {2} else "bottleneck",
        blocks=tuple(end - start for start, end in itertools.pairwise([*starts, len(blocks)])),
        widths=(stem.outputs, *(blocks[start].convolutions[0].outputs for start in starts[1:])),
        stem="3x3" if stem.stride == 1 and stem_pool == "none" else "7x7",
        stem_pool=stem_pool,
        shortcut=_shortcut(stem, blocks) if additions else "none",
        stride_on=_stride_on(blocks, stem_pool),
        num_classes=_classes(graph),
        in_channels=in_channels,
    )


def _block(graph: Graph, addition: Node) -> _Block:
    """Return the block that an addition ends: its other end is the shortcut's input."""
    nodes = graph.nodes
    shorter, current = addition.inputs
    start, projected = shorter, False
    if isinstance(nodes[shorter].operation, BatchNorm):
        projected = True
        for _ in range(2):
            start = nodes[start].inputs[0]
    found: list[Convolution] = []
    for _ in range(_LONGEST_BLOCK):
        if current == start:
            return _Block(tuple(reversed(found)), projected)
        operation, inputs = nodes[current].operation, nodes[current].inputs
        if not inputs:
            break
        if isinstance(operation, Convolution):
            found.append(operation)
        current = inputs[0]
    raise FormatError(f"layer {addition.name!r} adds what is not the end of a block and its beginning")


def _stem_pool(graph: Graph) -> StemPool:
    pools = (node.operation for node in graph.nodes if isinstance(node.operation, Pooling))
    first = next((pool for pool in pools if pool.kind == "max"), None)
    if first is None:
        return "none"
    return "torchvision" if first.floor else "official"


def _shortcut(stem: Convolution, blocks: list[_Block]) -> Shortcut:
    """Return C where a block that keeps its dimensions has a projection; whether all have one, `match` sees."""
    channels = stem.outputs
    for block in blocks:
        outputs = block.convolutions[-1].outputs
        if block.projected and block.stride == 1 and outputs == channels:
            return "C"
        channels = outputs
    return "B"


def _stride_on(blocks: list[_Block], stem_pool: StemPool) -> Literal["1x1", "3x3"]:
    for block in blocks:
        if len(block.convolutions) == 3 and block.stride != 1:
            return "1x1" if block.convolutions[0].stride != 1 else "3x3"
    return "3x3" if stem_pool == "torchvision" else "1x1"  # no effect here; as the catalogue has it


def _recognise_vgg(graph: Graph, in_channels: int) -> VGGSpec:
    if any(isinstance(node.operation, Addition) for node in graph.nodes):
        raise FormatError("its BatchNorm layers are merged into the convolutions; convert the file that still has them")
    if sum(isinstance(node.operation, InnerProduct) for node in graph.nodes) != 3:
        raise FormatError("it has neither BatchNorm, as residual nets, nor three fully-connected layers, as VGG")
    stages: list[list[int]] = [[]]
    for node in graph.nodes:
        if isinstance(node.operation, Convolution):
            stages[-1].append(node.operation.outputs)
        elif isinstance(node.operation, Pooling):
            stages.append([])
    hidden = next(node.operation.outputs for node in graph.nodes if isinstance(node.operation, InnerProduct))
    stages = [outputs for outputs in stages if outputs]
    return VGGSpec(
        convs=tuple(map(len, stages)),
        widths=tuple(outputs[0] for outputs in stages),
        hidden=hidden,
        dropout=graph.dropout,
        num_classes=_classes(graph),
        in_channels=in_channels,
    )


def _classes(graph: Graph) -> int:
    head = graph.nodes[-1].operation
    return head.outputs if isinstance(head, InnerProduct) else 0
