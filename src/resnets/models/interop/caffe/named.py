"""Nets of which the graph and the weights come from different files, or of which no graph is known at all."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import torch

from resnets.models.interop.caffe.deploy import deploy
from resnets.models.interop.caffe.operations import BatchNorm, Convolution, InnerProduct, Layer, Scale
from resnets.models.interop.caffe.protobuf import FormatError
from resnets.models.interop.foreign import Hints
from resnets.models.interop.shapes import resolve, structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from resnets.specs.model import ResNetSpec

_BRANCH = re.compile(r"res([1-9]\d?)([a-z]\d{0,3})_branch(1|2[abc])")
_HEAD = re.compile(r"fc\d+")


def fill(layers: Sequence[Layer], blobs: Mapping[str, tuple[np.ndarray, ...]]) -> list[Layer]:
    """Return the layers of a graph with the weights that have their names.

    Raises:
        FormatError: a layer has no weights, two layers have the same, or weights have no layer.
    """
    names: set[str] = set()
    for layer in layers:
        if isinstance(layer.operation, Convolution | BatchNorm | Scale | InnerProduct):
            if layer.name not in blobs:
                raise FormatError(f"it has no weights for layer {layer.name!r}")
            if layer.name in names:
                raise FormatError(f"two layers with weights are called {layer.name!r}")
            names.add(layer.name)
    for name in blobs:
        if name not in names:
            raise FormatError(f"it has weights for a layer {name!r}, which is not in the net")
    return [dataclasses.replace(layer, blobs=blobs.get(layer.name, ())) for layer in layers]


def variant(
    blobs: Mapping[str, tuple[np.ndarray, ...]], hints: Hints, source: str
) -> tuple[ResNetSpec | None, ResNetSpec, tuple[str, ...]]:
    """Return the net whose weights have these names, a net of equal names and shapes, and the flags that are missing.

    Names and shapes say neither where the stride is nor how the first pool pads: the first result is None where the
    hints do not say so either.

    Raises:
        FormatError: the names are not those of the authors' models.
        ModelError: the shapes are not those of a residual or plain net, or not of the one that is hinted.
    """
    found = structure(_shapes(blobs), source)
    spec, missing = resolve(found, hints, source, of_caffe=True)
    stand_in = spec or resolve(found, Hints(), source, stem_pool="official", stride_on="1x1")[0]
    if stand_in is None:
        raise FormatError(f"its layers are not connected, so its net has to be named: give {', '.join(missing)}")
    return spec, stand_in, missing


def named_layers(spec: ResNetSpec, blobs: Mapping[str, tuple[np.ndarray, ...]]) -> list[Layer]:
    """Return the layers of `spec` under the authors' names, a convolution having a bias where there are weights for it.

    Raises:
        FormatError: a layer has no weights, or weights have no layer.
    """
    return [
        dataclasses.replace(layer, operation=dataclasses.replace(layer.operation, bias=len(layer.blobs) == 2))
        if isinstance(layer.operation, Convolution)
        else layer
        for layer in fill(deploy(spec), blobs)
    ]


def _shapes(blobs: Mapping[str, tuple[np.ndarray, ...]]) -> dict[str, Tensor]:
    """Return tensors without values that have the shapes of the weights, under our names."""
    places: dict[tuple[int, str], int] = {}
    counted: dict[int, int] = {}
    shapes: dict[str, Tensor] = {}
    for name, arrays in blobs.items():
        if name == "conv1" and arrays[0].ndim == 4:
            shapes["conv1.weight"] = torch.empty(arrays[0].shape, device="meta")
        elif match := _BRANCH.fullmatch(name):
            stage = int(match[1]) - 1
            if (stage, match[2]) not in places:
                places[stage, match[2]] = counted.get(stage, 0)
                counted[stage] = counted.get(stage, 0) + 1
            part = "downsample.0" if match[3] == "1" else f"conv{'abc'.index(match[3][1]) + 1}"
            key = f"layer{stage}.{places[stage, match[2]]}.{part}.weight"
            shapes[key] = torch.empty(arrays[0].shape, device="meta")
        elif _HEAD.fullmatch(name):
            shapes["fc.weight"] = torch.empty(arrays[0].reshape(arrays[0].shape[-2:]).shape, device="meta")
    if "conv1.weight" not in shapes or "fc.weight" not in shapes:
        some = ", ".join(list(blobs)[:3]) or "none"
        raise FormatError(
            "it says nothing about how its layers are connected, and they are not named as the authors' are (conv1, "
            f"res2a_branch2a, …, fc1000), but {some}; put the .prototxt beside it under the same name"
        )
    return shapes
