"""Table 3: errors on ImageNet's validation images, ten-crop testing (Sec. 4.1); options A, B, C and depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.paper.core.experiment import Experiment, Row
from resnets.paper.core.imagenet import COST, HOW_TO_FILL, MEANINGS, compared_under, on_imagenet, tested
from resnets.paper.core.protocols import ten_crop_rows
from resnets.paper.core.published import arithmetic, in_order, quoted
from resnets.paper.core.verdict import AtLeast, Within

if TYPE_CHECKING:
    from resnets.paper.core.imagenet import Field

TABLE = "Table 3"

PUBLISHED = {
    "plain-34": (28.54, 10.02),
    "ResNet-34 A": (25.03, 7.76),
    "ResNet-34 B": (24.52, 7.46),
    "ResNet-34 C": (24.19, 7.40),
    "ResNet-50": (22.85, 6.71),
    "ResNet-101": (21.75, 6.05),
    "ResNet-152": (21.43, 5.71),
}
"""Top-1 and top-5 error in percent; 50 layers and more have option B."""
PUBLISHED_OTHERS = {
    "VGG-16 (tested by the authors)": (28.07, 9.33),
    "GoogLeNet": (None, 9.15),
    "PReLU-net": (24.27, 7.38),
}
"""Nets of other groups: top-1 error, which is not printed for all, and top-5 error, in percent."""

RECIPES = {
    "plain-34": "plain34",
    "ResNet-34 A": "resnet34_a",
    "ResNet-34 B": "resnet34",
    "ResNet-34 C": "resnet34_c",
    "ResNet-50": "resnet50",
    "ResNet-101": "resnet101",
    "ResNet-152": "resnet152",
}
RUNS = {net: on_imagenet(net, name) for net, name in RECIPES.items()}
TOLERANCES = {
    "top1_error": Within(tolerance=0.5, why="one run each; the recipe has choices that the paper does not state"),
    "top5_error": Within(tolerance=0.3, why="one run each; the recipe has choices that the paper does not state"),
}


def _gain(first: str, second: str) -> float:
    return PUBLISHED[first][0] - PUBLISHED[second][0]


def _errors(place: int, field: Field) -> list[Row]:
    """Return the rows of one kind of error, that of other groups' nets first."""
    others = [
        quoted(net, f"{MEANINGS[field]}, ten-crop", error, TABLE)
        for net, errors in PUBLISHED_OTHERS.items()
        if (error := errors[place]) is not None
    ]
    return others + [
        tested(plan, "ten-crop", field, PUBLISHED[net][place], TABLE, TOLERANCES[field]) for net, plan in RUNS.items()
    ]


EXPERIMENT = Experiment(
    title="Table 3. Shortcut options and depth on ImageNet, ten-crop",
    claim=(
        "All three shortcut options are far better than the plain net and close to one another, so projections are not "
        "essential; 50, 101 and 152 layers are more accurate than 34 by a considerable margin."
    ),
    rows=(
        in_order(
            "top-1, plain-34 to ResNet-152",
            [top1 for top1, _ in PUBLISHED.values()],
            TABLE,
            why="each is better than the one before",
        ),
        in_order(
            "top-5, plain-34 to ResNet-152",
            [top5 for _, top5 in PUBLISHED.values()],
            TABLE,
            why="each is better than the one before",
        ),
        arithmetic(
            "plain-34 - ResNet-34 A",
            lambda: _gain("plain-34", "ResNet-34 A"),
            3.5,
            "Sec. 4.1",
            tolerance=0.05,
            why="printed with one decimal",
        ),
        *ten_crop_rows(),
        *_errors(0, "top1_error"),
        *_errors(1, "top5_error"),
        *(
            compared_under(RUNS[worse], RUNS[better], "ten-crop", round(_gain(worse, better), 2), TABLE, rule)
            for worse, better, rule in (
                ("plain-34", "ResNet-34 A", AtLeast(limit=2, why="all options are far better than the plain net")),
                ("ResNet-34 A", "ResNet-34 B", AtLeast(limit=-0.3, why="B is slightly better; 0.3 is the scatter")),
                ("ResNet-34 B", "ResNet-34 C", AtLeast(limit=-0.3, why="C is marginally better; 0.3 is the scatter")),
                ("ResNet-34 B", "ResNet-50", AtLeast(limit=0.5, why="deeper is better")),
                ("ResNet-50", "ResNet-101", AtLeast(limit=0.3, why="deeper is better")),
                ("ResNet-101", "ResNet-152", AtLeast(limit=-0.2, why="deeper is better, by 0.3 in the paper")),
            )
        ),
    ),
    cost={"full": COST},
    notes=(
        HOW_TO_FILL.format(protocol="ten-crop"),
        "The authors' released models, tested by them with ten crops: 22.9 / 6.7, 21.8 / 6.1 and 21.4 / 5.7 for 50, 101 "
        "and 152 layers, these rows rounded.",
    ),
)
