"""`resnets report`: what became of one run or several, as one web page that needs no network."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from resnets.cli import flags
from resnets.cli.image_progress import image_progress
from resnets.specs.visible import in_line, visible

if TYPE_CHECKING:
    from resnets.report.build import Report

DESCRIPTION = """\
Write one HTML file about a run, finished or not, or a comparison of several: what was trained on what, the error
curves as the paper draws them, confusions, errors of the classes, calibration, the most confident mistakes with the pixels
that led to them, learning rate, speed and environment. It opens without a network, on a phone too, and prints.

The parts about single images need the images the net was trained for: the digits are always here; name others with
--data or --data-root. Without them the report is made all the same, and says what it lacks.
"""
EPILOG = """\
examples:
  resnets report runs/cifar10.resnet20-seed0 --data-root ~/data          writes runs/cifar10.resnet20-seed0/report.html
  resnets report runs/folder.scratch-seed0 --data photos/
  resnets report runs/demo-seed0/plain runs/demo-seed0/residual --out shortcuts.html --title "What shortcuts do"
"""


def main(arguments: list[str]) -> int:
    """Write the report of the runs that `arguments` name."""
    parser = flags.Parser("report", DESCRIPTION, "RUN [RUN …] [options]", EPILOG)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directory")
    parser.add_argument(
        "--out", metavar="FILE.html", help="default: RUN/report.html; of several runs, report.html in this folder"
    )
    parser.add_argument("--title", metavar="TEXT", help="of the page; default: the names of the runs")
    flags.add_data(parser)
    flags.add_machine(parser)
    flags.add_import(parser)
    flags.add_json(parser)
    given = parser.parse_args(arguments)
    flags.import_modules(given)
    from resnets.report.build import write_report

    report = write_report(
        given.runs,
        out=given.out,
        data=given.data,
        data_root=given.data_root,
        title=given.title,
        machine=flags.machine(given),
        on_images=image_progress(),
    )
    if given.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        _print(report)
    return 0


def _print(report: Report) -> None:
    for part in report.parts:
        if part.missing:
            reason = part.missing.reason.removeprefix(f"{part.record.path}: ")
            print(f"note: {in_line(part.record.name)}: {visible(reason)}", file=sys.stderr)
            if part.missing.command:
                print(visible(f"      {part.missing.command}"), file=sys.stderr)
    print(in_line(f"{report.path}    {report.bytes / 1000:,.0f} kB"))
