"""Table 2: plain and residual nets of 18 and 34 layers on ImageNet (Sec. 4.1), ten-crop testing."""

from __future__ import annotations

from resnets.paper.core.experiment import Computed, Experiment, Row
from resnets.paper.core.imagenet import COST, HOW_TO_FILL, compared_under, on_imagenet, tested
from resnets.paper.core.protocols import ten_crop_rows
from resnets.paper.core.published import arithmetic
from resnets.paper.core.verdict import Above, AtLeast, Within
from resnets.specs.counts import count_parameters

PUBLISHED = {"plain-18": 27.94, "plain-34": 28.54, "ResNet-18": 27.88, "ResNet-34": 25.03}
"""Top-1 error on the validation images, ten-crop, in percent; the residual nets have option A, no extra parameters."""

RUNS = {
    "plain-18": on_imagenet("plain-18", "plain18"),
    "plain-34": on_imagenet("plain-34", "plain34"),
    "ResNet-18": on_imagenet("ResNet-18", "resnet18_a"),
    "ResNet-34": on_imagenet("ResNet-34", "resnet34_a"),
}
TABLE = "Table 2"
CUT_OFF = "printed with one decimal, cut off or rounded"


def difference(first: str, second: str) -> float:
    """Return the difference of two printed errors."""
    return PUBLISHED[first] - PUBLISHED[second]


def _parameters_beyond_plain(depth: int) -> int:
    """Return how many parameters the residual net of Table 2 has beyond the plain one of its depth."""
    residual, plain = (RUNS[f"{kind}-{depth}"].spec.model for kind in ("ResNet", "plain"))
    return count_parameters(residual) - count_parameters(plain)


EXPERIMENT = Experiment(
    title="Table 2. Plain and residual nets on ImageNet",
    claim=(
        "The plain net of 34 layers is worse than that of 18. With shortcuts, and no parameter more, 34 layers are better "
        "by 2.8 points."
    ),
    rows=(
        arithmetic(
            "plain-34 - ResNet-34",
            lambda: difference("plain-34", "ResNet-34"),
            3.5,
            "Sec. 4.1",
            tolerance=0.05,
            why=CUT_OFF,
        ),
        arithmetic(
            "ResNet-18 - ResNet-34",
            lambda: difference("ResNet-18", "ResNet-34"),
            2.8,
            "Sec. 4.1",
            tolerance=0.06,
            why=CUT_OFF,
        ),
        *(
            Row(
                run=f"ResNet-{depth} - plain-{depth}, our nets",
                meaning="parameters",
                ours=Computed(value=lambda depth=depth: _parameters_beyond_plain(depth)),
                rule=Within(tolerance=0, why="the residual nets have no extra parameter"),
                paper=0,
                source=TABLE,
                decimals=0,
            )
            for depth in (18, 34)
        ),
        *ten_crop_rows(),
        *(
            tested(
                plan,
                "ten-crop",
                "top1_error",
                PUBLISHED[net],
                TABLE,
                Within(tolerance=0.6, why="one run each; schedules by the plateau rule differ"),
            )
            for net, plan in RUNS.items()
        ),
        compared_under(
            RUNS["plain-34"],
            RUNS["plain-18"],
            "ten-crop",
            round(difference("plain-34", "plain-18"), 2),
            TABLE,
            Above(limit=0, why="degradation: the deeper plain net is worse"),
        ),
        compared_under(
            RUNS["ResNet-18"],
            RUNS["ResNet-34"],
            "ten-crop",
            round(difference("ResNet-18", "ResNet-34"), 2),
            TABLE,
            AtLeast(limit=2, why="with shortcuts the deeper net is better, by 2.85 in the paper"),
        ),
        compared_under(
            RUNS["plain-34"],
            RUNS["ResNet-34"],
            "ten-crop",
            round(difference("plain-34", "ResNet-34"), 2),
            TABLE,
            AtLeast(limit=2, why="shortcuts lower the error, by 3.51 in the paper"),
        ),
    ),
    cost={"full": COST},
    notes=(HOW_TO_FILL.format(protocol="ten-crop"), "In small, on 20 classes: figure4 --budget cpu."),
)
