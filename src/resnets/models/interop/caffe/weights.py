"""Weights between Caffe's blobs and our state dict: BatchNorm's factor, its eps and biases before it, BGR and RGB."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from resnets.models.interop.caffe.deploy import input_side, parameter_names
from resnets.models.interop.caffe.operations import (
    BATCH_NORM_EPSILON,
    BatchNorm,
    Convolution,
    InnerProduct,
    Layer,
    Scale,
)
from resnets.models.interop.caffe.protobuf import FormatError
from resnets.models.interop.files import with_counters
from resnets.specs import counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from resnets.models.interop.caffe.graph import Node
    from resnets.specs.model import ModelSpec


def read_weights(pairs: Sequence[tuple[Node, Node]], spec: ModelSpec, *, bgr: bool) -> dict[str, Tensor]:
    """Return our state dict in float32, conv1 for RGB.

    A bias of a convolution before BatchNorm, which conv1 of the released ResNet-50 has, is taken off the running mean;
    an eps that is not ours is moved into the running variance. Both leave the function as it was, up to rounding.

    Args:
        pairs: every node of the file with its counterpart under the names of `parameter_names`.
        spec: the net.
        bgr: the first convolution takes blue, green and red, in this order.

    Raises:
        FormatError: a layer lacks weights, or they have another shape, are not finite, or are no variances.
    """
    names = parameter_names(spec)
    planned = {layer.name: layer for layer in counts.layers(spec, input_side(spec), input_side(spec))}
    arrays: dict[str, np.ndarray] = {}
    biases: dict[int, np.ndarray] = {}
    for index, (found, wanted) in enumerate(pairs):
        name = names.get(wanted.name)
        if name is None:
            continue
        own = planned[name]
        match found.operation:
            case Convolution(bias=has_bias):
                weight, biases[index] = _linear_blobs(
                    found.layers[0], (own.out_channels, own.in_channels, own.kernel, own.kernel), has_bias
                )
                arrays[f"{name}.weight"] = weight if arrays or not bgr else _reversed_channels(weight)
                if isinstance(wanted.operation, Convolution) and wanted.operation.bias:
                    arrays[f"{name}.bias"] = biases[index]
            case InnerProduct(bias=has_bias):
                shape = own.out_channels, own.in_channels
                arrays[f"{name}.weight"], arrays[f"{name}.bias"] = _linear_blobs(found.layers[0], shape, has_bias)
            case BatchNorm():
                arrays |= _norm_arrays(name, found, own.out_channels, biases[found.inputs[0]])
    return with_counters({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})


def with_blobs(layers: Sequence[Layer], spec: ModelSpec, weights: Mapping[str, Tensor]) -> list[Layer]:
    """Return the layers of `deploy` with the weights of our state dict, the first convolution for BGR.

    Raises:
        FormatError: a tensor is missing or is not of the shape that the net has.
    """
    names = parameter_names(spec)
    planned = {layer.name: layer for layer in counts.layers(spec, input_side(spec), input_side(spec))}
    filled: list[Layer] = []
    for layer in layers:
        norm = isinstance(layer.operation, BatchNorm | Scale)
        name = names.get(layer.name.replace("scale", "bn", 1) if norm else layer.name)
        if name is None:
            filled.append(layer)
            continue
        own = planned[name]
        vector = (own.out_channels,)
        match layer.operation:
            case BatchNorm():
                wanted = {"running_mean": vector, "running_var": vector}
            case Scale():
                wanted = {"weight": vector, "bias": vector}
            case Convolution(bias=bias):
                shape = own.out_channels, own.in_channels, own.kernel, own.kernel
                wanted = {"weight": shape, "bias": vector} if bias else {"weight": shape}
            case _:
                wanted = {"weight": (own.out_channels, own.in_channels), "bias": vector}
        blobs = [_our_array(weights, f"{name}.{part}", shape) for part, shape in wanted.items()]
        if isinstance(layer.operation, BatchNorm):
            blobs.append(np.ones(1, np.float32))
        if isinstance(layer.operation, Convolution) and "data" in layer.bottoms:
            blobs[0] = np.ascontiguousarray(_reversed_channels(blobs[0]))
        filled.append(dataclasses.replace(layer, blobs=tuple(blobs)))
    return filled


def _linear_blobs(layer: Layer, shape: tuple[int, ...], has_bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of a convolution or fully-connected layer; zeros for a bias that it does not have."""
    _check_number(layer, 1 + has_bias)
    weight = _array(layer, 0, shape)
    return weight, _array(layer, 1, shape[:1]) if has_bias else np.zeros(shape[0], np.float32)


def _norm_arrays(name: str, node: Node, channels: int, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Return the entries of our state dict for BatchNorm and Scale after a convolution with `bias`."""
    norm, scale = node.layers[0], node.layers[1] if len(node.layers) == 2 else None
    _check_number(norm, 3)
    mean, variance = (_array(norm, index, (channels,)).astype(np.float64) for index in (0, 1))
    factor = float(_array(norm, 2, (1,))[0])
    # Caffe accumulates the statistics and their common divisor; before the first step, all are 0.
    mean, variance = (total / factor if factor else np.zeros(channels) for total in (mean, variance))
    epsilon = norm.operation.epsilon if isinstance(norm.operation, BatchNorm) else BATCH_NORM_EPSILON
    if epsilon != BATCH_NORM_EPSILON:
        variance = variance + (epsilon - BATCH_NORM_EPSILON)
    if (variance < 0).any():
        raise FormatError(f"layer {norm.name!r} has a variance of {variance.min():.3g} with an eps of {epsilon:g}")
    if bias.any():
        mean = mean - bias
    gamma, beta = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if scale is not None:
        gamma, beta = _linear_blobs(scale, (channels,), isinstance(scale.operation, Scale) and scale.operation.bias)
    statistics = {"running_mean": mean, "running_var": variance}
    narrowed = {part: _to_float32(array, norm.name) for part, array in statistics.items()}
    return {f"{name}.{part}": array for part, array in {"weight": gamma, "bias": beta, **narrowed}.items()}


def _array(layer: Layer, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return a blob as a float32 array of this shape, its own copy; leading dimensions of 1 make no difference."""
    blob = layer.blobs[index]
    if _without_leading_ones(blob.shape) != _without_leading_ones(shape):
        raise FormatError(f"layer {layer.name!r} has weights of shape {blob.shape}; they should be {shape}")
    return _to_float32(blob.reshape(shape), layer.name)


def _to_float32(array: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = np.array(array, np.float32)
    if not np.isfinite(narrow).all():
        raise FormatError(f"layer {name!r} has weights that are not finite in float32 (NaN or infinite)")
    return narrow


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((index for index, side in enumerate(shape) if side != 1), len(shape))
    return tuple(shape[first:])


def _check_number(layer: Layer, wanted: int) -> None:
    if len(layer.blobs) != wanted:
        raise FormatError(f"layer {layer.name!r} has {len(layer.blobs)} arrays of weights; it should have {wanted}")


def _reversed_channels(weight: np.ndarray) -> np.ndarray:
    """Return the weights of a convolution whose three input channels come in reverse; others have no such order."""
    return weight[:, ::-1] if weight.shape[1] == 3 else weight


def _our_array(weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in weights or tuple(weights[name].shape) != shape:
        found = f"has shape {tuple(weights[name].shape)}" if name in weights else "is missing"
        raise FormatError(f"{name} {found}; the net has it with shape {shape}")
    return weights[name].detach().to("cpu", torch.float32).contiguous().numpy()
