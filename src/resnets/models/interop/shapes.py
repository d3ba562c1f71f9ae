"""Which net a state dict fits: what its shapes say, and what they cannot say and somebody has to.

Names and shapes tell blocks, widths, classes and projections. They are the same for stride on the 1x1 or the 3x3
(v1, v1.5), for both forms of the pool after conv1, for option A with its zeros on either side, and for a net with
option A and its plain counterpart (He et al. 2015, Sec. 3.3 and 4.1).
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from resnets.models.interop.foreign import Hints
from resnets.specs.catalogue import model_name, model_spec, names
from resnets.specs.errors import ModelError, SpecError
from resnets.specs.model import ResNetSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from resnets.specs.model import ModelSpec, Shortcut, StemPool

_BLOCK = re.compile(r"layer(\d{1,4})\.(\d{1,4})\.(conv1|conv2|conv3|downsample\.0)\.weight")
_EXPLAINED = {
    "conv1.0.weight": "a stem of several convolutions (ResNet-C, -D and later), which none of the paper's nets has",
    "layer1.0.se.fc1.weight": "squeeze-and-excitation, which none of the paper's nets has",
    "layer1.0.gate.weight": "gates, as a highway net has",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """What the shapes of a residual or plain net say."""

    block: Literal["basic", "bottleneck"]
    """Basic with two, bottleneck with three convolutions a block."""
    blocks: tuple[int, ...]
    """Number of blocks in each stage."""
    widths: tuple[int, ...]
    """Filters of the 3x3 convolutions in each stage."""
    stem: Literal["7x7", "3x3"]
    """Size of the first convolution."""
    projections: frozenset[tuple[int, int]]
    """Blocks with a projection: stage and block, both from 0."""
    num_classes: int
    """Outputs of the last fully-connected layer."""
    in_channels: int
    """Channels of the input images."""


def structure(weights: Mapping[str, Tensor], source: str) -> Structure:
    """Return what the shapes of a state dict with torchvision's keys say.

    Raises:
        ModelError: they are not those of a residual or plain net of the paper's kind.
    """
    for name, meaning in _EXPLAINED.items():
        if name in weights:
            raise ModelError(f"{source} has {meaning}.")
    stem, head = _shape(weights, "conv1.weight", 4, source), _shape(weights, "fc.weight", 2, source)
    if stem[2:] not in ((7, 7), (3, 3)):
        raise ModelError(f"{source}: conv1 is {stem[2]}x{stem[3]}; the paper's nets have 7x7 or 3x3.")
    found: dict[tuple[int, int], set[str]] = {}
    for name in weights:
        if match := _BLOCK.fullmatch(name):
            found.setdefault((int(match[1]) - 1, int(match[2])), set()).add(match[3])
    stages = max((stage for stage, _ in found), default=-1) + 1
    blocks = tuple(sum(stage == index for stage, _ in found) for index in range(stages))
    if not blocks or set(found) != {(stage, index) for stage, count in enumerate(blocks) for index in range(count)}:
        raise ModelError(f"{source}: the blocks of layer1, layer2, … are not numbered 0, 1, … without a gap.")
    bottlenecks = {"conv3" in layers for layers in found.values()}
    if len(bottlenecks) > 1:
        raise ModelError(f"{source} mixes basic and bottleneck blocks; a net of the paper has one kind.")
    return Structure(
        block="bottleneck" if bottlenecks.pop() else "basic",
        blocks=blocks,
        widths=tuple(_shape(weights, f"layer{stage + 1}.0.conv2.weight", 4, source)[0] for stage in range(stages)),
        stem="7x7" if stem[2] == 7 else "3x3",
        projections=frozenset(block for block, layers in found.items() if "downsample.0" in layers),
        num_classes=head[0],
        in_channels=stem[1],
    )


def resolve(
    found: Structure,
    hints: Hints,
    source: str,
    *,
    stem_pool: StemPool | None = None,
    stride_on: Literal["1x1", "3x3"] | None = None,
    of_caffe: bool = False,
) -> tuple[ResNetSpec | None, tuple[str, ...]]:
    """Return the variant, or None and the flags that have to be given for it to be known.

    Args:
        found: what the shapes say.
        hints: what the person says.
        source: for messages.
        stem_pool: pool after conv1 where the format decides it.
        stride_on: place of the stride where the format decides it.
        of_caffe: the files are of Caffe, the authors' program, and so of their nets rather than of torchvision's.

    Raises:
        ModelError: the hinted model does not fit, or nothing in the paper's family does.
        SpecError: there is no model of the hinted name, or a zero padding is given for a net without option A.
    """
    if hints.model is not None:
        spec = _hinted(hints.model, found, source)
        _check_fit(spec, found, source, stem_pool, stride_on)
        return _with_zero_pad(spec, hints)
    shortcut: Shortcut | None = None
    if found.projections:
        options: tuple[Shortcut, ...] = ("B", "C")
        shortcut = next((option for option in options if _projections(found, option) == found.projections), None)
        if shortcut is None:
            raise ModelError(
                f"{source} has projections in some blocks and not in others, as neither option B (where dimensions "
                "change) nor option C (everywhere) has them."
            )
    stem_pool = stem_pool if found.stem == "7x7" else "none"
    stride_on = stride_on if found.block == "bottleneck" else "3x3" if stem_pool == "torchvision" else "1x1"
    if shortcut is None or stem_pool is None or stride_on is None:
        return None, (_ask_for_model(found, stem_pool, stride_on, of_caffe=of_caffe),)
    if hints.zero_pad is not None:
        raise SpecError(f"--zero-pad is given, and {source} has projections; only option A pads with zeros.")
    return _spec(found, shortcut, stem_pool, stride_on), ()


def declared_with(found: Structure, hints: Hints, source: str) -> tuple[str, ...]:
    """Return the flags that state what the shapes do not tell about a net whose variant is known.

    Args:
        found: what the shapes say.
        hints: what the person says, with which `resolve` finds the variant.
        source: for messages.
    """
    if resolve(found, Hints(), source)[0] is not None:
        return ()
    given = {
        f"--from {hints.format}": hints.format in ("torchvision", "timm"),
        "--model": hints.model is not None,
        "--zero-pad": hints.zero_pad is not None,
    }
    return tuple(flag for flag, is_given in given.items() if is_given)


def _spec(found: Structure, shortcut: Shortcut, stem_pool: StemPool, stride_on: Literal["1x1", "3x3"]) -> ResNetSpec:
    return ResNetSpec(
        block=found.block,
        blocks=found.blocks,
        widths=found.widths,
        stem=found.stem,
        stem_pool=stem_pool,
        shortcut=shortcut,
        stride_on=stride_on,
        num_classes=found.num_classes,
        in_channels=found.in_channels,
    )


def _hinted(model: str | ModelSpec, found: Structure, source: str) -> ResNetSpec:
    spec = model_spec(model) if isinstance(model, str) else model
    if not isinstance(spec, ResNetSpec):
        raise ModelError(f"{source} is a residual or plain net, not {model_name(spec)}.")
    return dataclasses.replace(spec, num_classes=found.num_classes, in_channels=found.in_channels)


def _with_zero_pad(spec: ResNetSpec, hints: Hints) -> tuple[ResNetSpec | None, tuple[str, ...]]:
    if spec.shortcut != "A":
        if hints.zero_pad is not None:
            raise SpecError(
                f"--zero-pad is given, and {model_name(spec)} has no option A, which alone pads with zeros."
            )
        return spec, ()
    if hints.zero_pad is not None:
        return dataclasses.replace(spec, zero_pad=hints.zero_pad), ()
    if isinstance(hints.model, str):
        return None, ("--zero-pad end|both (where option A puts its zero channels: half on each side is both)",)
    return spec, ()


def _check_fit(
    spec: ResNetSpec,
    found: Structure,
    source: str,
    stem_pool: StemPool | None,
    stride_on: Literal["1x1", "3x3"] | None,
) -> None:
    pairs = {
        "block": (spec.block, found.block),
        "blocks": (spec.blocks, found.blocks),
        "widths": (spec.widths, found.widths),
        "stem": (spec.stem, found.stem),
        "stem_pool": (spec.stem_pool, stem_pool if found.stem == "7x7" else None),
        "stride_on": (spec.stride_on, stride_on if found.block == "bottleneck" else None),
    }
    wrong = [f"{name} {theirs}, not {ours}" for name, (ours, theirs) in pairs.items() if theirs not in (None, ours)]
    if not wrong and _projections(found, spec.shortcut) != found.projections:
        wrong = [f"{len(found.projections)} projections, not {len(_projections(found, spec.shortcut))}"]
    if wrong:
        raise ModelError(f"{source} is not {model_name(spec)}: it has {'; '.join(wrong)}.")


def _projections(found: Structure, shortcut: Shortcut) -> frozenset[tuple[int, int]]:
    """Return the blocks that have a projection under an option: those that change dimensions, all, or none."""
    everywhere = {(stage, index) for stage, count in enumerate(found.blocks) for index in range(count)}
    match shortcut:
        case "C":
            return frozenset(everywhere)
        case "B":
            first = () if found.block == "basic" else ((0, 0),)
            return frozenset({*first, *((stage, 0) for stage in range(1, len(found.blocks)))})
        case _:
            return frozenset()


def _ask_for_model(found: Structure, stem_pool: StemPool | None, stride_on: str | None, *, of_caffe: bool) -> str:
    depth = 2 + sum(found.blocks) * (2 if found.block == "basic" else 3)
    cifar = [f"cifar-resnet{depth}", f"cifar-resnet{depth}-b", f"cifar-resnet{depth}-c", f"cifar-plain{depth}"]
    options = [f"resnet{depth}-{option}{version}" for option in "ac" for version in ("", "-v1.5")]
    fitting: dict[str, ResNetSpec] = {}
    for name in dict.fromkeys([*names(), *options, *cifar]):
        try:
            spec = _hinted(name, found, "")
            _check_fit(spec, found, "", stem_pool, stride_on)  # pyright: ignore[reportArgumentType]
        except (ModelError, SpecError):
            continue
        fitting[name] = spec
    if not fitting:
        widths = "/".join(map(str, found.widths))
        return (
            f"--model SPEC.json (no net of the catalogue has {found.block} blocks {found.blocks} of widths {widths} and "
            f"a {found.stem} stem; `resnets.specs.model.ResNetSpec` describes any)"
        )
    usual = "official" if of_caffe else "torchvision"
    by_use = sorted(fitting.items(), key=lambda item: item[1].stem_pool != usual)
    return f"--model NAME ({'; '.join(f'{name}: {_told_apart(spec, of_caffe=of_caffe)}' for name, spec in by_use)})"


def _told_apart(spec: ResNetSpec, *, of_caffe: bool) -> str:
    """Return what tells a net from the others whose weights have the same shapes."""
    stride = " and stride" if spec.block == "bottleneck" else ""
    pool = ""
    if spec.stem == "7x7":
        pool = f"torchvision's pooling{stride}" if spec.stem_pool == "torchvision" else f"the authors' pooling{stride}"
    match spec.shortcut:
        case "A":
            shortcut = "identity shortcuts padded with zeros (give --zero-pad end|both too)"
        case "none":
            shortcut = "no shortcuts"
        case "B" if spec.stem_pool == "torchvision" and not of_caffe:
            return "files of torchvision and timm, which --from torchvision says as well"
        case _:
            shortcut = ""
    return ", ".join(part for part in (shortcut, pool) if part)


def _shape(weights: Mapping[str, Tensor], name: str, ndim: int, source: str) -> tuple[int, ...]:
    if name not in weights or weights[name].ndim != ndim:
        found = f"has shape {tuple(weights[name].shape)}" if name in weights else "is missing"
        some = ", ".join(list(weights)[:3])
        raise ModelError(f"{source} is not a ResNet with names as torchvision's: {name} {found} (it has {some}, …).")
    return tuple(weights[name].shape)
