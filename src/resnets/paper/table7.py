"""Table 7: Faster R-CNN with VGG-16 and ResNet-101 on PASCAL VOC 2007 and 2012 (Sec. 4.3, App. A)."""

from __future__ import annotations

from resnets.paper.core.detection import DETECTION_NOTE, ONE_RUN, SERVER, no_detector
from resnets.paper.core.experiment import Experiment
from resnets.paper.core.published import more_than, waiting

TABLE = "Table 7"

PUBLISHED = {
    "VOC 2007 test, trained on 07+12": {"VGG-16": 73.2, "ResNet-101": 76.4},
    "VOC 2012 test, trained on 07++12": {"VGG-16": 70.4, "ResNet-101": 73.8},
}
"""mAP at IoU 0.5, in percent."""


EXPERIMENT = Experiment(
    title="Table 7. Detection on PASCAL VOC, baseline Faster R-CNN",
    claim="Replacing VGG-16 by ResNet-101 raises the mAP by more than 3 points on both test sets.",
    rows=(
        *(
            more_than(
                f"ResNet-101 - VGG-16, {test.partition(' test')[0]}",
                lambda nets=nets: nets["ResNet-101"] - nets["VGG-16"],
                3,
                "App. A",
                why="the text says by more than 3 points",
                printed="> 3",
            )
            for test, nets in PUBLISHED.items()
        ),
        *(
            waiting(
                net,
                f"mAP, %, {test}",
                value,
                TABLE,
                no_detector("PASCAL VOC", "table7"),
                rule=SERVER if "2012 test" in test else ONE_RUN,
            )
            for test, nets in PUBLISHED.items()
            for net, value in nets.items()
        ),
    ),
    notes=(
        DETECTION_NOTE,
        "07+12: trainval of both years. 07++12: trainval and test of 2007 with trainval of 2012.",
    ),
)
