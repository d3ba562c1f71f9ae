"""Names of the paper's nets, their specs, and what the paper states about each (Tables 1 and 6).

Names and suffixes: `resnet50`, `resnet34-a`, `resnet50-v1.5`, `plain34`, `cifar-resnet56`, `cifar-highway20`,
`vgg16`. The CIFAR nets exist for any depth 6n+2.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnets.specs.errors import SpecError, near_misses
from resnets.specs.model import HighwaySpec, ResNetSpec, VGGSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    from resnets.specs.model import ModelSpec, Shortcut

IMAGENET_STAGES: dict[int, tuple[Literal["basic", "bottleneck"], tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
VGG_STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CIFAR_DEPTHS = {"resnet": (20, 32, 44, 56, 110, 1202), "plain": (20, 32, 44, 56, 110), "highway": (20, 32, 44, 56, 110)}

_NAME = re.compile(r"(cifar-)?(resnet|plain|highway|vgg)(\d+)(?:-([abc]))?(-v1\.5)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperFigures:
    """What the paper prints about a net; None where it prints nothing."""

    source: str
    """Table or section of the paper."""
    parameters: str | None = None
    """Parameters as printed in Table 6, in millions."""
    multiply_adds: float | None = None
    """Multiply-adds ("FLOPs" in the paper) at 224 x 224 as printed, in units of 1e9."""
    note: str = ""
    """How the printed figure relates to an exact count."""


_PAPER = {
    "resnet18": PaperFigures(source="Table 1", multiply_adds=1.8),
    "resnet18-a": PaperFigures(source="Table 1", multiply_adds=1.8),
    "resnet34": PaperFigures(source="Table 1", multiply_adds=3.6, note="Table 1 uses option A, see resnet34-a"),
    "resnet34-a": PaperFigures(source="Table 1", multiply_adds=3.6),
    "resnet50": PaperFigures(source="Table 1", multiply_adds=3.8, note="truncated in the paper: 3.858"),
    "resnet101": PaperFigures(source="Table 1", multiply_adds=7.6),
    "resnet152": PaperFigures(source="Table 1", multiply_adds=11.3),
    "plain18": PaperFigures(source="Table 1", multiply_adds=1.8),
    "plain34": PaperFigures(source="Table 1, Fig. 3", multiply_adds=3.6),
    "vgg16": PaperFigures(source="Sec. 1", multiply_adds=15.3, note="the paper counts convolutions only here"),
    "vgg19": PaperFigures(source="Fig. 3", multiply_adds=19.6),
    "cifar-resnet20": PaperFigures(source="Table 6", parameters="0.27M"),
    "cifar-resnet32": PaperFigures(source="Table 6", parameters="0.46M"),
    "cifar-resnet44": PaperFigures(source="Table 6", parameters="0.66M"),
    "cifar-resnet56": PaperFigures(source="Table 6", parameters="0.85M"),
    "cifar-resnet110": PaperFigures(source="Table 6", parameters="1.7M"),
    "cifar-resnet1202": PaperFigures(source="Table 6", parameters="19.4M"),
}


def names() -> Iterator[str]:
    """Yield the name of every net that the paper trains or compares with, option and version variants last."""
    yield from (f"resnet{depth}" for depth in IMAGENET_STAGES)
    yield from ("plain18", "plain34", "vgg16", "vgg19")
    for family, depths in CIFAR_DEPTHS.items():
        yield from (f"cifar-{family}{depth}" for depth in depths)
    yield from (f"resnet{depth}-{option}" for depth in (18, 34) for option in "ac")
    yield from (f"resnet{depth}-v1.5" for depth in IMAGENET_STAGES)


def paper_figures(name: str) -> PaperFigures | None:
    """Return what the paper prints about the net called `name`, or None."""
    return _PAPER.get(name)


def model_spec(name: str, **fields: Any) -> ModelSpec:
    """Return the spec of the net called `name`, with `fields` (such as `num_classes`) replaced.

    Raises:
        SpecError: no net has this name, or a field cannot have its value.

    >>> model_spec("cifar-resnet56").depth
    56
    """
    spec = _parse(name)
    try:
        return dataclasses.replace(spec, **fields)
    except TypeError:
        allowed = [field.name for field in dataclasses.fields(spec)]
        wrong = next(field for field in fields if field not in allowed)
        raise SpecError(
            f"{name} has no field {wrong!r}; its fields are {', '.join(allowed)}.{near_misses(wrong, allowed)}"
        ) from None


def model_name(spec: ModelSpec) -> str:
    """Return the full name of a spec: the catalogue's name, with fields that differ in brackets.

    >>> model_name(model_spec("resnet50-v1.5", num_classes=10))
    'resnet50-v1.5'
    >>> model_name(model_spec("cifar-resnet20", zero_pad="both"))
    'cifar-resnet20 (zero_pad=both)'
    >>> model_name(model_spec("cifar-plain56", widths=(8, 16, 32)))
    'cifar-plain56 (widths=(8, 16, 32))'
    """
    base = _base_name(spec)
    if base is None:
        return f"{type(spec).__name__.removesuffix('Spec').lower()}{getattr(spec, 'depth', '')} (custom)"
    catalogued = model_spec(base, num_classes=spec.num_classes, in_channels=spec.in_channels)
    differing = [
        f"{field.name}={getattr(spec, field.name)}"
        for field in dataclasses.fields(spec)
        if getattr(spec, field.name) != getattr(catalogued, field.name)
    ]
    return f"{base} ({', '.join(differing)})" if differing else base


def _base_name(spec: ModelSpec) -> str | None:
    match spec:
        case ResNetSpec(stem="7x7", widths=(64, 128, 256, 512)):
            depth = next(
                (depth for depth, stages in IMAGENET_STAGES.items() if stages == (spec.block, spec.blocks)), None
            )
            if depth is None:
                return None
            if spec.shortcut == "none":
                return f"plain{depth}" if depth in (18, 34) else None
            option = "" if spec.shortcut == "B" else f"-{spec.shortcut.lower()}"
            version = "-v1.5" if spec.stem_pool == "torchvision" else ""
            return f"resnet{depth}{option}{version}"
        case ResNetSpec(stem="3x3", block="basic", blocks=(n, *others)) if others == [n, n]:
            if spec.shortcut == "none":
                return f"cifar-plain{spec.depth}"
            option = "" if spec.shortcut == "A" else f"-{spec.shortcut.lower()}"
            return f"cifar-resnet{spec.depth}{option}"
        case HighwaySpec(blocks=(n, *others)) if others == [n, n]:
            return f"cifar-highway{spec.depth}"
        case VGGSpec():
            return next((f"vgg{depth}" for depth, convs in VGG_STAGES.items() if convs == spec.convs), None)
        case _:
            return None


def _parse(name: str) -> ModelSpec:
    match = _NAME.fullmatch(name)
    if match is None:
        raise _unknown(name)
    cifar, family, depth = match[1], match[2], int(match[3])
    option: Shortcut | None = match[4].upper() if match[4] else None  # pyright: ignore[reportAssignmentType]
    torchvision = match[5] is not None
    if family != "resnet" and (option or torchvision):
        raise SpecError(f"{name}: only residual nets have shortcut options (-a, -b, -c) and a version (-v1.5).")
    if cifar:
        if torchvision:
            raise SpecError(f"{name}: -v1.5 names torchvision's ImageNet nets; the CIFAR nets have no such version.")
        return _cifar(name, family, depth, option)
    if family == "vgg" and depth in VGG_STAGES:
        return VGGSpec(convs=VGG_STAGES[depth])
    if depth not in IMAGENET_STAGES or family == "highway" or (family == "plain" and depth > 34):
        raise _unknown(name)
    block, blocks = IMAGENET_STAGES[depth]
    return ResNetSpec(
        block=block,
        blocks=blocks,
        widths=(64, 128, 256, 512),
        stem="7x7",
        stem_pool="torchvision" if torchvision else "official",
        shortcut="none" if family == "plain" else option or "B",
        stride_on="3x3" if torchvision else "1x1",
    )


def _cifar(name: str, family: str, depth: int, option: Shortcut | None) -> ModelSpec:
    if depth < 8 or (depth - 2) % 6 or family == "vgg":
        if family == "vgg":
            raise _unknown(name)
        below = max(8, depth - (depth - 2) % 6)
        raise SpecError(
            f"{name}: the depth of a CIFAR net is 6n+2, with n blocks in each of three stages (Sec. 4.2). "
            f"The nearest are cifar-{family}{below} and cifar-{family}{below + 6}."
        )
    blocks = ((depth - 2) // 6,) * 3
    if family == "highway":
        return HighwaySpec(blocks=blocks, widths=(16, 32, 64))
    shortcut: Shortcut = "none" if family == "plain" else option or "A"
    return ResNetSpec(block="basic", blocks=blocks, widths=(16, 32, 64), stem="3x3", shortcut=shortcut, num_classes=10)


def _unknown(name: str) -> SpecError:
    return SpecError(f"There is no net called {name!r}.{near_misses(name, names())} `resnets describe` lists them all.")
