"""A Caffe net run layer by layer on its own weights: the proof of a conversion where Caffe is not installed.

Nothing of our nets is used here: layers find their inputs by name, work in place where the file says so, take
statistics and factor of BatchNorm as they are stored, and pool with Caffe's rounding and clipping of windows.
Shapes: n images, c channels, h x w pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from resnets.models.interop.caffe.operations import (
    Addition,
    BatchNorm,
    Convolution,
    Copy,
    Ending,
    InnerProduct,
    Input,
    Layer,
    Pooling,
    ReLU,
    Scale,
)
from resnets.specs.errors import ModelError


class CaffeNet:
    """A net of Caffe layers with their weights, which takes RGB images and gives logits."""

    def __init__(self, layers: Sequence[Layer], source: str, *, bgr: bool = True) -> None:
        """Keep the layers; `source` names the file in messages, `bgr` says which channel order it expects."""
        self._layers = [layer for layer in layers if not isinstance(layer.operation, Ending)]
        self._source = source
        self._bgr = bgr
        self._logits = next(
            layer.tops[0] for layer in reversed(self._layers) if isinstance(layer.operation, InnerProduct)
        )

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the logits of normalised RGB images, computed in their precision.

        Raises:
            ModelError: a layer cannot take images of this size.
        """
        if self._bgr and images.shape[1] == 3:
            images = images.flip(1)
        last_use = {bottom: index for index, layer in enumerate(self._layers) for bottom in layer.bottoms}
        tops: dict[str, Tensor] = {}
        for index, layer in enumerate(self._layers):
            if isinstance(layer.operation, Input):
                tops.update(dict.fromkeys(layer.tops, images))
                continue
            try:
                output = _run(layer, [tops[bottom] for bottom in layer.bottoms])
            except RuntimeError as error:
                raise ModelError(
                    f"{self._source}: layer {layer.name!r} cannot take images of {images.shape[2]} x {images.shape[3]} "
                    f"pixels ({str(error).splitlines()[0]})."
                ) from error
            tops.update(dict.fromkeys(layer.tops, output))
            for bottom in layer.bottoms:
                if last_use[bottom] == index and bottom not in layer.tops and bottom != self._logits:
                    tops.pop(bottom, None)
        return tops[self._logits]


def _run(layer: Layer, inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    blobs = [torch.from_numpy(np.array(blob, order="C")).to(x) for blob in layer.blobs]
    match layer.operation:
        case Convolution() as settings:
            bias = blobs[1].flatten() if settings.bias else None
            weight = blobs[0].reshape(settings.outputs, -1, settings.kernel, settings.kernel)
            window = settings.stride, settings.pad, settings.dilation, settings.groups
            return F.conv2d(x, weight, bias, *window)
        case BatchNorm(epsilon):
            factor = blobs[2].item()
            mean, variance = (total.reshape(1, -1, 1, 1) * (1 / factor if factor else 0) for total in blobs[:2])
            return (x - mean) / torch.sqrt(variance + epsilon)
        case Scale(bias):
            scaled = x * blobs[0].reshape(1, -1, 1, 1)
            return scaled + blobs[1].reshape(1, -1, 1, 1) if bias else scaled
        case ReLU():
            return x.clamp(min=0)
        case Pooling() as settings:
            return _pool(x, settings)
        case Addition():
            return inputs[0] + inputs[1]
        case InnerProduct(outputs, bias):
            product = x.flatten(1) @ blobs[0].reshape(outputs, -1).T
            return product + blobs[1].flatten() if bias else product
        case Copy("Flatten"):
            return x.flatten(1)
        case _:
            return x


def _pool(x: Float[Tensor, "n c h_in w_in"], settings: Pooling) -> Float[Tensor, "n c h w"]:
    """Return the pooled map: every window written out in a padded map, so that torch rounds nothing."""
    if settings.whole_map:
        return x.amax((2, 3), keepdim=True) if settings.kind == "max" else x.mean((2, 3), keepdim=True)
    sizes = [_pooled_size(side, settings) for side in x.shape[2:]]
    missing = [
        (size - 1) * settings.stride + settings.kernel - side - settings.pad
        for side, size in zip(x.shape[2:], sizes, strict=True)
    ]
    maximum = settings.kind == "max"
    padding = settings.pad, missing[1], settings.pad, missing[0]
    padded = F.pad(x, padding, value=-torch.inf if maximum else 0.0)
    if maximum:
        return F.max_pool2d(padded, settings.kernel, settings.stride)
    totals = F.avg_pool2d(padded, settings.kernel, settings.stride, divisor_override=1)
    heights, widths = (_extents(side, size, settings).to(x) for side, size in zip(x.shape[2:], sizes, strict=True))
    return totals / (heights[:, None] * widths)


def _pooled_size(side: int, settings: Pooling) -> int:
    """Return the side of the output: rounded up, less a last window that would begin in the padding."""
    free = side + 2 * settings.pad - settings.kernel
    size = (free if settings.floor else free + settings.stride - 1) // settings.stride + 1
    if settings.pad and (size - 1) * settings.stride >= side + settings.pad:
        size -= 1
    return size


def _extents(side: int, size: int, settings: Pooling) -> Tensor:
    """Return the pixels of every window along one side: padding counts in an average, what lies beyond does not."""
    starts = torch.arange(size) * settings.stride - settings.pad
    return (starts + settings.kernel).clamp(max=side + settings.pad) - starts
