"""Table 9: what each improvement of the detector adds on MS COCO (App. B)."""

from __future__ import annotations

from resnets.paper.core.detection import ENSEMBLE, ONE_RUN, SERVER, no_detector
from resnets.paper.core.experiment import Experiment, Row
from resnets.paper.core.published import arithmetic, more_than, waiting
from resnets.paper.core.verdict import Report

TABLE = "Table 9"
METRICS = ("mAP at IoU 0.5, %", "mAP at IoU 0.5 to 0.95, %")

PUBLISHED_VAL = {
    "VGG-16 baseline": (41.5, 21.2),
    "ResNet-101 baseline": (48.4, 27.2),
    "+ box refinement": (49.9, 29.9),
    "+ context": (51.1, 30.0),
    "+ multi-scale testing": (53.8, 32.5),
}
"""Trained on train, tested on val; each row has what is above it. In the order of `METRICS`, percent."""
PUBLISHED_TEST_DEV = {
    "+ context": (53.3, 32.2),
    "+ multi-scale testing": (55.7, 34.9),
    "ensemble of 3": (59.0, 37.4),
}
"""Trained on trainval, tested on test-dev."""


def step(after: str, before: str, place: int) -> float:
    """Return what an improvement adds on val by the printed numbers, in points; `place` is that of the metric."""
    return PUBLISHED_VAL[after][place] - PUBLISHED_VAL[before][place]


def _claim(
    after: str, before: str, place: int, paper: int | float, printed: str, tolerance: int | float, why: str
) -> Row:
    metric = METRICS[place].removeprefix("mAP at ").removesuffix(", %")
    return arithmetic(
        f"{after}, {metric}",
        lambda: step(after, before, place),
        paper,
        "App. B",
        tolerance=tolerance,
        why=why,
        decimals=1,
        printed=printed,
    )


EXPERIMENT = Experiment(
    title="Table 9. Improvements of the detector on COCO",
    claim=(
        "Box refinement, global context and multi-scale testing each add to the mAP of ResNet-101; with an ensemble of "
        "three, 59.0 and 37.4 on test-dev: first place of COCO detection 2015."
    ),
    rows=(
        _claim(
            "+ box refinement", "ResNet-101 baseline", 0, 2, "about 2", 0.75, "the text has one number for 1.5 and 2.7"
        ),
        _claim(
            "+ box refinement", "ResNet-101 baseline", 1, 2, "about 2", 0.75, "the text has one number for 1.5 and 2.7"
        ),
        _claim("+ context", "+ box refinement", 0, 1, "about 1", 0.5, "rounded in the text"),
        more_than(
            "+ multi-scale testing, IoU 0.5",
            lambda: step("+ multi-scale testing", "+ context", 0),
            2,
            "App. B",
            why="the text says over 2 points",
            printed="over 2",
        ),
        *(
            waiting(
                system,
                f"{metric}, val",
                values[place],
                TABLE,
                no_detector("COCO", "table9"),
                rule=ONE_RUN if system.endswith("baseline") else Report(why="judged by what each step adds"),
            )
            for place, metric in enumerate(METRICS)
            for system, values in PUBLISHED_VAL.items()
        ),
        *(
            waiting(
                system,
                f"{metric}, test-dev",
                values[place],
                TABLE,
                no_detector("COCO", "table9"),
                rule=ENSEMBLE if system.startswith("ensemble") else SERVER,
            )
            for place, metric in enumerate(METRICS)
            for system, values in PUBLISHED_TEST_DEV.items()
        ),
    ),
    notes=("Each row has what the rows above it have. The text gives about 2 points for box refinement.",),
)
