"""Table 10: average precision of each class on PASCAL VOC 2007 test (App. A and B)."""

from __future__ import annotations

from resnets.paper.core.detection import ONE_RUN
from resnets.paper.core.verdict import Report
from resnets.paper.core.voc_classes import numbers, voc_experiment

PUBLISHED = {
    "VGG-16 baseline (07+12)": (
        73.2,
        numbers("76.5 79.0 70.9 65.5 52.1 83.1 84.7 86.4 52.0 81.9 65.7 84.8 84.6 77.5 76.7 38.8 73.6 73.9 83.0 72.6"),
    ),
    "ResNet-101 baseline (07+12)": (
        76.4,
        numbers("79.8 80.7 76.2 68.3 55.9 85.1 85.3 89.8 56.7 87.8 69.4 88.3 88.9 80.9 78.4 41.7 78.6 79.8 85.3 72.0"),
    ),
    "ResNet-101 baseline+++ (COCO+07+12)": (
        85.6,
        numbers("90.0 89.6 87.8 80.8 76.1 89.9 89.9 89.6 75.5 90.0 80.7 89.6 90.3 89.1 88.7 65.4 88.1 85.6 89.0 86.8"),
    ),
}
"""mAP and the average precision of the twenty classes, in percent, by system, net and training data."""

RULES = {
    "VGG-16 baseline (07+12)": ONE_RUN,
    "ResNet-101 baseline (07+12)": ONE_RUN,
    "ResNet-101 baseline+++ (COCO+07+12)": Report(why="the schedule of the fine-tuning is not stated"),
}

EXPERIMENT = voc_experiment(
    number=10,
    year=2007,
    claim=("With COCO's data and the improvements of App. B, ResNet-101 has an mAP of 85.6 % on VOC 2007."),
    systems=PUBLISHED,
    rules=RULES,
)
