"""Table 8: Faster R-CNN with VGG-16 and ResNet-101 on the validation images of MS COCO (Sec. 4.3, App. A)."""

from __future__ import annotations

from resnets.paper.core.detection import DETECTION_NOTE, ONE_RUN, no_detector
from resnets.paper.core.experiment import Experiment
from resnets.paper.core.published import arithmetic, waiting

TABLE = "Table 8"
AT_50, AT_ALL = "mAP at IoU 0.5, %", "mAP at IoU 0.5 to 0.95, %"

PUBLISHED = {AT_50: {"VGG-16": 41.5, "ResNet-101": 48.4}, AT_ALL: {"VGG-16": 21.2, "ResNet-101": 27.2}}
"""Trained on COCO's 80,000 training images, tested on its 40,000 validation images."""


def gain(metric: str) -> float:
    """Return the printed mAP of ResNet-101 minus that of VGG-16."""
    return PUBLISHED[metric]["ResNet-101"] - PUBLISHED[metric]["VGG-16"]


EXPERIMENT = Experiment(
    title="Table 8. Detection on COCO, baseline Faster R-CNN",
    claim=(
        "ResNet-101 in the place of VGG-16 raises COCO's metric by 6.0 points, a relative improvement of 28 % that is due "
        "to the learned representations alone. That the gain at an IoU of 0.5 is about as large suggests that depth helps "
        "both recognition and localisation."
    ),
    rows=(
        *(
            arithmetic(
                f"ResNet-101 - VGG-16, {metric.removeprefix('mAP at ').removesuffix(', %')}",
                lambda metric=metric: gain(metric),
                paper,
                "Sec. 4.3, App. A",
                tolerance=0,
                why="a difference of printed numbers",
                decimals=1,
            )
            for metric, paper in ((AT_50, 6.9), (AT_ALL, 6.0))
        ),
        arithmetic(
            "relative gain, IoU 0.5 to 0.95",
            lambda: 100 * gain(AT_ALL) / PUBLISHED[AT_ALL]["VGG-16"],
            28,
            "Sec. 4.3",
            tolerance=0.5,
            why="printed without decimals",
            unit="%",
            decimals=1,
        ),
        *(
            waiting(net, metric, value, TABLE, no_detector("COCO", "table8"), rule=ONE_RUN)
            for metric, nets in PUBLISHED.items()
            for net, value in nets.items()
        ),
    ),
    notes=(
        DETECTION_NOTE,
        "The paper trains 240k iterations at 0.001 and 80k at 0.0001; the text of Faster R-CNN gives 0.003 and 0.0003 for "
        "the same VGG-16 numbers.",
    ),
)
