"""From a spec to a network."""

from typing import Any

import torch
from torch import nn

from resnets.models.init import initialize
from resnets.models.resnet import ResNet
from resnets.models.vgg import VGG
from resnets.specs.errors import SpecError
from resnets.specs.model import HighwaySpec, ResNetSpec, VGGSpec


def build(spec: Any, *, seed: int | None = None) -> nn.Module:
    """Return the net of `spec` with new weights.

    Args:
        spec: a `ModelSpec`, or a spec of your own: a dataclass whose method `build()` returns the module, with
            `initialize` applied to what it returns.
        seed: of the weights; None draws from torch's global generator.

    Raises:
        SpecError: `spec` is neither.
    """
    match spec:
        case ResNetSpec() | HighwaySpec():
            model: nn.Module = ResNet(spec)
        case VGGSpec():
            model = VGG(spec)
        case _ if callable(getattr(spec, "build", None)):
            model = spec.build()
        case _:
            raise SpecError(
                f"{type(spec).__name__} is no model spec; it is one of resnets.specs.model, or has a method build()."
            )
    initialize(model, None if seed is None else torch.Generator().manual_seed(seed))
    return model
