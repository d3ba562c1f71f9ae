"""`resnets evaluate`: errors of a model, or of the ensemble of several, over every image of a split."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from resnets.cli import flags
from resnets.cli.image_progress import image_progress
from resnets.cli.usual_names import EVALUATE, refuse_usual_names
from resnets.specs.errors import UserError, counted
from resnets.specs.protocol import PROTOCOLS, Dense, ProtocolSpec, TenCrop
from resnets.specs.visible import in_line, json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
Print top-1 and top-5 error, the error of each class and, for a few classes, the confusion matrix, with the
number of images they are over. MODEL is a run directory, a model folder, or weights to download
(torchvision:resnet50); several models are an ensemble whose softmax scores are averaged.

An image is seen as a protocol says: center is one view; ten-crop is four corners, the centre and their mirror
images (Tables 2 and 3 of the paper); dense is the whole image at several sizes (Tables 4 and 5).
"""
EPILOG = """\
examples:
  resnets evaluate runs/digits.resnet20-seed0 --data digits
  resnets evaluate runs/a runs/b runs/c --data cifar10 --data-root ~/data
  resnets evaluate runs/imagenet.resnet18-seed0 --data imagenet/ --protocol center,ten-crop,dense
  resnets evaluate runs/a runs/b --data photos/ --protocol dense --weights 2,1 --save-scores scores.npz
"""
CONFUSION_CLASSES = 12
WORST_CLASSES = 20


def main(arguments: list[str]) -> int:
    """Evaluate the models that `arguments` name."""
    # Before argparse sees them: it takes the value of a flag it does not know for a model.
    refuse_usual_names(arguments, EVALUATE, "`resnets evaluate --help` lists the flags.")
    given = _parser().parse_args(arguments)
    flags.import_modules(given)
    if given.data is None:
        raise UserError("Name the images to evaluate on: --data digits, cifar10, cifar100 or a folder.")
    protocols = _protocols(given)
    from resnets import api

    report = api.evaluate(
        given.models,
        data=given.data,
        data_root=given.data_root,
        split=given.split,
        protocol=protocols,
        weights=given.weights,
        save_scores=given.save_scores,
        recalibrate_images=given.recalibrate_batch_norm,
        machine=flags.machine(given),
        precision=given.precision,
        on_images=image_progress(),
    )
    for line in report["warnings"]:
        print(in_line(f"warning: {line}"), file=sys.stderr)
    if given.json:
        print(json_text(report))
    else:
        _print_report(report)
        if given.save_scores:
            print(f"\nprobabilities of every image: {in_line(given.save_scores)}")
    return 0


