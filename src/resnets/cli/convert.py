"""`resnets convert`: weights between our model folders and other programs, with a numeric proof of equality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.cli import flags
from resnets.specs.errors import UserError
from resnets.specs.visible import in_line, json_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from resnets.models.interop.foreign import Hints

FORMATS = ("torchvision", "timm", "huggingface", "caffe", "cifar")
DESCRIPTION = """\
Convert weights from another program to a model folder, or from a model or run to another program's form. What the
files of SRC do not say has to be given, and the error names every flag that is missing. Both nets see random and
real images in the end: the largest difference of their logits is printed, and above 0.0001 of the largest logit
nothing is written.
"""
EPILOG = """\
examples:
  resnets convert microsoft-resnet-50/ models/resnet50                       a folder from the Hugging Face hub
  resnets convert resnet50.pth models/resnet50 --model resnet50-v1.5 --class-names imagenet.txt \\
      --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375                 a bare state dict of torchvision's
  resnets convert ckpt.pth models/resnet20 --model cifar-resnet20 --zero-pad both --class-names cifar10.txt \\
      --mean 125.3,123.0,113.9 --std 63.0,62.1,66.7
  resnets convert runs/folder.finetune-seed0 flowers.pth                     one of our runs, for torchvision
  resnets convert runs/folder.finetune-seed0 flowers-hub --to huggingface
"""


def main(arguments: list[str]) -> int:
    """Convert what `arguments` name."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for name, text in (("SRC", given.source), ("DST", given.destination)):
        if not text.strip():
            raise UserError(f"{name} is empty; it is a path. `resnets convert --help` shows examples.")
    flags.import_modules(given)
    from resnets import api
    from resnets.artifacts.conversion import as_json

    conversion = api.convert(given.source, given.destination, to=given.to, hints=_hints(given))
    report = as_json(conversion)
    if given.json:
        print(json_text(report))
    else:
        _print_report(report)
    return 0


def _parser() -> flags.Parser:
    parser = flags.Parser("convert", DESCRIPTION, "SRC DST [options]", EPILOG)
    parser.add_argument("source", metavar="SRC", help="file of weights, folder, model folder or run directory")
    parser.add_argument("destination", metavar="DST", help="what to write; it must not exist")
    parser.add_argument(
        "--to",
        choices=("resnets", *FORMATS),
        help="default: torchvision for DST.pth, .pt or .safetensors, else resnets, a model folder",
    )
    parser.add_argument("--from", dest="format", choices=FORMATS, help="program that wrote SRC; default: found out")
    group = parser.add_argument_group("what SRC does not say")
    group.add_argument("--model", metavar="NAME", help="exact variant (`resnets describe` lists them), or a spec.json")
    group.add_argument("--entry", metavar="NAME", help="which net of a checkpoint that holds several")
    group.add_argument("--zero-pad", choices=("end", "both"), help="side of option A's zero channels")
    group.add_argument("--mean", metavar="R,G,B", help="mean, for pixels in 0..255")
    group.add_argument("--std", metavar="R,G,B", help="divisor, for pixels in 0..255")
    group.add_argument("--mean-image", metavar="FILE", help=".npy, .safetensors or .binaryproto, instead of --mean")
    group.add_argument("--resize", type=int, metavar="PX", help="shorter side before the crop (256; 32 on CIFAR)")
    group.add_argument("--crop", type=int, metavar="PX", help="side of the centre crop (224; 32 on CIFAR)")
    group.add_argument(
        "--color", choices=("rgb", "bgr"), help="what SRC takes (rgb; for Caffe bgr), and order of --mean-image"
    )
    group.add_argument("--class-names", metavar="FILE", help="one a line, or a JSON list, in the order of the outputs")
    group.add_argument("--licence", metavar="TEXT", help="terms of the weights, stored with them")
    flags.add_import(parser)
    flags.add_json(parser)
    return parser


def _hints(given: argparse.Namespace) -> Hints:
    from resnets.artifacts.completion import read_class_names, read_mean_image
    from resnets.models.interop.foreign import Hints

    return Hints(
        format=given.format,
        entry=given.entry,
        model=_model(given.model),
        zero_pad=given.zero_pad,
        mean=_numbers("--mean", given.mean),
        std=_numbers("--std", given.std),
        mean_image=None if given.mean_image is None else read_mean_image(Path(given.mean_image), given.color),
        resize_px=given.resize,
        crop_px=given.crop,
        color=given.color,
        classes=None if given.class_names is None else read_class_names(Path(given.class_names)),
        licence=given.licence,
    )


def _model(text: str | None) -> Any:
    """Return a name as it is, and the spec that a file holds."""
    if text is None or not text.endswith(".json"):
        return text
    from resnets.models.interop.preprocessing import read_json
    from resnets.specs import io
    from resnets.specs.model import ModelSpec

    return io.from_json(ModelSpec, read_json(Path(text)), f"--model {text}")


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"{name} is {text!r}; it is numbers with commas between them, such as 123.68,116.78,103.94."
        ) from None


def _print_report(report: dict[str, Any]) -> None:
    prepared = report["preprocess"]
    statistics = ("mean image" if prepared["mean_image"] else f"mean {_joined(prepared['mean'])}") + (
        "" if set(prepared["std"]) == {1.0} else f", std {_joined(prepared['std'])}"
    )
    print(in_line(f"{report['source']} ({report['from']}) -> {report['destination']} ({report['to']})"))
    print(f"{report['name']}: {'; '.join(report['variant'])}")
    if report["declared_with"]:
        print(
            f"variant declared with {' and '.join(report['declared_with'])}: the files do not tell it, and the "
            "difference below is from the net that was declared"
        )
    print(
        f"{report['classes']} {'class' if report['classes'] == 1 else 'classes'}; shorter side "
        f"{prepared['resize_px']}, crop {prepared['crop_px']}, {prepared['interpolation']}; {prepared['color']}, "
        f"{statistics}"
    )
    print(
        f"largest difference {report['max_difference']:.3g} of logits up to {report['largest_logit']:.3g}, over "
        f"{report['random_images']} random and {report['real_images']} real images"
    )
    for assumption in report["assumed"]:
        print(in_line(f"taken to be: {assumption}"))
    if report["not_in_these_files"]:
        print(f"not in these files: {', '.join(report['not_in_these_files'])}")
    unstated = (
        "not stated"
        if "licence" in report["not_in_these_files"]
        else "not stated; --licence TEXT stores it with the weights"
    )
    print(in_line(f"licence: {report['licence'] or unstated}"))


def _joined(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
