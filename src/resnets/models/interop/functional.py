"""A residual net as a function of named tensors: what a conversion is checked against where its program is absent.

Written apart from our modules, so that a mistake in one of the two shows (He et al. 2015, Sec. 3.2, 3.3 and Fig. 5).
Shapes: n images, c channels, h x w pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from resnets.specs.model import ResNetSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What a program calls its layers; `{stage}` counts from 1, `{block}` from 0, `{layer}` from 1."""

    stem: tuple[str, str]
    """First convolution and its BatchNorm."""
    block: tuple[str, str]
    """Convolution and BatchNorm of a layer in a block."""
    projection: tuple[str, str]
    """Convolution and BatchNorm of a shortcut."""
    head: str
    """Last fully-connected layer."""


TORCHVISION = Names(
    stem=("conv1", "bn1"),
    block=("layer{stage}.{block}.conv{layer}", "layer{stage}.{block}.bn{layer}"),
    projection=("layer{stage}.{block}.downsample.0", "layer{stage}.{block}.downsample.1"),
    head="fc",
)


def residual_net(
    tensors: dict[str, Tensor], names: Names, spec: ResNetSpec, images: Float[Tensor, "n c_in h_in w_in"]
) -> Float[Tensor, "n classes"]:
    """Return the logits of the net that `spec` describes, computed from tensors under a program's own names."""
    x = F.relu(layer(tensors, names.stem, images, stride=2 if spec.stem == "7x7" else 1))
    if spec.stem_pool == "torchvision":
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    elif spec.stem_pool == "official":
        x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
    for stage, blocks in enumerate(spec.blocks, start=1):
        for block in range(blocks):
            place = {"stage": stage, "block": block}
            x = _block(tensors, names, place, spec, x, stride=2 if stage > 1 and block == 0 else 1)
    return F.linear(x.mean(dim=(2, 3)), tensors[f"{names.head}.weight"], tensors[f"{names.head}.bias"])


def layer(
    tensors: dict[str, Tensor], names: tuple[str, str], x: Float[Tensor, "n c_in h_in w_in"], *, stride: int = 1
) -> Float[Tensor, "n c h w"]:
    """Return BatchNorm, with its running statistics, of a convolution that keeps the size at stride 1."""
    convolution, norm = names
    weight = tensors[f"{convolution}.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    mean, variance = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
    return F.batch_norm(x, mean, variance, tensors[f"{norm}.weight"], tensors[f"{norm}.bias"], eps=1e-5)


def _block(
    tensors: dict[str, Tensor], names: Names, place: dict[str, int], spec: ResNetSpec, x: Tensor, *, stride: int
) -> Tensor:
    count = 2 if spec.block == "basic" else 3
    strided = 2 if spec.block == "bottleneck" and spec.stride_on == "3x3" else 1
    out = x
    for number in range(1, count + 1):
        own = _at(names.block, {**place, "layer": number})
        out = layer(tensors, own, out, stride=stride if number == strided else 1)
        out = F.relu(out) if number < count else out
    if spec.shortcut == "none":
        return F.relu(out)
    projection = _at(names.projection, place)
    if f"{projection[0]}.weight" in tensors:
        return F.relu(out + layer(tensors, projection, x, stride=stride))
    return F.relu(out + _zero_padded(x[:, :, ::stride, ::stride], out.shape[1], both=spec.zero_pad == "both"))


def _zero_padded(x: Tensor, channels: int, *, both: bool) -> Tensor:
    before = (channels - x.shape[1]) // 2 if both else 0
    padded = torch.zeros(x.shape[0], channels, *x.shape[2:], dtype=x.dtype)
    padded[:, before : before + x.shape[1]] = x
    return padded


def _at(names: tuple[str, str], place: dict[str, int]) -> tuple[str, str]:
    return names[0].format(**place), names[1].format(**place)
