"""What a file or folder of another program says about a net, brought into our names and channel order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from jaxtyping import Float32
    from torch import Tensor

    from resnets.specs.model import ModelSpec, ZeroPad
    from resnets.specs.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True, slots=True)
class Hints:
    """What the person who converts says about a net; None where nothing is said."""

    format: str | None = None
    """torchvision, timm, huggingface, caffe or cifar; None finds out from the files."""
    entry: str | None = None
    """Which state dict of a checkpoint that holds several, such as `state_dict_ema`."""
    model: str | ModelSpec | None = None
    """The exact variant: a name of the catalogue, or a spec. The number of classes is the file's."""
    zero_pad: ZeroPad | None = None
    """Where option A puts the zero channels; part of `model` where that is a spec."""
    mean: tuple[float, ...] | None = None
    """Mean a channel, red, green, blue, for pixels in 0..255."""
    std: tuple[float, ...] | None = None
    """Divisor a channel, red, green, blue, for pixels in 0..255."""
    mean_image: Float32[np.ndarray, "h w c"] | None = None
    """Mean image, red, green, blue, for pixels in 0..255."""
    resize_px: int | None = None
    """Shorter side before the crop."""
    crop_px: int | None = None
    """Side of the centre crop."""
    color: Literal["rgb", "bgr"] | None = None
    """Channel order that the net expects; None is the order of its format."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of the logits."""
    licence: str | None = None
    """Terms of the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """A foreign net; None stands for what its files do not say, which then has to be given, never guessed."""

    format: str
    """torchvision, timm, huggingface, caffe or cifar."""
    source: str
    """Path, for messages."""
    weights: Mapping[str, Tensor]
    """Our state dict: torchvision's keys, float32, conv1 for RGB."""
    spec: ModelSpec | None = None
    """The exact variant."""
    missing: tuple[str, ...] = ()
    """What has to be given before `spec` is known: command-line flags with the values that fit."""
    declared_with: tuple[str, ...] = ()
    """Flags with which the person stated what the files do not tell about `spec`; empty where they tell all."""
    preprocess: Preprocess | None = None
    """Resize, crop and normalisation."""
    mean_image: Float32[np.ndarray, "h w c"] | None = None
    """Exactly where `preprocess` says so."""
    mean_files: tuple[str, ...] = ()
    """Mean images that lie beside the weights where `preprocess` is not known: perhaps this net's, to be named."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of the logits."""
    licence: str = ""
    """Terms of the weights, where they are stated."""
    reference: Callable[[Tensor], Tensor] | None = None
    """The source's own forward pass, which uses neither our modules nor `weights`: from normalised float32 images in
    RGB (n, 3, h, w) to logits (n, classes). None where the variant has to be known first."""
