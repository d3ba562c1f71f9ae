"""A net as a list of layers: from and to NetParameter, with the older forms of it (Caffe's upgrade_proto rules)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from resnets.models.interop.caffe.operations import (
    INPUTS,
    Input,
    Layer,
    read_input_shape,
    read_operation,
    write_operation,
)
from resnets.models.interop.caffe.protobuf import FormatError
from resnets.models.interop.caffe.schema import Values, last

if TYPE_CHECKING:
    from collections.abc import Sequence

_V1_TYPES = {
    "CONVOLUTION": "Convolution", "RELU": "ReLU", "POOLING": "Pooling", "INNER_PRODUCT": "InnerProduct",
    "DROPOUT": "Dropout", "SPLIT": "Split", "FLATTEN": "Flatten", "ELTWISE": "Eltwise", "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss", "ACCURACY": "Accuracy", "SILENCE": "Silence", "DATA": "Data",
    "IMAGE_DATA": "ImageData", "MEMORY_DATA": "MemoryData", "HDF5_DATA": "HDF5Data",
}  # fmt: skip
_LEGACY_SHAPE = ("num", "channels", "height", "width")
_MAX_LAYERS = 50_000


def read_blobs(net: Values) -> dict[str, tuple[np.ndarray, ...]]:
    """Return the weights of every layer that has some, by its name.

    Raises:
        FormatError: a blob is damaged, or two layers with weights have the same name.
    """
    found: dict[str, tuple[np.ndarray, ...]] = {}
    for values in _layer_values(net):
        if values.get("blobs"):
            name = _name(values)
            if name in found:
                raise FormatError(f"two layers with weights are called {name!r}")
            found[name] = _layer_blobs(values, name)
    return found


def has_graph(net: Values) -> bool:
    """Return whether a net says how its layers are connected, or has no more than names and weights."""
    return any(values.get("bottom") for values in _layer_values(net))


def read_layers(net: Values) -> list[Layer]:
    """Return the layers that run when a net is tested, in their order, inputs included.

    Raises:
        FormatError: a layer is damaged, or of a kind that neither a residual net nor VGG has.
    """
    layers = [Layer(name, shape, (), (name,)) for name, shape in _inputs(net)]
    for values in _layer_values(net):
        kind = last(values, "type", "")
        if kind not in INPUTS and not _runs_when_tested(values):
            continue
        name = _name(values)
        try:
            operation = read_operation(kind, values)
        except FormatError as error:
            raise FormatError(f"layer {name!r} {error}") from error
        bottoms, tops = tuple(values.get("bottom", [])), tuple(values.get("top", []))
        layers.append(Layer(name, operation, bottoms, tops, _layer_blobs(values, name)))
    return layers


def write_layers(name: str, layers: Sequence[Layer], *, weights: bool) -> Values:
    """Return the NetParameter of a net, with or without its weights."""
    written = []
    for layer in layers:
        kind, settings = write_operation(layer.operation)
        values: Values = {"name": [layer.name], "type": [kind]}
        values |= {"bottom": list(layer.bottoms), "top": list(layer.tops)}
        if weights and layer.blobs:
            values["blobs"] = [{"shape": [{"dim": list(blob.shape)}], "data": [blob]} for blob in layer.blobs]
        written.append({**values, **settings})
    return {"name": [name], "layer": written}


def read_blob(values: Values) -> np.ndarray:
    """Return the numbers of a BlobProto, float32 or float64, in their shape: a view of the file where it can be.

    Raises:
        FormatError: the shape is not that of the numbers.
    """
    pieces = values.get("data") or values.get("double_data") or []
    if values.get("data") and values.get("double_data"):
        raise FormatError("has a blob with both data and double_data")
    numbers = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.float32), *pieces])
    if "shape" in values:
        shape = tuple(last(values, "shape", {}).get("dim", []))
    elif any(side in values for side in _LEGACY_SHAPE):
        shape = tuple(last(values, side, 0) for side in _LEGACY_SHAPE)
    else:
        shape = (numbers.size,)
    if not shape or len(shape) > 8 or min(shape) < 1 or math.prod(shape) != numbers.size:
        raise FormatError(f"has a blob of shape {shape[:8]} with {numbers.size:,} numbers: the file is damaged")
    return numbers.reshape(shape)


def _layer_values(net: Values) -> list[Values]:
    """Return the LayerParameters of a net; those of the first version with the types of the second."""
    layers, old = net.get("layer", []), net.get("layers", [])
    if layers and old:
        raise FormatError("it has layers of two versions of Caffe's format")
    if len(layers) + len(old) > _MAX_LAYERS:
        raise FormatError(f"it has more than {_MAX_LAYERS:,} layers")
    for values in old:
        if not values.get("type"):
            raise FormatError(
                f"layer {last(values, 'name', '')!r} has no type: it is a file of before 2014, in a form that Caffe's "
                "upgrade_net_proto_binary brings up to date"
            )
    return layers or [{**values, "type": [_V1_TYPES.get(values["type"][-1], values["type"][-1])]} for values in old]


def _inputs(net: Values) -> list[tuple[str, Input]]:
    """Return the inputs that are stated at the head of a net, as it was done before there was an Input layer."""
    names, shapes, sides = net.get("input", []), net.get("input_shape", []), net.get("input_dim", [])
    dimensions = [shape.get("dim", []) for shape in shapes] or [
        sides[start : start + 4] for start in range(0, len(sides), 4)
    ]
    if not names:
        return []
    if dimensions and len(dimensions) != len(names):
        raise FormatError(f"it has {len(names)} inputs and {len(dimensions)} shapes for them")
    try:
        stated = [read_input_shape(shape) for shape in dimensions] or [Input()] * len(names)
    except FormatError as error:
        raise FormatError(f"its input {error}") from error
    return list(zip(names, stated, strict=True))


def _runs_when_tested(values: Values) -> bool:
    if values.get("include"):
        return any(_is_met(rule) for rule in values["include"])
    return not any(_is_met(rule) for rule in values.get("exclude", []))


def _is_met(rule: Values) -> bool:
    """Return whether a rule holds for a net that is tested, at level 0 and in no stage."""
    levels = last(rule, "min_level", 0) <= 0 <= last(rule, "max_level", 0)
    return last(rule, "phase", "TEST") == "TEST" and levels and not rule.get("stage")


def _layer_blobs(values: Values, name: str) -> tuple[np.ndarray, ...]:
    try:
        return tuple(read_blob(blob) for blob in values.get("blobs", []))
    except FormatError as error:
        raise FormatError(f"layer {name!r} {error}") from error


def _name(values: Values) -> str:
    name = last(values, "name", "")
    if not name:
        raise FormatError("a layer has no name")
    return name