def _parser() -> flags.Parser:
    parser = flags.Parser("evaluate", DESCRIPTION, "MODEL [MODEL …] --data DATA [options]", EPILOG)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="run directory, model folder, or torchvision:NAME")
    parser.add_argument("--split", choices=("test", "validation", "train"), help="default: test, else validation")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="default: fp32")
    _add_protocol(parser)
    flags.add_data(parser)
    flags.add_machine(parser)
    flags.add_import(parser)
    flags.add_json(parser)
    return parser


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how an image is seen and how models are put together."""
    group = parser.add_argument_group("protocol")
    group.add_argument(
        "--protocol",
        action="append",
        type=_words,
        metavar="NAME[,NAME …]",
        help="center (default), ten-crop or dense; several are tested one after the other and shown side by side",
    )
    group.add_argument(
        "--corners", choices=("image", "square"), help="ten-crop: of the whole image (default) or its central square"
    )
    default = ",".join(map(str, Dense().scales_px))
    group.add_argument(
        "--scales",
        type=_integers,
        metavar="PX,PX,…",
        help=f"dense: shorter sides for a crop of 224 (default {default})",
    )
    group.add_argument(
        "--dense-form",
        choices=("window", "global"),
        help="dense: 7x7 windows of the last map (default), or its average",
    )
    group.add_argument("--no-flips", action="store_true", help="dense: leave the mirror images out")
    group.add_argument("--weights", type=_numbers, metavar="W,W,…", help="how much each model counts; default equally")
    group.add_argument(
        "--recalibrate-batch-norm",
        type=int,
        default=0,
        metavar="N",
        help="average BatchNorm's statistics anew over N training images of --data first",
    )
    group.add_argument(
        "--save-scores", metavar="FILE.npz", help="write the probabilities of every image, with labels and paths"
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 224,256,384") from None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as 2,1,1") from None


def _protocols(given: argparse.Namespace) -> list[str | ProtocolSpec]:
    """Return the protocols that the flags describe.

    Raises:
        UserError: a flag belongs to a protocol that is not asked for.
    """
    names = [name for names in given.protocol or [["center"]] for name in names]
    needs = {
        "ten-crop": {"--corners": given.corners},
        "dense": {"--scales": given.scales, "--dense-form": given.dense_form, "--no-flips": given.no_flips},
    }
    for protocol, flags_of in needs.items():
        for flag, value in flags_of.items():
            if value and protocol not in names:
                raise UserError(f"{flag} belongs to --protocol {protocol}, which is not asked for.")
    specs: dict[str, ProtocolSpec] = {
        **PROTOCOLS,
        "ten-crop": TenCrop(corners=given.corners or TenCrop().corners),
        "dense": Dense(
            scales_px=given.scales or Dense().scales_px,
            form=given.dense_form or Dense().form,
            flips=not given.no_flips,
        ),
    }
    return [specs.get(name, name) for name in names]


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    names = _names(report)
    kind = f"ensemble of {len(names)}: {' + '.join(names)}" if len(names) > 1 else report["models"][0]
    protocols = list(report["protocols"].values()) if "protocols" in report else [report]
    console.print(f"[bold]{escape(in_line(kind))}[/] on {escape(in_line(report['dataset']))}, {report['split']} split")
    console.print(_error_table(protocols))
    for line in filter(None, (_views(one, names) for one in protocols)):
        console.print(in_line(line), style="dim", markup=False)
    if len(set(report["weights"])) > 1:
        console.print("weights " + ", ".join(f"{share:.3f}" for share in report["weights"]), style="dim")
    for note in report["notes"]:
        console.print(in_line(f"note: {note}"), style="dim", markup=False)
    skipped = {entry["path"]: entry["reason"] for one in protocols for entry in one["skipped"]}
    if skipped:
        console.print(f"{counted(len(skipped), 'image')} could not be read, left out of every score:", style="yellow")
        for path in list(skipped)[:10]:
            console.print(in_line(f"  {path}: {skipped[path]}"), markup=False)
        if len(skipped) > 10:
            console.print(f"  and {len(skipped) - 10} more (--json names all)")
    tested = sum(error is not None for error in protocols[-1]["per_class_errors"].values())
    worst = f"the {WORST_CLASSES} classes with the highest error, of {tested}"
    console.print(f"\n{worst if tested > WORST_CLASSES else 'error of each class'}")
    console.print(_class_table(protocols))
    if len(report["classes"]) <= CONFUSION_CLASSES and len(protocols) == 1:
        console.print("\nimages by true class (row) and predicted class (column)")
        console.print(_confusion_table(list(report["per_class_errors"]), report["confusion"]))


def _error_table(protocols: Sequence[dict[str, Any]]) -> Any:
    """Return the errors under each protocol, one a row."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("protocol")
    for heading in ("top-1 error", "top-5 error", "loss", "images"):
        table.add_column(heading, justify="right")
    for one in protocols:
        top5 = "-" if one["top5_error"] is None else f"[bold]{one['top5_error']:.2f} %[/]"
        loss = "-" if one["loss"] is None else f"{one['loss']:.4f}"
        figures = (f"[bold]{one['top1_error']:.2f} %[/]", top5, loss, f"{one['images']:,}")
        table.add_row(one["protocol"], *figures)
    return table


def _names(report: dict[str, Any]) -> list[str]:
    """Return each model as it was given, with its variant where that says more."""
    pairs = zip(report["sources"], report["models"], strict=True)
    return [source if source == model else f"{source} ({model})" for source, model in pairs]


def _views(report: dict[str, Any], names: Sequence[str]) -> str | None:
    """Return a line on what the models called `names` see under a protocol; None where its name says it."""
    settings = report["settings"]
    match report["protocol"]:
        case "ten-crop":
            return f"ten-crop: corners of the {settings['corners']}, centre, and their mirror images"
        case "dense":
            sides = [", ".join(map(str, sizes)) for sizes in settings["shorter_sides_px"]]
            if len(set(sides)) > 1:
                seen = "; ".join(f"{sizes} for {name}" for name, sizes in zip(names, sides, strict=True)) + ";"
            else:
                seen = f"{sides[0]},"
            mirrored = "mirrored too" if settings["flips"] else "not mirrored"
            return f"dense: shorter sides {seen} {settings['form']} form, {mirrored}"
        case _:
            return None


def _class_table(protocols: Sequence[dict[str, Any]]) -> Any:
    """Return the error of each class, the worst under the last protocol first, with a column a protocol."""
    from rich.markup import escape
    from rich.table import Table

    last = protocols[-1]
    errors = last["per_class_errors"]
    counts = last["per_class_images"]
    tested = sorted((name for name in errors if errors[name] is not None), key=lambda name: -errors[name])
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("images", justify="right")
    for one in protocols:
        table.add_column("top-1 error" if len(protocols) == 1 else one["protocol"], justify="right")
    for name in tested[:WORST_CLASSES]:
        per_protocol = (one["per_class_errors"][name] for one in protocols)
        cells = ("-" if error is None else f"{error:.2f} %" for error in per_protocol)
        table.add_row(escape(in_line(name)), f"{counts[name]:,}", *cells)
    untested = [name for name in errors if errors[name] is None]
    for name in untested[:WORST_CLASSES]:
        table.add_row(escape(in_line(name)), "0", *("-" for _ in protocols))
    return table


def _confusion_table(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in classes:
        table.add_column(escape(in_line(name[:10])), justify="right")
    for index, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        cells = [
            f"[bold]{count}[/]" if column == index else (str(count) if count else "[dim]·[/]")
            for column, count in enumerate(row)
        ]
        table.add_row(escape(in_line(name)), *cells)
    return table
