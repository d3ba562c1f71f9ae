"""Table 1: the ImageNet architectures, their depth and their multiply-adds; with the counts of Sec. 1, 3.3 and 4.1.

"FLOPs" in the paper are multiply-adds of convolutions and fully-connected layers at 224 x 224, projections included
(`specs/counts.py`). The 18- and 34-layer columns use option A, as the nets of Table 2 do: with option B the 34-layer
net would round to 3.7.
"""

from __future__ import annotations

from resnets.paper.core.experiment import Computed, Experiment, Row
from resnets.paper.core.verdict import Within
from resnets.specs.catalogue import model_spec
from resnets.specs.counts import count_multiply_adds, count_parameters, layers

NETS = {18: "resnet18-a", 34: "resnet34-a", 50: "resnet50", 101: "resnet101", 152: "resnet152"}
PUBLISHED_MULTIPLY_ADDS = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}
"""In units of 1e9."""
OUTPUT_SIZES = {"conv1": 112, "conv2_x": 56, "conv3_x": 28, "conv4_x": 14, "conv5_x": 7}
"""Side of each stage's map in pixels, the same for all nets."""
EXACT_PARAMETERS = {18: 11_515_688, 34: 21_623_848, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
"""Counted independently of this package, from the authors' prototxts and torchvision's models; not in the paper."""

ROUNDING = Within(
    tolerance=0.06,
    why="the paper prints one digit, rounded, and for 50 layers cut off (3.858 as 3.8)",
)
EQUAL = Within(tolerance=0, why="a count is exact")


def giga_multiply_adds(name: str, *, convolutions_only: bool = False) -> float:
    """Return the multiply-adds of a net at 224 x 224, in units of 1e9."""
    return count_multiply_adds(model_spec(name), 224, 224, convolutions_only=convolutions_only) / 1e9


def wrong_output_sizes(name: str) -> int:
    """Return how many stages of a net end with a map of another size than Table 1 says."""
    last = {layer.stage: layer.output_size for layer in layers(model_spec(name), 224, 224) if layer.branch == "main"}
    return sum(last.get(stage) != (side, side) for stage, side in OUTPUT_SIZES.items())


def convolutions_up_to_conv4(name: str) -> int:
    """Return the convolutions of conv1 to conv4_x without projections: what a detector shares (appendix A)."""
    stages = ("conv1", "conv2_x", "conv3_x", "conv4_x")
    return sum(
        layer.kind == "conv" and layer.branch == "main" and layer.stage in stages
        for layer in layers(model_spec(name), 224, 224)
    )


def _flops(depth: int) -> Row:
    return Row(
        run=f"ResNet-{depth}" + (" (option A)" if depth < 50 else ""),
        meaning="multiply-adds, 1e9",
        ours=Computed(value=lambda: giga_multiply_adds(NETS[depth])),
        rule=ROUNDING,
        paper=PUBLISHED_MULTIPLY_ADDS[depth],
        source="Table 1",
        decimals=3,
    )


def _depth(depth: int) -> Row:
    return Row(
        run=f"ResNet-{depth}",
        meaning="weighted layers",
        ours=Computed(value=lambda: model_spec(NETS[depth]).depth),
        rule=EQUAL,
        paper=depth,
        source="Table 1",
        decimals=0,
    )


def _parameters(depth: int) -> Row:
    return Row(
        run=f"ResNet-{depth}" + (" (option A)" if depth < 50 else ""),
        meaning="parameters minus the independent count",
        ours=Computed(value=lambda: count_parameters(model_spec(NETS[depth])) - EXACT_PARAMETERS[depth]),
        rule=Within(tolerance=0, why="counted from the authors' prototxts and torchvision's models"),
        paper=0,
        source="not printed",
        decimals=0,
    )


def _text(
    run: str, meaning: str, ours: Computed, paper: int | float, source: str, rule: Within, decimals: int = 3
) -> Row:
    return Row(run=run, meaning=meaning, ours=ours, rule=rule, paper=paper, source=source, decimals=decimals)


EXPERIMENT = Experiment(
    title="Table 1. Architectures for ImageNet",
    claim="Nets of 18 to 152 layers from two kinds of blocks; the deepest costs less than VGG-16 or VGG-19.",
    rows=(
        *(_flops(depth) for depth in NETS),
        *(_depth(depth) for depth in NETS),
        Row(
            run="all five nets",
            meaning="stages whose map has another size than Table 1",
            ours=Computed(value=lambda: sum(wrong_output_sizes(name) for name in NETS.values())),
            rule=EQUAL,
            paper=0,
            source="Table 1",
            decimals=0,
        ),
        *(_parameters(depth) for depth in NETS),
        _text(
            "plain-34",
            "multiply-adds, 1e9",
            Computed(value=lambda: giga_multiply_adds("plain34")),
            3.6,
            "Fig. 3",
            ROUNDING,
        ),
        _text(
            "VGG-19",
            "multiply-adds, 1e9",
            Computed(value=lambda: giga_multiply_adds("vgg19")),
            19.6,
            "Fig. 3",
            ROUNDING,
        ),
        _text(
            "VGG-16 (convolutions only)",
            "multiply-adds, 1e9",
            Computed(value=lambda: giga_multiply_adds("vgg16", convolutions_only=True)),
            15.3,
            "Sec. 1",
            ROUNDING,
        ),
        _text(
            "plain-34 : VGG-19",
            "multiply-adds, %",
            Computed(value=lambda: 100 * giga_multiply_adds("plain34") / giga_multiply_adds("vgg19")),
            18,
            "Sec. 3.3",
            Within(tolerance=1, why="printed without decimals, and cut off: 18.6"),
            decimals=1,
        ),
        _text(
            "ResNet-101, conv1 to conv4_x",
            "convolutions",
            Computed(value=lambda: convolutions_up_to_conv4("resnet101")),
            91,
            "App. A",
            EQUAL,
            decimals=0,
        ),
    ),
    notes=(
        "Option A for 18 and 34 layers (Table 2's nets), B for 50, 101 and 152; stride on the first 1x1, as the authors "
        "have it. torchvision's placement (-v1.5) gives 4.09, 7.80 and 11.51, outside the tolerance.",
        "The paper counts VGG-16 without its fully-connected layers and VGG-19 with them; with them VGG-16 has 15.5.",
    ),
)
