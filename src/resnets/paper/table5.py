"""Table 5: top-5 errors of ensembles on the ImageNet test images, which a server scores."""

from __future__ import annotations

from resnets.paper.core.experiment import Experiment
from resnets.paper.core.protocols import ensemble_rows
from resnets.paper.core.published import arithmetic, quoted, waiting
from resnets.paper.core.verdict import Report

TABLE = "Table 5"
MEANING = "top-5 error on the test images, %"

PUBLISHED = 3.57
PUBLISHED_OTHERS = {
    "VGG (ILSVRC'14)": 7.32,
    "GoogLeNet (ILSVRC'14)": 6.66,
    "VGG (v5)": 6.8,
    "PReLU-net": 4.94,
    "BN-inception": 4.82,
}
"""Ensembles of other groups, in percent."""
SINGLE_RESNET_152 = 4.49
"""Top-5 error of one ResNet-152 on the validation images (Table 4), in percent."""


EXPERIMENT = Experiment(
    title="Table 5. Ensembles on the ImageNet test set",
    claim=(
        "Six residual nets of different depths, two of them with 152 layers, have a top-5 error of 3.57 %: first place "
        "of ILSVRC 2015. A single ResNet-152 is better than all ensembles before."
    ),
    rows=(
        arithmetic(
            "earlier ensembles at or below ResNet-152",
            lambda: sum(error <= SINGLE_RESNET_152 for error in PUBLISHED_OTHERS.values()),
            0,
            "Sec. 4.1",
            tolerance=0,
            why="one net (Table 4, validation images) is better than every earlier ensemble",
            unit="ensembles",
            decimals=0,
        ),
        *ensemble_rows(),
        *(quoted(name, MEANING, error, TABLE) for name, error in PUBLISHED_OTHERS.items()),
        waiting(
            "ResNet, ensemble of six (ILSVRC'15)",
            MEANING,
            PUBLISHED,
            TABLE,
            "the labels of the test images are not public, and the paper does not say which four nets joined the two of "
            "152 layers; for an ensemble of yours on the validation images: resnets evaluate RUN RUN … --data IMAGENET "
            "--protocol dense",
            rule=Report(why="another set of images and of nets than any that can be tested here"),
            decimals=2,
        ),
    ),
    notes=(
        "The softmax scores of the six nets are averaged with equal weight in `resnets evaluate`; that the paper's were "
        "is implied, not stated.",
    ),
)
