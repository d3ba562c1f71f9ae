"""What a file or folder of another program says about a net, brought into our names and channel order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from jaxtyping import Float32
    from torch import Tensor

    from resnets.specs.model import ModelSpec
    from resnets.specs.preprocess import Preprocess


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
    preprocess: Preprocess | None = None
    """Resize, crop and normalisation."""
    mean_image: Float32[np.ndarray, "h w c"] | None = None
    """Exactly where `preprocess` says so."""
    classes: tuple[str, ...] | None = None
    """Class names in the order of the logits."""
    licence: str = ""
    """Terms of the weights, where they are stated."""
    reference: Callable[[Tensor], Tensor] | None = None
    """The source's own forward pass, which uses neither our modules nor `weights`: from normalised float32 images in
    RGB (n, 3, h, w) to logits (n, classes). None where the variant has to be known first."""
