"""Tables 10 and 11: average precision of each PASCAL VOC class, for three systems; one table a year."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from resnets.paper.core.detection import DETECTION_NOTE, no_detector, per_class_rows
from resnets.paper.core.experiment import Experiment
from resnets.paper.core.published import arithmetic, waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resnets.paper.core.verdict import Rule

    Systems = Mapping[str, tuple[float, tuple[float, ...]]]


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of a line of a table.

    >>> numbers("76.5 79.0")
    (76.5, 79.0)
    """
    return tuple(map(float, text.split()))


def voc_experiment(*, number: int, year: int, claim: str, systems: Systems, rules: Mapping[str, Rule]) -> Experiment:
    """Return the experiment of Table `number`: mAP and the precision of each class.

    Args:
        number: of the table.
        year: of the test images.
        claim: what the paper says with it.
        systems: mAP and the precisions of the twenty classes, in percent, by the name of the system.
        rules: how the mAP of each system is judged.
    """
    table = f"Table {number}"
    reason = no_detector("PASCAL VOC", f"table{number}")
    return Experiment(
        title=f"{table}. Detection on PASCAL VOC {year}, class by class",
        claim=claim,
        rows=(
            *(
                arithmetic(
                    system,
                    lambda values=values: statistics.fmean(values),
                    mean,
                    table,
                    tolerance=0.1,
                    why="half a unit of the last digit in the mean and in each class",
                    unit="mean of the 20 classes, %",
                    decimals=3,
                    printed=f"{mean:.1f}",
                )
                for system, (mean, values) in systems.items()
            ),
            *(
                waiting(system, f"mAP on VOC {year} test, %", mean, table, reason, rule=rules[system])
                for system, (mean, _) in systems.items()
            ),
            *(row for system, (_, values) in systems.items() for row in per_class_rows(system, values, table, reason)),
        ),
        notes=(
            DETECTION_NOTE,
            "baseline+++ is the model of COCO, fine-tuned on VOC, with box refinement, context and multi-scale testing.",
        ),
    )
