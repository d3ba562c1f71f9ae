"""Table 13: localisation on ImageNet's validation images, stage by stage (App. C)."""

from __future__ import annotations

from resnets.paper.core.detection import no_localizer
from resnets.paper.core.experiment import Experiment, Row
from resnets.paper.core.published import in_order, quoted, waiting
from resnets.paper.core.verdict import Report, Within

TABLE = "Table 13"
GIVEN = "localisation error, class given, %"
PREDICTED = "top-5 localisation error, classes predicted, %"

PUBLISHED_VGG = 33.1
"""VGG-16, centre crop, class given, in percent."""
PUBLISHED_GIVEN = {"RPN (ResNet-101, 1-crop)": 13.3, "RPN (ResNet-101, dense)": 11.7}
PUBLISHED_PREDICTED = {
    "RPN (ResNet-101, dense)": 14.4,
    "RPN + R-CNN (ResNet-101, dense)": 10.6,
    "RPN + R-CNN (ensembles, dense)": 8.9,
}
"""Classes from ResNet-101, from ensembles in the last row; in percent."""

_ONE_RUN = Within(tolerance=1.0, why="one run; the anchors and the learning rate are not stated")


def _row(run: str, meaning: str, paper: int | float) -> Row:
    rule = Report(why="the paper does not say which networks") if "ensembles" in run else _ONE_RUN
    return waiting(run, meaning, paper, TABLE, no_localizer("table13"), rule=rule)


EXPERIMENT = Experiment(
    title="Table 13. Localisation on the ImageNet validation set",
    claim=(
        "A proposal network for each class lowers the localisation error from 33.1 to 13.3 % where the class is given; "
        "an R-CNN on its proposals lowers the top-5 error from 14.4 to 10.6 %, ensembles to 8.9 %."
    ),
    rows=(
        in_order(
            "class given: VGG, 1-crop, dense",
            [PUBLISHED_VGG, *PUBLISHED_GIVEN.values()],
            TABLE,
            why="each is better than the one before",
        ),
        in_order(
            "predicted: RPN, + R-CNN, ensembles",
            list(PUBLISHED_PREDICTED.values()),
            TABLE,
            why="each is better than the one before",
        ),
        quoted("VGG's (VGG-16, 1-crop)", GIVEN, PUBLISHED_VGG, TABLE, decimals=1),
        *(_row(run, GIVEN, paper) for run, paper in PUBLISHED_GIVEN.items()),
        *(_row(run, PREDICTED, paper) for run, paper in PUBLISHED_PREDICTED.items()),
    ),
    notes=(
        "An image is right if one of its five pairs of class and box has the right class and an IoU of 0.5 with a box of "
        "that class.",
    ),
)
