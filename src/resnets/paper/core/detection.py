"""What the tables of detection and localisation share: why their rows are empty, and what each system adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.paper.core.published import waiting
from resnets.paper.core.verdict import Report, Within

if TYPE_CHECKING:
    from resnets.paper.core.experiment import Row

SERVER = Report(why="scored by the benchmark's server, whose labels are not public")
ONE_RUN = Within(tolerance=1.0, why="one run; the settings that the paper leaves open are those of Faster R-CNN")
ENSEMBLE = Report(why="the paper does not say which three networks")

DETECTION_NOTE = (
    "Faster R-CNN after App. A: conv1 to conv4_x shared by the proposal network and the detector, RoI pooling before "
    "conv5_1, BatchNorm fixed. VGG-16 is the same system with the other net."
)


def no_detector(data: str, name: str) -> str:
    """Return the reason of rows that wait for detection; `data` is what the user supplies, `name` the experiment."""
    return (
        f"this package has no detector yet, and you supply {data}; once it has one, `resnets reproduce {name} --budget full "
        "--data-root DIR` fills the row"
    )


def no_localizer(name: str) -> str:
    """Return the reason of rows that wait for localisation."""
    return (
        "this package has no localisation yet, and you supply ImageNet with its boxes; once it has it, `resnets reproduce "
        f"{name} --budget full --data-root DIR` fills the row"
    )


CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""PASCAL VOC's classes, in the order of Tables 10 and 11."""


def per_class_rows(system: str, values: tuple[float, ...], source: str, reason: str) -> list[Row]:
    """Return a row for the average precision of each of VOC's classes."""
    return [
        waiting(name, f"average precision, %: {system}", value, source, reason, rule=Report(why="one class of twenty"))
        for name, value in zip(CLASSES, values, strict=True)
    ]
