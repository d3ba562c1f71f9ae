"""`resnets describe`: the list of nets, or one of them as Table 1 prints it. Needs no torch."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.cli import flags
from resnets.specs import counts
from resnets.specs.architecture import stages, variant
from resnets.specs.catalogue import model_name, model_spec, names, paper_figures
from resnets.specs.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from resnets.specs.catalogue import PaperFigures
    from resnets.specs.model import ModelSpec

DESCRIPTION = """\
Print the architecture of a net the way Table 1 of the paper does, with its parameters, multiply-adds and
activation memory, and the paper's figures beside ours. Without NAME, list the nets.
"""
EPILOG = """\
names:
  resnet18|34|50|101|152   plain18|34   vgg16|19   cifar-resnet20   cifar-plain20   cifar-highway20
  The CIFAR nets exist for every depth 6n+2: cifar-resnet8, cifar-resnet14, ..., cifar-resnet1202.
  -a, -b or -c chooses the shortcut (resnet34-a), -v1.5 is torchvision's net (resnet50-v1.5).

examples:
  resnets describe                                    all nets
  resnets describe resnet50                           the 50-layer column of Table 1
  resnets describe resnet34-a --num-classes 10        with another head
  resnets describe vgg16 --input-size 512 --json      for a script
"""
GROUPS = {
    r"resnet\d+": "Residual nets for ImageNet: option B, stride on the 1x1, official stem pooling",
    r"plain\d+": "Their plain counterparts, without shortcuts",
    r"vgg\d+": "The nets the paper compares with",
    r"cifar-resnet\d+": "Residual nets for CIFAR: option A, any depth 6n+2",
    r"cifar-plain\d+": "Their plain counterparts, without shortcuts",
    r"cifar-highway\d+": "The same with a learned gate on every block",
    r"resnet\d+-[ac]": "Other shortcuts: A adds no parameters, C projects in every block",
    r"resnet\d+-v1\.5": "torchvision's nets: stride on the 3x3, padded stem pooling",
}
"""Headings of the list, by the names under them."""
ELSEWHERE = {r"resnet34-c": "Table 3", r"cifar-plain\d+": "Fig. 6", r"cifar-highway\d+": "Sec. 2, Table 6"}
"""Where the paper has the nets for which it prints neither parameters nor multiply-adds."""


def main(arguments: list[str]) -> int:
    """Print the list of nets, or the net that `arguments` name."""
    parser = flags.Parser("describe", DESCRIPTION, "[NAME] [options]", EPILOG)
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="name of a net, run directory or model folder; without it, all nets are listed",
    )
    parser.add_argument("--input-size", type=int, metavar="PX", help="side of the square image (default: the paper's)")
    parser.add_argument("--num-classes", type=int, metavar="N", help="outputs of the last layer (default: the paper's)")
    flags.add_json(parser)
    given = parser.parse_args(arguments)
    if given.name is None:
        if given.input_size is not None or given.num_classes is not None:
            raise UserError("--input-size and --num-classes describe one net: give its NAME too.")
        nets = [_describe(name, model_spec(name)) for name in names()]
        print(json.dumps([_listed(net) for net in nets], indent=2)) if given.json else _print_list(nets)
        return 0
    fields = {} if given.num_classes is None else {"num_classes": given.num_classes}
    if Path(given.name).is_dir():
        name, spec = _stored(Path(given.name))
        net = _describe(name, dataclasses.replace(spec, **fields), given.input_size)
    else:
        net = _describe(given.name, model_spec(given.name, **fields), given.input_size)
    print(json.dumps(_document(net), indent=2)) if given.json else _print_net(net)
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Net:
    """A net at one input size, counted."""

    name: str
    spec: ModelSpec
    size: tuple[int, int]
    parameters: int
    multiply_adds: int
    figures: PaperFigures | None
    """What the paper prints about this very net: None with another head or input size."""

    def activation_bytes(self, bytes_per_value: int) -> int:
        return counts.activation_bytes(self.spec, *self.size, bytes_per_value)


def _stored(folder: Path) -> tuple[str, ModelSpec]:
    """Return the full name and the spec of the net in a run directory, finished or not, or in a model folder."""
    from resnets.artifacts.model_folder import read_config, read_field
    from resnets.artifacts.run_directory import RunDirectory
    from resnets.specs.model import ModelSpec

    inner, run = folder / "model", RunDirectory(folder)
    if run.checkpoints.is_dir() and not run.is_finished and (saved := run.saved_spec()) is not None:
        return model_name(saved.model), saved.model
    path = (inner if inner.is_dir() else folder) / "config.json"
    spec = read_field(read_config(path), "model", ModelSpec, path)
    return model_name(spec), spec


def _describe(name: str, spec: ModelSpec, input_size: int | None = None) -> _Net:
    papers_size = counts.input_size(spec)
    size = papers_size if input_size is None else (input_size, input_size)
    return _Net(
        name=name,
        spec=spec,
        size=size,
        parameters=counts.count_parameters(spec),
        multiply_adds=counts.count_multiply_adds(spec, *size),
        figures=paper_figures(name) if size == papers_size and _is_catalogued(name, spec) else None,
    )


def _is_catalogued(name: str, spec: ModelSpec) -> bool:
    return paper_figures(name) is not None and spec == model_spec(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Figure:
    """A figure of the paper beside ours, in units of 1."""

    printed: str
    paper: int
    ours: int
    counted: str = ""
    """How ours was counted, where that is not the usual way."""


def _compare(net: _Net) -> dict[str, _Figure]:
    """Return the paper's figures beside ours, by what they are figures of."""
    found: dict[str, _Figure] = {}
    if net.figures is None:
        return found
    if (millions := net.figures.parameters) is not None:
        paper = round(float(millions.removesuffix("M")) * 1e6)
        found["parameters"] = _Figure(printed=millions.replace("M", " M"), paper=paper, ours=net.parameters)
    if (giga := net.figures.multiply_adds) is not None:
        # The paper leaves out fully-connected layers for VGG-16 and for no other net: 15.3, where all layers are 15.5.
        only = net.name == "vgg16"
        ours = counts.count_multiply_adds(net.spec, *net.size, convolutions_only=only)
        found["multiply_adds"] = _Figure(
            printed=f"{giga} G", paper=round(giga * 1e9), ours=ours, counted=" in convolutions" if only else ""
        )
    return found


