"""Table 12: detection of 200 categories on ImageNet DET (App. B)."""

from __future__ import annotations

from resnets.paper.core.detection import ENSEMBLE, SERVER, no_detector
from resnets.paper.core.experiment import Experiment
from resnets.paper.core.published import in_order, quoted, waiting
from resnets.paper.core.verdict import Report

TABLE = "Table 12"
VAL2, TEST = "mAP at IoU 0.5 on val2, %", "mAP at IoU 0.5 on test, %"

PUBLISHED_GOOGLENET_TEST = 43.9
PUBLISHED = {
    "single model (ILSVRC'15)": {VAL2: 60.5, TEST: 58.8},
    "ensemble of 3 (ILSVRC'15)": {VAL2: 63.6, TEST: 62.1},
}
"""ResNet-101, in percent."""

_REASON = no_detector("ImageNet DET", "table12")


EXPERIMENT = Experiment(
    title="Table 12. Detection on ImageNet DET",
    claim=(
        "The system of COCO, fine-tuned on DET, has 58.8 % with one model and 62.1 % with three: first place of ILSVRC "
        "2015, 8.5 points ahead of the second."
    ),
    rows=(
        in_order(
            "test: ensemble, single, GoogLeNet",
            [*(values[TEST] for values in reversed(PUBLISHED.values())), PUBLISHED_GOOGLENET_TEST],
            TABLE,
            why="each is better than the next",
        ),
        waiting(
            "single model (ILSVRC'15)",
            VAL2,
            PUBLISHED["single model (ILSVRC'15)"][VAL2],
            TABLE,
            _REASON,
            rule=Report(why="the paper does not state the schedule"),
        ),
        waiting(
            "ensemble of 3 (ILSVRC'15)",
            VAL2,
            PUBLISHED["ensemble of 3 (ILSVRC'15)"][VAL2],
            TABLE,
            _REASON,
            rule=ENSEMBLE,
        ),
        quoted("GoogLeNet (ILSVRC'14)", TEST, PUBLISHED_GOOGLENET_TEST, TABLE, decimals=1),
        *(waiting(system, TEST, values[TEST], TABLE, _REASON, rule=SERVER) for system, values in PUBLISHED.items()),
    ),
)
