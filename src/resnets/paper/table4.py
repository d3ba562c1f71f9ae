"""Table 4: errors of single models on ImageNet's validation images in the best test mode: dense, at five scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.paper import table3
from resnets.paper.core.experiment import Experiment, FromRuns, Row
from resnets.paper.core.imagenet import (
    COST,
    HOW_TO_FILL,
    MEANINGS,
    error_under,
    on_imagenet,
    precisions_under,
    tested,
    what_is_missing,
)
from resnets.paper.core.protocols import dense_rows
from resnets.paper.core.published import in_order, quoted
from resnets.paper.core.verdict import AtLeast, Within

if TYPE_CHECKING:
    from resnets.paper.core.imagenet import Field

TABLE = "Table 4"

PUBLISHED = {
    "ResNet-34 B": (21.84, 5.71),
    "ResNet-34 C": (21.53, 5.60),
    "ResNet-50": (20.74, 5.25),
    "ResNet-101": (19.87, 4.60),
    "ResNet-152": (19.38, 4.49),
}
"""Top-1 and top-5 error in percent."""
PUBLISHED_OTHERS = {
    "VGG (ILSVRC'14)": (None, 8.43),
    "GoogLeNet (ILSVRC'14)": (None, 7.89),
    "VGG (v5)": (24.4, 7.1),
    "PReLU-net": (21.59, 5.71),
    "BN-inception": (21.99, 5.81),
}
"""Nets of other groups in their best test modes, in percent; VGG (ILSVRC'14) is on the test images."""

RUNS = {net: on_imagenet(net, table3.RECIPES[net]) for net in PUBLISHED}
GAINS = ("ResNet-34 B", "ResNet-50", "ResNet-101", "ResNet-152")
"""Nets whose top-1 error of ten crops (Table 3) is compared with that of dense testing."""
TOLERANCE = Within(tolerance=0.4, why="one run each; the paper does not state all of the dense test")


def printed_gain(net: str) -> float:
    """Return how much lower a net's printed top-1 error is in dense testing than with ten crops."""
    return table3.PUBLISHED[net][0] - PUBLISHED[net][0]


def _gain(net: str) -> Row:
    ten_crop, dense = error_under("ten-crop", "top1_error"), error_under("dense", "top1_error")
    return Row(
        run=net,
        meaning="top-1 error, ten-crop minus dense, points",
        ours=FromRuns(
            runs=(RUNS[net],),
            read=lambda run: ten_crop(run) - dense(run),
            missing=what_is_missing("ten-crop", "dense"),
            tested_in=precisions_under("ten-crop", "dense"),
        ),
        rule=AtLeast(limit=1, why="dense testing at five scales is worth about two points"),
        paper=round(printed_gain(net), 2),
        source="Tables 3 and 4",
        budget="full",
    )


def _errors(place: int, field: Field) -> list[Row]:
    """Return the rows of one kind of error, that of other groups' nets first."""
    others = [
        quoted(net, f"{MEANINGS[field]}, dense", error, TABLE)
        for net, errors in PUBLISHED_OTHERS.items()
        if (error := errors[place]) is not None
    ]
    return others + [
        tested(plan, "dense", field, PUBLISHED[net][place], TABLE, TOLERANCE) for net, plan in RUNS.items()
    ]


EXPERIMENT = Experiment(
    title="Table 4. Single models on ImageNet, dense testing at five scales",
    claim="A single ResNet-152 has a top-5 error of 4.49 %, better than every ensemble before it.",
    rows=(
        in_order(
            "top-1, ResNet-34 B to ResNet-152",
            [top1 for top1, _ in PUBLISHED.values()],
            TABLE,
            why="each is better than the one before",
        ),
        in_order(
            "top-5, ResNet-34 B to ResNet-152",
            [top5 for _, top5 in PUBLISHED.values()],
            TABLE,
            why="each is better than the one before",
        ),
        *dense_rows(),
        *_errors(0, "top1_error"),
        *_errors(1, "top5_error"),
        *map(_gain, GAINS),
    ),
    cost={"full": COST},
    notes=(
        HOW_TO_FILL.format(protocol="dense"),
        "Dense: the net fully convolutional on the whole image, shorter side 224, 256, 384, 480 and 640, softmax scores "
        "averaged over locations, mirror images and scales. The other groups' nets are in their own best test "
        "modes, VGG (ILSVRC'14) on the test images.",
    ),
)
