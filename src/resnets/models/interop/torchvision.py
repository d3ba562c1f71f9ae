"""torchvision's ResNets and VGG nets: a state dict without a word about its variant, classes or preprocessing."""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from resnets.models.interop.files import load_tensors, save_tensors, with_counters
from resnets.models.interop.foreign import Foreign
from resnets.models.interop.functional import TORCHVISION, residual_net
from resnets.models.interop.shapes import declared_with, resolve, structure
from resnets.specs.catalogue import IMAGENET_STAGES, VGG_STAGES, model_name, model_spec
from resnets.specs.errors import ModelError
from resnets.specs.model import ResNetSpec, VGGSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from resnets.models.interop.foreign import Hints
    from resnets.specs.model import ModelSpec

SUFFIXES = (".pth", ".pt", ".safetensors")
WIDTHS = (64, 128, 256, 512)


def read(path: Path, hints: Hints) -> Foreign:
    """Return the net of a state dict with torchvision's names.

    Such files also hold nets that torchvision does not have, such as converted models of the authors. So the names
    prove nothing, and the variant is known only where `hints.format` or `hints.model` states it.

    Raises:
        ModelError: the file is damaged, or of another net than the hints say.
    """
    weights = with_counters(load_tensors(path, hints.entry))
    if "features.0.weight" in weights:
        spec, missing, declared = _vgg(weights, hints, str(path)), (), ()
    else:
        found, own = structure(weights, str(path)), hints.format == "torchvision"
        spec, missing = resolve(
            found,
            hints,
            str(path),
            stem_pool="torchvision" if own else None,
            stride_on="3x3" if own else None,
        )
        declared = () if spec is None else declared_with(found, hints, str(path))
    return Foreign(
        format="torchvision",
        source=str(path),
        weights=weights,
        spec=spec,
        missing=missing,
        declared_with=declared,
        reference=None if spec is None else reference(weights, spec),
    )


def write(path: Path, net: Foreign) -> None:
    """Write the state dict: with torch.save, or as safetensors where the path ends so.

    Raises:
        ModelError: torchvision has no such net.
        OSError: the file cannot be written.
    """
    assert net.spec is not None
    reason = obstacle(net.spec)
    if reason:
        raise ModelError(f"torchvision cannot express {model_name(net.spec)}: {reason}.")
    save(path, dict(net.weights))


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors in the format that the path's ending says, as a plain state dict.

    Raises:
        OSError: the file cannot be written.
    """
    if path.suffix == ".safetensors":
        save_tensors(tensors, path)
    else:
        buffer = io.BytesIO()  # torch hides why a file cannot be written: a full disk is a RuntimeError of its archive
        torch.save(OrderedDict((name, value.clone()) for name, value in tensors.items()), buffer)
        path.write_bytes(buffer.getbuffer())


def obstacle(spec: ModelSpec | Any) -> str | None:
    """Return why torchvision has no net that computes what `spec` says, or None where it has one."""
    if isinstance(spec, VGGSpec):
        own = spec.convs in VGG_STAGES.values() and spec.widths == (64, 128, 256, 512, 512) and spec.hidden == 4096
        return None if own and spec.in_channels == 3 else "its VGG nets have the published sizes"
    if not isinstance(spec, ResNetSpec):
        return "it has residual and VGG nets only"
    return ("its nets have a 7x7 stem" if spec.stem != "7x7" else None) or residual_obstacle(spec)


def residual_obstacle(spec: ResNetSpec) -> str | None:
    """Return why torchvision's class ResNet cannot be this net with a 7x7 stem, or None."""
    if spec.shortcut != "B":
        kind = "plain nets" if spec.shortcut == "none" else f"option {spec.shortcut}"
        return f"it has no {kind}, only projections where dimensions change (option B)"
    if spec.stem_pool != "torchvision":
        bottleneck = spec.block == "bottleneck" and spec.stride_on != "3x3"
        return pooling_obstacle("--model.stride-on 3x3" if bottleneck else "")
    if spec.block == "bottleneck" and spec.stride_on != "3x3":
        return (
            "it has the stride on the 3x3 (v1.5), and this net on the first 1x1 (v1); train with --model.stride-on 3x3 "
            "to have a net that it can express"
        )
    if spec.widths != WIDTHS:
        return f"its stages have {'/'.join(map(str, WIDTHS))} filters, and this net's {'/'.join(map(str, spec.widths))}"
    return None if spec.in_channels == 3 else f"it takes images of 3 channels, and this net of {spec.in_channels}"


def pooling_obstacle(other_flags: str = "") -> str:
    """Return why a program that pools as torchvision does lacks a net with the authors' pooling, and what to do.

    Args:
        other_flags: what else such a net has to be trained with.
    """
    flags = f"--model.stem-pool torchvision{' and ' if other_flags else ''}{other_flags}"
    return (
        "it pads the pooling after conv1 by one pixel, and this net does not; train with "
        f"{flags} to have a net that it can express"
    )


def reference(tensors: Mapping[str, Tensor], spec: ModelSpec) -> Callable[[Tensor], Tensor]:
    """Return torchvision's own net with these tensors; a functional one for a variant that torchvision lacks."""
    if obstacle(spec) is not None:
        assert isinstance(spec, ResNetSpec)
        return lambda images: residual_net(dict(tensors), TORCHVISION, spec, images)
    built: list[nn.Module] = []

    def forward(images: Tensor) -> Tensor:
        if not built:
            built.append(_theirs(spec))
            try:
                built[0].load_state_dict(tensors, strict=True, assign=True)
            except RuntimeError as error:
                raise ModelError(f"torchvision does not take the weights as {model_name(spec)}: {error}") from error
        return built[0](images)

    return forward


def _theirs(spec: ModelSpec) -> nn.Module:
    from torchvision.models import get_model
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    with torch.device("meta"):
        if isinstance(spec, VGGSpec):
            depth = next(depth for depth, convs in VGG_STAGES.items() if convs == spec.convs)
            return get_model(f"vgg{depth}", num_classes=spec.num_classes).eval()
        assert isinstance(spec, ResNetSpec)
        depth = next((depth for depth, own in IMAGENET_STAGES.items() if own == (spec.block, spec.blocks)), None)
        if depth is not None:
            return get_model(f"resnet{depth}", num_classes=spec.num_classes).eval()
        block = BasicBlock if spec.block == "basic" else Bottleneck
        return ResNet(block, list(spec.blocks), num_classes=spec.num_classes).eval()


def _vgg(weights: Mapping[str, Tensor], hints: Hints, source: str) -> VGGSpec:
    found = {int(match[1]) for name in weights if (match := re.fullmatch(r"features\.(\d{1,3})\.weight", name))}
    head = weights.get("classifier.6.weight")
    for depth, convs in VGG_STAGES.items():
        places, place = set(), 0
        for count in convs:
            places |= {place + 2 * index for index in range(count)}
            place += 2 * count + 1  # a convolution and a ReLU each, and the pool
        if places == found and head is not None and head.ndim == 2:
            spec = model_spec(f"vgg{depth}", num_classes=head.shape[0])
            given = hints.model
            if given not in (None, f"vgg{depth}") and not (isinstance(given, VGGSpec) and given.convs == convs):
                raise ModelError(
                    f"{source} is vgg{depth}, not {given if isinstance(given, str) else model_name(given)}."
                )
            assert isinstance(spec, VGGSpec)
            return spec
    raise ModelError(f"{source} has features.0 and so on, but is neither VGG-16 nor VGG-19 without BatchNorm.")
