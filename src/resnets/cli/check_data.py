"""`resnets check-data`: broken, duplicated, leaking and odd images, and classes that training would trip over."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from resnets.cli import flags
from resnets.specs.visible import json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
Decode every image of a folder, compare each with all others, and name what is wrong before training meets it:

  errors    broken or cut-off files, no images at all, too large to decode; the same image, or nearly, in train and
            validation or test; the same file under two labels; images in no class folder; classes that are empty
            or unknown to train
  warnings  duplicates within a class, tiny, blank or very long images, links that lead nowhere, classes with one
            image, missing in a split, or of very different size, or numbered so that labels are out of order
  notes     what is handled: EXIF rotation, CMYK, palettes, 16 bits, transparency, animation, other files

Nothing is moved or changed. --quarantine writes the list of images that training leaves out: FOLDER/quarantine.json,
with the broken ones; --quarantine-kinds adds leaks (their training copies), conflicts, duplicates (all but one),
near-leaks, near-conflicts or near-duplicates.
"""
EPILOG = """\
exit codes:
  0  no errors, or only those that FOLDER/quarantine.json already leaves out (warnings and notes there may be)
  1  errors were found
  2  wrong usage, no such folder, or no images in it

examples:
  resnets check-data photos/
  resnets check-data photos/ --quarantine
  resnets check-data photos/ --quarantine --quarantine-kinds leaks,conflicts,duplicates
  resnets check-data imagenet/ --workers 32 --json > check.json
"""


def main(arguments: list[str]) -> int:
    """Check the folder that `arguments` name."""
    parser = flags.Parser("check-data", DESCRIPTION, "FOLDER [options]", EPILOG)
    parser.add_argument("folder", metavar="FOLDER", help="a subfolder a class, or train/, val/ and test/ above them")
    group = parser.add_argument_group("quarantine")
    group.add_argument(
        "--quarantine",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="write the list of images to leave out (default: FOLDER/quarantine.json, where training looks for it)",
    )
    group.add_argument(
        "--quarantine-kinds",
        type=_words,
        default=(),
        metavar="KIND,…",
        help="what the list takes besides broken images",
    )
    _add_limits(parser)
    parser.add_argument("--workers", type=int, default=-1, metavar="N", help="processes that decode; -1: one a core")
    parser.add_argument("--all", action="store_true", help="print every finding, not the first few of each kind")
    flags.add_json(parser)
    given = parser.parse_args(arguments)

    from resnets.cli.check_progress import CheckProgress
    from resnets.data.check import CheckLimits, check_data

    limits = CheckLimits(
        min_px=given.min_px,
        max_aspect=given.max_aspect,
        max_imbalance=given.max_imbalance,
        near_bits=given.near_bits,
    )
    with CheckProgress() as progress:
        report = check_data(
            given.folder,
            limits=limits,
            workers=given.workers,
            quarantine=given.quarantine,
            quarantine_kinds=given.quarantine_kinds,
            on_progress=progress.show,
        )
    if given.json:
        print(json_text(report.as_json()))
    else:
        from resnets.cli.check_screen import print_check

        print_check(report, every=given.all)
    return 1 if report.errors else 0


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("from where on something is odd")
    group.add_argument(
        "--min-px", type=int, default=32, metavar="N", help="shorter side below which an image is tiny (default 32)"
    )
    group.add_argument(
        "--max-aspect", type=float, default=5.0, metavar="R", help="longer side : shorter side that is too long (5)"
    )
    group.add_argument(
        "--max-imbalance", type=float, default=10.0, metavar="R", help="largest : smallest class that is too much (10)"
    )
    group.add_argument(
        "--near-bits",
        type=int,
        default=7,
        metavar="N",
        help="bits of 64 in which the hashes of near duplicates may differ (7); -1 looks for none",
    )


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