def _paper_document(net: _Net) -> dict[str, Any] | None:
    if net.figures is None:
        return None
    compared = _compare(net)
    return {
        "source": net.figures.source,
        **{name: compared[name].paper if name in compared else None for name in ("parameters", "multiply_adds")},
        "difference": {name: figure.ours - figure.paper for name, figure in compared.items()},
        "note": net.figures.note,
    }


def _listed(net: _Net) -> dict[str, Any]:
    return {
        "name": net.name,
        "depth": net.spec.depth,
        "parameters": net.parameters,
        "multiply_adds": net.multiply_adds,
        "input": [net.spec.in_channels, *net.size],
        "paper": _paper_document(net),
    }


def _document(net: _Net) -> dict[str, Any]:
    listed = _listed(net)
    paper = listed.pop("paper")
    return {
        **listed,
        "num_classes": net.spec.num_classes,
        "variant": variant(net.spec),
        "activation_bytes": {"fp32": net.activation_bytes(4), "bf16": net.activation_bytes(2)},
        "stages": [dataclasses.asdict(stage) for stage in stages(net.spec, *net.size)],
        "paper": paper,
    }


def _print_list(nets: list[_Net]) -> None:
    console = _console()
    widths = (16, 7, 14, 15, 18)
    header = ("net", "layers", "parameters", "multiply-adds", "in the paper")
    console.print(_columns(header, widths), style="bold")
    heading = ""
    for net in nets:
        group = _matching(GROUPS, net.name)
        if group != heading:
            heading = group
            console.print(f"\n{heading}", style="dim")
        source = net.figures.source if net.figures else _matching(ELSEWHERE, net.name)
        cells = (net.name, str(net.spec.depth), _short(net.parameters), _short(net.multiply_adds), source)
        console.print(_columns(cells, widths))
    console.print("\nMultiply-adds of one image: 224 x 224, CIFAR nets 32 x 32. `resnets describe NAME` shows a net.")


