"""`resnets predict`: the most probable classes of image files, or their features."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.cli import flags
from resnets.cli.usual_names import PREDICT, refuse_usual_names
from resnets.specs.errors import UserError, counted
from resnets.specs.visible import in_line, json_text, visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from resnets.api import Classifier

DESCRIPTION = """\
Print the most probable classes of each image, or write its features. MODEL is a run directory, a model folder,
or weights that are downloaded once: torchvision:resnet50, timm:NAME or hf-hub:OWNER/NAME. An IMAGE can be a
folder, of which every image is taken. Files that cannot be read are named, the others are used, and the exit
code is 2.
"""
EPILOG = """\
examples:
  resnets predict runs/folder.scratch-seed0 cat.jpg dog.png
  resnets predict runs/folder.scratch-seed0 holiday/ --top-k 1 --json > labels.json
  resnets predict torchvision:resnet50 holiday/ --features holiday.npz           one vector an image, and its path
  resnets predict torchvision:resnet50 holiday/ --features holiday.npz --stage conv4_x
"""


def main(arguments: list[str]) -> int:
    """Predict the images that `arguments` name, or write their features."""
    # Before argparse sees them: it takes the value of a flag it does not know for an image.
    refuse_usual_names(arguments, PREDICT, "`resnets predict --help` lists the flags.")
    given = _parser().parse_args(arguments)
    flags.import_modules(given)
    _check(given)
    from resnets import api
    from resnets.artifacts.pretrained import is_source
    from resnets.tasks.classify.features import check_output
    from resnets.tasks.classify.predict import image_files

    if given.features is not None:
        check_output(Path(given.features))
    files = image_files([Path(image) for image in given.images])
    classifier = api.load(given.model)
    if classifier.unfinished:
        print(in_line(f"note: {classifier.unfinished}"), file=sys.stderr)
    if is_source(given.model):
        print(visible(f"note: licence of {given.model}: {classifier.stored.licence or 'not stated'}"), file=sys.stderr)
    if given.features is not None:
        return _write_features(classifier, files, given)
    return _predict(classifier, files, given)


def _parser() -> flags.Parser:
    parser = flags.Parser("predict", DESCRIPTION, "MODEL IMAGE [IMAGE …] [options]", EPILOG)
    parser.add_argument("model", metavar="MODEL", help="run directory, model folder, or weights to download")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or folder of them")
    parser.add_argument("--top-k", type=int, metavar="K", help="classes an image (default 5)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N, mps or auto")
    group = parser.add_argument_group("features")
    group.add_argument(
        "--features",
        metavar="OUT.npz",
        help="instead of predicting, write a vector an image: float32 `features` (images, channels), and `paths`",
    )
    group.add_argument(
        "--stage",
        metavar="NAME",
        help="average of the maps of this stage: conv2_x, conv3_x, … (default: the last)",
    )
    flags.add_import(parser)
    flags.add_json(parser)
    return parser


def _check(given: argparse.Namespace) -> None:
    if given.top_k is not None and given.top_k < 1:
        raise UserError(f"--top-k is {given.top_k}; it is at least 1.")
    if given.features is not None and given.top_k is not None:
        raise UserError("--top-k belongs to predictions, and --features writes none; leave one of them out.")
    if given.stage is not None and given.features is None:
        raise UserError("--stage says where features are taken from; name the file for them with --features OUT.npz.")


def _predict(classifier: Classifier, files: list[Path], given: argparse.Namespace) -> int:
    from resnets.tasks.classify.predict import Unreadable

    top_k = 5 if given.top_k is None else given.top_k
    results = zip(files, classifier.predict_each(files, top_k=top_k, device=given.device), strict=True)
    entries = (
        (path, {"path": str(path), "error": result.reason})
        if isinstance(result, Unreadable)
        else (path, {"path": str(path), "predictions": [_as_json(entry) for entry in result]})
        for path, result in results
    )
    failed = _print_json(entries) if given.json else _print_table(entries)
    return 2 if failed else 0


def _write_features(classifier: Classifier, files: list[Path], given: argparse.Namespace) -> int:
    import numpy as np

    from resnets.tasks.classify.features import choose_stage, save_features
    from resnets.tasks.classify.predict import Unreadable

    stage, _ = choose_stage(classifier.stored, given.stage)
    rows, paths, unreadable = [], [], []
    results = classifier.features_each(files, stage=stage, device=given.device)
    for path, result in zip(files, results, strict=True):
        if isinstance(result, Unreadable):
            unreadable.append({"path": str(path), "error": result.reason})
            print(in_line(f"error: {path}: {result.reason}"), file=sys.stderr)
        else:
            rows.append(result)
            paths.append(str(path))
    if not rows:
        raise UserError(f"No image of {len(files):,} could be read; {given.features} was not written.")
    values = np.stack(rows)
    save_features(Path(given.features), values, paths, stage=stage, model=classifier.name)
    images, channels = values.shape
    document = {
        "features": given.features,
        "images": images,
        "channels": channels,
        "stage": stage,
        "model": classifier.name,
        "unreadable": unreadable,
    }
    if given.json:
        print(json_text(document))
    else:
        print(
            in_line(
                f"{given.features}: {channels} features of {stage} an image, for {counted(images, 'image')} ({classifier.name})"
            )
        )
    if unreadable:
        print(f"{len(unreadable)} of the images could not be read.", file=sys.stderr)
    return 2 if unreadable else 0


def _as_json(prediction: Any) -> dict[str, Any]:
    return {"label": prediction.label, "index": prediction.index, "probability": prediction.probability}


def _print_json(entries: Iterator[tuple[Path, dict[str, Any]]]) -> int:
    documents = [entry for _, entry in entries]
    print(json_text(documents))
    return sum("error" in document for document in documents)


def _print_table(entries: Iterator[tuple[Path, dict[str, Any]]]) -> int:
    failed = 0
    for path, entry in entries:
        if "error" in entry:
            failed += 1
            print(in_line(f"error: {path}: {entry['error']}"), file=sys.stderr)
            continue
        ranked = "   ".join(f"{one['label']} {100 * one['probability']:.1f} %" for one in entry["predictions"])
        print(in_line(f"{path}   {ranked}"))
    if failed:
        print(f"{failed} of the images could not be read.", file=sys.stderr)
    return failed
