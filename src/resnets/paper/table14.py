"""Table 14: top-5 localisation errors on ImageNet of four years' best systems (App. C)."""

from __future__ import annotations

from resnets.paper import table13
from resnets.paper.core.detection import SERVER, no_localizer
from resnets.paper.core.experiment import Experiment
from resnets.paper.core.published import arithmetic, in_order, quoted, waiting
from resnets.paper.core.verdict import Report

TABLE = "Table 14"
VAL, TEST = "top-5 localisation error, validation, %", "top-5 localisation error, test, %"

PUBLISHED = {VAL: 8.9, TEST: 9.0}
"""Ensembles of ILSVRC'15, in percent."""
PUBLISHED_OTHERS = {
    "OverFeat (ILSVRC'13)": {VAL: 30.0, TEST: 29.9},
    "GoogLeNet (ILSVRC'14)": {TEST: 26.7},
    "VGG (ILSVRC'14)": {VAL: 26.9, TEST: 25.3},
}
"""Systems of other groups, in percent."""
OURS = "ensembles (ILSVRC'15)"


EXPERIMENT = Experiment(
    title="Table 14. Localisation against other systems",
    claim="A test error of 9.0 %, 64 % less than the best of 2014: first place of ILSVRC 2015.",
    rows=(
        arithmetic(
            "relative reduction against VGG, test",
            lambda: 100 * (1 - PUBLISHED[TEST] / PUBLISHED_OTHERS["VGG (ILSVRC'14)"][TEST]),
            64,
            "App. C",
            tolerance=0.5,
            why="printed without decimals",
            unit="%",
            decimals=1,
        ),
        arithmetic(
            "validation error minus Table 13's",
            lambda: PUBLISHED[VAL] - table13.PUBLISHED_PREDICTED["RPN + R-CNN (ensembles, dense)"],
            0,
            "Tables 13 and 14",
            tolerance=0,
            why="the same ensembles",
            decimals=1,
        ),
        in_order(
            "test: OverFeat, GoogLeNet, VGG, ResNet",
            [*(errors[TEST] for errors in PUBLISHED_OTHERS.values()), PUBLISHED[TEST]],
            TABLE,
            why="each is better than the one before",
        ),
        *(
            row
            for meaning, rule in ((VAL, Report(why="the paper does not say which networks")), (TEST, SERVER))
            for row in (
                *(
                    quoted(system, meaning, errors[meaning], TABLE, decimals=1)
                    for system, errors in PUBLISHED_OTHERS.items()
                    if meaning in errors
                ),
                waiting(OURS, meaning, PUBLISHED[meaning], TABLE, no_localizer("table14"), rule=rule),
            )
        ),
    ),
)
