"""`resnets describe`: the paper's nets, and one of them the way Table 1 prints it. Needs no torch."""

from __future__ import annotations

import itertools
import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from resnets.cli import flags
from resnets.specs import counts
from resnets.specs.catalogue import model_name, model_spec, names, paper_figures
from resnets.specs.errors import UserError
from resnets.specs.model import HighwaySpec, ResNetSpec, VGGSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from resnets.specs.model import ModelSpec

DESCRIPTION = """\
Print the architecture of a net the way Table 1 of the paper does, with its parameters, multiply-adds and activation
memory, and the paper's figures beside ours. Without NAME, list the nets.
"""
EPILOG = """\
names:
  resnet18|34|50|101|152, plain18|34, vgg16|19, cifar-resnet20, cifar-plain20, cifar-highway20
  The CIFAR nets exist for every depth 6n+2: cifar-resnet8, cifar-resnet14, ..., cifar-resnet1202.
  -a, -b, -c choose the shortcut (resnet34-a); -v1.5 is torchvision's net (resnet50-v1.5).

examples:
  resnets describe                                      all nets
  resnets describe resnet50                             the column "50-layer" of Table 1
  resnets describe resnet34-a --num-classes 10          with another head
  resnets describe vgg16 --input-size 512 --json        for a script
"""

GROUPS = {
    r"resnet\d+": "ImageNet, residual: option B, stride on the 1x1, official stem pooling",
    r"plain\d+": "ImageNet, plain: the same nets without shortcuts",
    r"vgg\d+": "ImageNet, the nets the paper compares with",
    r"cifar-resnet\d+": "CIFAR, residual: option A, any depth 6n+2",
    r"cifar-plain\d+": "CIFAR, plain: the same nets without shortcuts",
    r"cifar-highway\d+": "CIFAR, highway: the same nets with a learned gate on every block",
    r"resnet\d+-[ac]": "Other shortcuts: A adds no parameters, C projects everywhere",
    r"resnet\d+-v1\.5": "torchvision's nets: stride on the 3x3, padded stem pooling",
}
"""Heading of each group in the list, by a pattern that its names match."""

ELSEWHERE = {
    r"resnet34-c": "Table 3",
    r"cifar-plain\d+": "Sec. 4.2, Fig. 6",
    r"cifar-highway\d+": "Sec. 2, Table 6",
}
"""Where the paper has the nets for which it prints neither parameters nor multiply-adds."""

SHORTCUTS = {
    "A": "option A: identity shortcuts, zeros for new channels ({place})",
    "B": "option B: projections where dimensions change",
    "C": "option C: a projection in every block",
    "none": "plain: no shortcuts",
}
POOLS = {
    "official": "official stem pooling: no padding, ceil mode",
    "torchvision": "torchvision's stem pooling: 1 pixel of padding",
    "none": "no stem pooling",
}
ZEROS = {"end": "after the old", "both": "on both sides of the old"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A row of Table 1."""

    name: str
    output: tuple[int, int]
    layers: str
    blocks: int
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One figure of the paper beside ours, in units of 1."""

    paper: float
    ours: int
    printed: str
    """The paper's figure as printed."""

    @property
    def difference(self) -> float:
        """Ours minus the paper's."""
        return self.ours - self.paper


def main(arguments: list[str]) -> int:
    """Print the list of nets, or the net that `arguments` name."""
    parser = flags.Parser("describe", DESCRIPTION, "[NAME] [options]", EPILOG)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a net, as the list or the names below have it")
    parser.add_argument("--input-size", type=int, metavar="PX", help="side of the square input (default: the paper's)")
    parser.add_argument("--num-classes", type=int, metavar="N", help="outputs of the last layer (default: the paper's)")
    flags.add_json(parser)
    given = parser.parse_args(arguments)
    if given.name is None:
        if given.input_size is not None or given.num_classes is not None:
            raise UserError("--input-size and --num-classes describe one net; give its NAME before them.")
        documents = [_summary(name) for name in names()]
        print(json.dumps(documents, indent=2)) if given.json else _print_list(documents)
        return 0
    net = _Net(given.name, input_size=given.input_size, num_classes=given.num_classes)
    print(json.dumps(_document(net), indent=2)) if given.json else _print_net(net)
    return 0


class _Net:
    """A named net at one input size, and what can be counted about it."""

    def __init__(self, name: str, *, input_size: int | None = None, num_classes: int | None = None) -> None:
        paper_spec = model_spec(name)
        self.name = name
        self.spec = paper_spec if num_classes is None else model_spec(name, num_classes=num_classes)
        self.size = counts.input_size(self.spec) if input_size is None else (input_size, input_size)
        self.layers = counts.layers(self.spec, *self.size)
        self.parameters = counts.count_parameters(self.spec)
        self.multiply_adds = counts.count_multiply_adds(self.spec, *self.size)
        self.is_the_papers = self.spec == paper_spec and self.size == counts.input_size(paper_spec)
        self.figures = paper_figures(model_name(paper_spec))

    def activation_bytes(self, bytes_per_value: int) -> int:
        return counts.activation_bytes(self.spec, *self.size, bytes_per_value)

    def comparisons(self) -> dict[str, Comparison]:
        """Return the paper's figures beside ours; empty for a net that is not exactly the paper's."""
        if self.figures is None or not self.is_the_papers:
            return {}
        found: dict[str, Comparison] = {}
        if (printed := self.figures.parameters) is not None:
            found["parameters"] = Comparison(
                paper=round(float(printed.removesuffix("M")) * 1e6), ours=self.parameters, printed=printed
            )
        if (giga := self.figures.multiply_adds) is not None:
            # For VGG-16, and for it alone, the paper counts the convolutions only (15.3; all layers are 15.5).
            ours = counts.count_multiply_adds(self.spec, *self.size, convolutions_only=self.name == "vgg16")
            found["multiply_adds"] = Comparison(paper=round(giga * 1e9), ours=ours, printed=f"{giga} G")
        return found
