"""The norms of gradients, layer by layer: whether they vanish on the way back through a net.

With BatchNorm, plain nets degrade although their gradients do not vanish: "we also verify that the backward propagated
gradients exhibit healthy norms" (He et al. 2015, Sec. 4.1). The gradient that is passed back is the one with respect
to a layer's response, its output after BatchNorm: before it, norms would depend on the scale of the weights, which
BatchNorm undoes. That of the weights is what the optimiser sees.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from resnets.analysis.layers import watched
from resnets.specs.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int64
    from torch import Tensor

    from resnets.analysis.layers import Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerGradient:
    """The gradient of the mean cross entropy of a batch in one convolution; norms are Euclidean."""

    name: str
    """Of the convolution: `layer1.0.conv2`."""
    output_norm: float
    """Of the gradient with respect to its output, after BatchNorm where one follows, over all images, channels and
    pixels of the batch."""
    weight_gradient_norm: float
    weight_norm: float
    """Of its weights themselves."""

    @property
    def relative(self) -> float:
        """Norm of the weights' gradient as a share of the norm of the weights."""
        if self.weight_norm == 0:
            return 0.0 if self.weight_gradient_norm == 0 else math.inf
        return self.weight_gradient_norm / self.weight_norm


def gradient_norms(
    model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]
) -> list[LayerGradient]:
    """Return the gradient norms of every convolution for one batch, in the order of the forward pass.

    As in a step of training: BatchNorm normalises with the batch. The model stays as it is, its statistics and
    gradients included. Dropout is off, so that two calls agree.

    Args:
        model: any net with convolutions.
        images: normalised, on the model's device; two or more.
        labels: of the images.

    Raises:
        DataError: there are less than two images, or not as many labels.
        ModelError: the net has no convolution.
    """
    if len(images) < 2 or len(labels) != len(images):
        raise DataError(
            f"There are {len(images)} images and {len(labels)} labels; gradients need two images or more, one label each."
        )
    model = copy.deepcopy(model).train().requires_grad_()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if not convolutions:
        raise ModelError(
            f"{type(model).__name__} has no convolution: there is no layer whose gradient could be measured."
        )
    outputs: dict[str, Tensor] = {}
    responses: dict[str, Tensor] = {}

    def after_convolution(name: str, module: Any, inputs: Any, output: Any) -> None:
        outputs[name] = _sum_of_squares(output)

    def after_norm(layer: Layer, norm: nn.BatchNorm2d, output: Tensor) -> None:
        responses[layer.convolution] = _sum_of_squares(output)

    for name, module in convolutions.items():
        module.register_forward_hook(functools.partial(after_convolution, name))
    with torch.enable_grad():
        with watched(model, after_norm, shortcuts=True):
            loss = F.cross_entropy(model(images).float(), labels)
        weights = [convolutions[name].weight for name in outputs]
        gradients = torch.autograd.grad(loss, weights)
    squares = outputs | responses
    return [
        LayerGradient(
            name=name,
            output_norm=math.sqrt(float(squares[name])),
            weight_gradient_norm=float(gradient.float().norm()),
            weight_norm=float(weight.detach().float().norm()),
        )
        for name, gradient, weight in zip(squares, gradients, weights, strict=True)
    ]


def _sum_of_squares(output: Tensor) -> Tensor:
    """Return what holds the sum of squares of the gradient with respect to `output` after the backward pass.

    The net may go on to work on `output` in place: the gradient is that of its values now.
    """
    total = torch.zeros((), device=output.device)

    def add(gradient: Tensor) -> None:
        total.add_(gradient.float().square().sum())

    output.register_hook(add)
    return total


def first_to_last(layers: Sequence[LayerGradient]) -> float:
    """Return the output norm of the first layer as a multiple of that of the last.

    Far below 1 where gradients vanish on their way back, far above 1 where they explode; of new plain nets with
    BatchNorm they grow.
    """
    first, last = layers[0].output_norm, layers[-1].output_norm
    if last == 0:
        return 1.0 if first == 0 else math.inf
    return first / last