def _columns(cells: tuple[str, ...], widths: tuple[int, ...]) -> str:
    """Return a line with the first cell to the left, the numbers to the right, and the last to the left."""
    first, *numbers, last = cells
    middle = "".join(number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True))
    return f"{first:<{widths[0]}}{middle}   {last}".rstrip()


def _print_net(net: _Net) -> None:
    from rich.markup import escape

    console = _console()
    console.print(f"[bold]{net.name}[/bold]   {net.spec.depth} layers, {net.spec.num_classes} classes")
    for phrase in variant(net.spec):
        console.print(f"  {escape(phrase)}", style="dim")
    table = _table()
    rows = stages(net.spec, *net.size)
    for stage in rows:
        table.add_row(
            stage.name,
            _by(stage.output),
            escape(stage.layers),
            f"{stage.parameters:,}" if stage.parameters else "",
            f"{stage.multiply_adds:,}" if stage.multiply_adds else "",
            end_section=stage is rows[-1],
        )
    table.add_row("total", "", "", f"{net.parameters:,}", f"{net.multiply_adds:,}", style="bold")
    console.print(table)
    for label, text in _facts(net):
        console.print(f"  [dim]{label:<18}[/dim] {text}")


def _table() -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=True, header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("output", justify="right", no_wrap=True)
    table.add_column("layers")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("multiply-adds", justify="right", no_wrap=True)
    return table


def _facts(net: _Net) -> list[tuple[str, str]]:
    """Return the lines under the table: what each is about, and what it says."""
    compared = _compare(net)
    full, half = (_megabytes(net.activation_bytes(size)) for size in (4, 2))
    facts = [
        ("input", f"{net.spec.in_channels} x {_by(net.size)}"),
        ("parameters", _short(net.parameters) + _beside(compared.get("parameters"), net, 1e6, "M")),
        ("multiply-adds", _short(net.multiply_adds) + _beside(compared.get("multiply_adds"), net, 1e9, "G")),
        ("activation memory", f"{full} an image in fp32, {half} in bf16, kept for the backward pass"),
    ]
    if net.figures is not None and net.figures.note:
        facts.append(("note", net.figures.note))
    if net.figures is None:
        facts.append(("paper", _why_no_figures(net)))
    return facts


def _beside(figure: _Figure | None, net: _Net, unit: float, symbol: str) -> str:
    """Return the paper's figure and the difference, to follow ours; nothing where the paper prints none."""
    if figure is None or net.figures is None:
        return ""
    counted = f" ({figure.ours / unit:.2f} {symbol}{figure.counted})" if figure.counted else ""
    difference = (figure.ours - figure.paper) / unit
    return f"{counted}   paper {figure.printed} ({net.figures.source}), difference {difference:+.3f} {symbol}"


def _why_no_figures(net: _Net) -> str:
    original = model_spec(net.name)
    if paper_figures(net.name) is not None:
        return f"its figures are for {_by(counts.input_size(original))} pixels and {original.num_classes} classes"
    source = _matching(ELSEWHERE, net.name)
    return f"{source}; it prints no figure for this net" if source else "it prints no figure for this net"


def _matching(patterns: dict[str, str], name: str) -> str:
    return next((text for pattern, text in patterns.items() if re.fullmatch(pattern, name)), "")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _short(number: int) -> str:
    return f"{number / 1e9:.3f} G" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"


def _console() -> Console:
    """Return a console on stdout that breaks lines for a terminal, and never for a pipe or a file."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
