"""`resnets predict`: the most probable classes of image files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.cli import flags
from resnets.specs.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

DESCRIPTION = """\
Print the most probable classes of each image. MODEL is a run directory or a model folder; an IMAGE can be a
folder, of which every image is taken. Files that cannot be read are named, the others are predicted, and the
exit code is 2.
"""
EPILOG = """\
examples:
  resnets predict runs/folder.scratch-seed0 cat.jpg dog.png
  resnets predict runs/folder.scratch-seed0 holiday/ --top-k 1 --json > labels.json
"""


def main(arguments: list[str]) -> int:
    """Predict the images that `arguments` name."""
    parser = flags.Parser("predict", DESCRIPTION, "MODEL IMAGE [IMAGE …] [options]", EPILOG)
    parser.add_argument("model", metavar="MODEL", help="run directory or model folder")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or folder of them")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="classes an image (default 5)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N, mps or auto")
    flags.add_import(parser)
    flags.add_json(parser)
    given = parser.parse_args(arguments)
    flags.import_modules(given)
    if given.top_k < 1:
        raise UserError(f"--top-k is {given.top_k}; it is at least 1.")
    from resnets import api
    from resnets.tasks.classify.predict import Unreadable, image_files

    files = image_files([Path(image) for image in given.images])
    classifier = api.load(given.model)
    if classifier.unfinished:
        print(f"note: {classifier.unfinished}", file=sys.stderr)
    results = zip(files, classifier.predict_each(files, top_k=given.top_k, device=given.device), strict=True)
    entries = (
        (path, {"path": str(path), "error": result.reason})
        if isinstance(result, Unreadable)
        else (path, {"path": str(path), "predictions": [_as_json(entry) for entry in result]})
        for path, result in results
    )
    failed = _print_json(entries) if given.json else _print_table(entries)
    return 2 if failed else 0


def _as_json(prediction: Any) -> dict[str, Any]:
    return {"label": prediction.label, "index": prediction.index, "probability": prediction.probability}


def _print_json(entries: Iterator[tuple[Path, dict[str, Any]]]) -> int:
    documents = [entry for _, entry in entries]
    print(json.dumps(documents, indent=2, ensure_ascii=False))
    return sum("error" in document for document in documents)


def _print_table(entries: Iterator[tuple[Path, dict[str, Any]]]) -> int:
    failed = 0
    for path, entry in entries:
        if "error" in entry:
            failed += 1
            print(f"error: {path}: {entry['error']}", file=sys.stderr)
            continue
        ranked = "   ".join(f"{one['label']} {100 * one['probability']:.1f} %" for one in entry["predictions"])
        print(f"{path}   {ranked}")
    if failed:
        print(f"{failed} of the images could not be read.", file=sys.stderr)
    return failed
