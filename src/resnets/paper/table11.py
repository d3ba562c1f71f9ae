"""Table 11: average precision of each class on PASCAL VOC 2012 test (App. A and B)."""

from __future__ import annotations

from resnets.paper.core.detection import SERVER
from resnets.paper.core.voc_classes import numbers, voc_experiment

PUBLISHED = {
    "VGG-16 baseline (07++12)": (
        70.4,
        numbers("84.9 79.8 74.3 53.9 49.8 77.5 75.9 88.5 45.6 77.1 55.3 86.9 81.7 80.9 79.6 40.1 72.6 60.9 81.2 61.5"),
    ),
    "ResNet-101 baseline (07++12)": (
        73.8,
        numbers("86.5 81.6 77.2 58.0 51.0 78.6 76.6 93.2 48.6 80.4 59.0 92.1 85.3 84.8 80.7 48.1 77.3 66.5 84.7 65.6"),
    ),
    "ResNet-101 baseline+++ (COCO+07++12)": (
        83.8,
        numbers("92.1 88.4 84.8 75.9 71.4 86.3 87.8 94.2 66.8 89.4 69.2 93.9 91.9 90.9 89.6 67.9 88.2 76.8 90.3 80.0"),
    ),
}
"""mAP and the average precision of the twenty classes, in percent, by system, net and training data."""

RULES = {
    "VGG-16 baseline (07++12)": SERVER,
    "ResNet-101 baseline (07++12)": SERVER,
    "ResNet-101 baseline+++ (COCO+07++12)": SERVER,
}

EXPERIMENT = voc_experiment(
    number=11,
    year=2012,
    claim=(
        "With COCO's data and the improvements of App. B, ResNet-101 has an mAP of 83.8 % on VOC 2012, about 10 points above the best before."
    ),
    systems=PUBLISHED,
    rules=RULES,
)
