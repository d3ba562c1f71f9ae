"""From a spec to a module, with weights drawn from a seed."""

from typing import Any

import torch
from torch import nn

from resnets.models.highway import HighwayNet
from resnets.models.resnet import ResNet
from resnets.models.vgg import VGG
from resnets.specs.errors import SpecError
from resnets.specs.model import HighwaySpec, ModelSpec, ResNetSpec, VGGSpec


def build(spec: ModelSpec | Any, *, seed: int | None = None) -> nn.Module:
    """Return the net of `spec` on the default device, with new weights, in training mode.

    A net from outside the package is a dataclass of your own with a method `build() -> nn.Module`. Whatever the
    spec, the module has it as its attribute `spec`.

    Args:
        spec: one of the paper's nets, or an object with a method `build`.
        seed: decides the weights (on the CPU) and leaves the global random state as it was; None draws from that.

    Raises:
        SpecError: the spec is neither.
    """
    if seed is None:
        return _construct(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _construct(spec)


def _construct(spec: ModelSpec | Any) -> nn.Module:
    match spec:
        case ResNetSpec():
            return ResNet(spec)
        case HighwaySpec():
            return HighwayNet(spec)
        case VGGSpec():
            return VGG(spec)
        case _ if callable(getattr(spec, "build", None)) and not isinstance(spec, type):
            return _construct_own(spec)
        case _:
            raise SpecError(
                f"No net can be built from a {type(spec).__name__}. Give a ResNetSpec, HighwaySpec or VGGSpec "
                "(model_spec(name) makes one), or a dataclass of your own with a method build() -> nn.Module."
            )


def _construct_own(spec: Any) -> nn.Module:
    model = spec.build()
    if not isinstance(model, nn.Module):
        raise SpecError(f"{type(spec).__name__}.build() returned a {type(model).__name__}; it returns an nn.Module.")
    model.spec = spec
    return model
