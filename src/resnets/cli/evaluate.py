"""`resnets evaluate`: errors of a model, or of the ensemble of several, over every image of a split."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from resnets.cli import flags
from resnets.specs.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTION = """\
Print top-1 and top-5 error, the error of each class and, for a few classes, the confusion matrix, with the
number of images they are over. MODEL is a run directory or a model folder; several models are an ensemble
whose softmax scores are averaged.
"""
EPILOG = """\
examples:
  resnets evaluate runs/digits.resnet20-seed0 --data digits
  resnets evaluate runs/a runs/b runs/c --data cifar10 --data-root ~/data
  resnets evaluate runs/folder.scratch-seed0 --data photos/ --split validation --json
"""
CONFUSION_CLASSES = 12
WORST_CLASSES = 20


def main(arguments: list[str]) -> int:
    """Evaluate the models that `arguments` name."""
    parser = flags.Parser("evaluate", DESCRIPTION, "MODEL [MODEL …] --data DATA [options]", EPILOG)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="run directory or model folder")
    parser.add_argument("--split", choices=("test", "validation", "train"), help="default: test, else validation")
    parser.add_argument("--protocol", default="center", help="how an image is seen: center, one view (default)")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="default: fp32")
    flags.add_data(parser)
    flags.add_machine(parser)
    flags.add_import(parser)
    flags.add_json(parser)
    given = parser.parse_args(arguments)
    flags.import_modules(given)
    if given.data is None:
        raise UserError("Name the images to evaluate on: --data digits, cifar10, cifar100 or a folder.")
    from resnets import api

    report = api.evaluate(
        given.models,
        data=given.data,
        data_root=given.data_root,
        split=given.split,
        protocol=given.protocol,
        machine=flags.machine(given),
        precision=given.precision,
        on_images=_progress(),
    )
    if given.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print_report(report)
    return 0


def _progress() -> Callable[[int, int], None]:
    """Return a function that keeps one line on stderr up to date, where stderr is a terminal."""
    started = time.perf_counter()

    def show(done: int, of: int) -> None:
        if not sys.stderr.isatty():
            return
        rate = done / max(time.perf_counter() - started, 1e-9)
        line = f"{done:,} of {of:,} images, {rate:,.0f} images/s, {(of - done) / rate:.0f} s left"
        end = "\r\x1b[K" if done >= of else ""
        print(f"\r\x1b[K{line}{end}", end="", file=sys.stderr, flush=True)

    return show


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    names = " + ".join(report["models"])
    kind = f"ensemble of {len(report['models'])}: {names}" if len(report["models"]) > 1 else names
    console.print(
        f"[bold]{escape(kind)}[/] on {escape(report['dataset'])}, {report['split']} split, {report['protocol']} crop"
    )
    top5 = "" if report["top5_error"] is None else f"   top-5 error [bold]{report['top5_error']:.2f} %[/]"
    console.print(f"top-1 error [bold]{report['top1_error']:.2f} %[/]{top5}   on {report['images']:,} images")
    for note in report["notes"]:
        console.print(f"note: {note}", style="dim", markup=False)
    if report["skipped"]:
        console.print(f"{len(report['skipped'])} images could not be read and are in no score:", style="yellow")
        for entry in report["skipped"][:10]:
            console.print(f"  {entry['path']}: {entry['reason']}", markup=False)
        if len(report["skipped"]) > 10:
            console.print(f"  and {len(report['skipped']) - 10} more (--json names all)")
    tested = sum(error is not None for error in report["per_class_errors"].values())
    worst = f"the {WORST_CLASSES} classes with the highest error, of {tested}"
    console.print(f"\n{worst if tested > WORST_CLASSES else 'error of each class'}")
    console.print(_class_table(report))
    if len(report["classes"]) <= CONFUSION_CLASSES:
        console.print("\nimages by true class (row) and predicted class (column)")
        console.print(_confusion_table(report))


def _class_table(report: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    counts = {name: sum(row) for name, row in zip(report["classes"], report["confusion"], strict=True)}
    errors = report["per_class_errors"]
    tested = sorted((name for name in errors if errors[name] is not None), key=lambda name: -errors[name])
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("images", justify="right")
    table.add_column("top-1 error", justify="right")
    for name in tested[:WORST_CLASSES]:
        table.add_row(escape(name), f"{counts[name]:,}", f"{errors[name]:.2f} %")
    untested = [name for name in errors if errors[name] is None]
    for name in untested[:WORST_CLASSES]:
        table.add_row(escape(name), "0", "-")
    return table


def _confusion_table(report: dict[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in report["classes"]:
        table.add_column(escape(name[:10]), justify="right")
    for index, (name, row) in enumerate(zip(report["classes"], report["confusion"], strict=True)):
        cells = [
            f"[bold]{count}[/]" if column == index else (str(count) if count else "[dim]·[/]")
            for column, count in enumerate(row)
        ]
        table.add_row(escape(name), *cells)
    return table
