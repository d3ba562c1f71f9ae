"""CIFAR checkpoints of common training programs: our nets' shapes under slightly other names.

The last layer is `fc` or `linear`; a projection is `downsample` or `shortcut`; option A has no names at all, and puts
half of its zero channels on each side (He et al. 2015, Sec. 4.2 and 3.3).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from resnets.models.interop.files import load_tensors, with_counters
from resnets.models.interop.foreign import Foreign
from resnets.models.interop.functional import TORCHVISION, Names, residual_net
from resnets.models.interop.shapes import declared_with, resolve, structure
from resnets.models.interop.torchvision import save
from resnets.specs.catalogue import model_name
from resnets.specs.errors import ModelError
from resnets.specs.model import ResNetSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from resnets.models.interop.foreign import Hints
    from resnets.specs.model import ModelSpec

SUFFIXES = (".pth", ".pt", ".safetensors")
_SHORTCUT = ("layer{stage}.{block}.shortcut.0", "layer{stage}.{block}.shortcut.1")


def read(path: Path, hints: Hints) -> Foreign:
    """Return the net of a checkpoint of any dialect; nets of option B and C need no hint.

    Raises:
        ModelError: the file is damaged, or not of a residual or plain net with a 3x3 stem.
    """
    tensors = load_tensors(path, hints.entry)
    weights = {_our_name(name): value for name, value in tensors.items()}
    if len(weights) < len(tensors):
        raise ModelError(f"{path} has a layer twice, under `fc` and `linear` or under `downsample` and `shortcut`.")
    weights = with_counters(weights)
    found = structure(weights, str(path))
    if found.stem != "3x3":
        raise ModelError(f"{path} has a 7x7 stem, so it is no CIFAR net; leave out --from cifar.")
    spec, missing = resolve(found, hints, str(path), stem_pool="none")
    return Foreign(
        format="cifar",
        source=str(path),
        weights=weights,
        spec=spec,
        missing=missing,
        declared_with=() if spec is None else declared_with(found, hints, str(path)),
        reference=None if spec is None else lambda images: residual_net(tensors, _names(tensors), spec, images),
    )


def write(path: Path, net: Foreign) -> None:
    """Write a plain state dict with the names `linear` and `shortcut`.

    Raises:
        ModelError: those programs have no such net.
        OSError: the file cannot be written.
    """
    assert net.spec is not None
    reason = obstacle(net.spec)
    if reason:
        raise ModelError(f"The common CIFAR programs cannot express {model_name(net.spec)}: {reason}.")
    save(path, {_their_name(name): value for name, value in net.weights.items()})


def obstacle(spec: ModelSpec | Any) -> str | None:
    """Return why the common CIFAR programs have no net that computes what `spec` says, or None where they have."""
    if not isinstance(spec, ResNetSpec) or spec.shortcut == "none":
        return "they have residual nets only"
    if spec.stem != "3x3":
        return "their nets have a 3x3 stem"
    if spec.shortcut == "C":
        return "they have no option C, only options A and B"
    if spec.shortcut == "A" and spec.zero_pad != "both":
        return "they put half of option A's zero channels on each side, and this net all at the end"
    if spec.shortcut == "A" and spec.block == "bottleneck":
        return "they have option A in basic blocks only"
    if spec.block == "bottleneck" and spec.stride_on != "3x3":
        return "they have the stride on the 3x3 (v1.5), and this net on the first 1x1 (v1)"
    return None if spec.in_channels == 3 else f"they take images of 3 channels, and this net of {spec.in_channels}"


def _our_name(name: str) -> str:
    return re.sub(r"^linear\.", "fc.", name).replace(".shortcut.", ".downsample.")


def _their_name(name: str) -> str:
    return re.sub(r"^fc\.", "linear.", name).replace(".downsample.", ".shortcut.")


def _names(tensors: dict[str, Tensor]) -> Names:
    shortcut = any(".shortcut." in name for name in tensors)
    return Names(
        stem=TORCHVISION.stem,
        block=TORCHVISION.block,
        projection=_SHORTCUT if shortcut else TORCHVISION.projection,
        head="linear" if "linear.weight" in tensors else "fc",
    )
