"""Statements of the paper about its nets that are exact, so that they must hold to the last digit.

The counts net by net (Table 1, Table 6) are in specs/test_counts.py; here is what the paper says about them.
"""

import pytest
import torch
from torch import nn

from resnets.models.build import build
from resnets.specs.catalogue import CIFAR_DEPTHS, model_spec, paper_figures
from resnets.specs.counts import count_multiply_adds, count_parameters, layers

TABLE_1 = {"resnet18-a": 1.8, "resnet34-a": 3.6, "resnet50": 3.8, "resnet101": 7.6, "resnet152": 11.3}
TABLE_6 = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7", 1202: "19.4"}


def giga_multiply_adds(name, **how):
    return count_multiply_adds(model_spec(name), 224, 224, **how) / 1e9


def projections(name):
    spec = model_spec(name)
    return sum(layer.branch == "projection" and layer.kind == "conv" for layer in layers(spec, 224, 224))


@pytest.mark.parametrize(("name", "printed"), TABLE_1.items())
def test_multiply_adds_are_those_of_table_1(name, printed):
    assert giga_multiply_adds(name) == pytest.approx(printed, abs=0.06)
    assert paper_figures(name).multiply_adds == printed


@pytest.mark.parametrize(("name", "printed"), [("resnet50", 3.8), ("resnet101", 7.6), ("resnet152", 11.3)])
def test_only_the_stride_on_the_1x1_gives_the_figures_of_table_1(name, printed):
    assert giga_multiply_adds(f"{name}-v1.5") - printed > 0.06


def test_multiply_adds_of_vgg_and_plain34_are_those_of_the_text():
    assert giga_multiply_adds("vgg19") == pytest.approx(19.6, abs=0.06)
    assert giga_multiply_adds("vgg16", convolutions_only=True) == pytest.approx(15.3, abs=0.06)
    assert giga_multiply_adds("vgg16") == pytest.approx(15.47, abs=0.01)
    assert giga_multiply_adds("plain34") == pytest.approx(3.6, abs=0.06)
    # "only 18% of VGG-19" (Sec. 3.3)
    assert giga_multiply_adds("plain34") / giga_multiply_adds("vgg19") == pytest.approx(0.18, abs=0.01)
    # "still has lower complexity than VGG-16/19" (Sec. 4.1)
    assert giga_multiply_adds("resnet152") < giga_multiply_adds("vgg16")


@pytest.mark.parametrize(("depth", "printed"), TABLE_6.items())
def test_parameters_are_those_of_table_6_after_rounding(depth, printed):
    millions = count_parameters(model_spec(f"cifar-resnet{depth}")) / 1e6
    assert f"{millions:.{len(printed.partition('.')[2])}f}" == printed
    assert paper_figures(f"cifar-resnet{depth}").parameters == f"{printed}M"


def test_parameters_of_cifar_nets_follow_their_closed_form():
    for n in (1, 2, 3, 5, 7, 9, 18, 50, 200):
        assert count_parameters(model_spec(f"cifar-resnet{6 * n + 2}")) == 97_216 * n - 21_926


@pytest.mark.parametrize("depth", [18, 34, *CIFAR_DEPTHS["plain"]])
def test_a_plain_net_has_exactly_the_cost_of_the_residual_one(depth):
    plain, residual = ("plain{}", "resnet{}-a") if depth in (18, 34) else ("cifar-plain{}", "cifar-resnet{}")
    plain, residual = model_spec(plain.format(depth)), model_spec(residual.format(depth))
    assert layers(plain, 224, 224) == layers(residual, 224, 224)


def identity_weights(block, *, plain):
    """Make a block the identity on inputs that are not negative, as the outputs of ReLU are."""
    for norm in (block.bn1, block.bn2):
        norm.weight.data.fill_((1 + norm.eps) ** 0.5)
    if plain:
        for conv in (block.conv1, block.conv2):
            nn.init.dirac_(conv.weight)
    else:
        nn.init.zeros_(block.conv2.weight)


@pytest.mark.parametrize("family", ["plain", "resnet"])
def test_a_deeper_net_with_identity_blocks_computes_the_shallow_net(family):
    """The paper's argument by construction (Sec. 1): the deeper net contains the shallower one."""
    shallow = build(model_spec(f"cifar-{family}20"), seed=0).eval()
    deep = build(model_spec(f"cifar-{family}32"), seed=1).eval()
    assert not deep.load_state_dict(shallow.state_dict(), strict=False).unexpected_keys
    for stage in deep.stages():
        for block in list(stage)[3:]:
            identity_weights(block, plain=family == "plain")
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert (deep(x) - shallow(x)).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("resnet18-a", 0), ("resnet18", 3), ("resnet18-c", 8),
        ("resnet34-a", 0), ("resnet34", 3), ("resnet34-c", 16),
        ("resnet50", 4), ("resnet101", 4), ("resnet152", 4),
    ],
)  # fmt: skip
def test_every_shortcut_option_has_its_number_of_projections(name, number):
    assert projections(name) == number
    with torch.device("meta"):
        model = build(model_spec(name))
    assert sum(key.endswith("downsample.0.weight") for key in model.state_dict()) == number


def test_option_a_adds_no_parameters():
    for depth in (18, 34):
        assert count_parameters(model_spec(f"resnet{depth}-a")) == count_parameters(model_spec(f"plain{depth}"))


@pytest.mark.parametrize(("name", "convolutions"), [("resnet50", 53), ("resnet101", 104), ("resnet152", 155)])
def test_the_released_models_have_the_same_number_of_convolutions_and_batch_norms(name, convolutions):
    kinds = [layer.kind for layer in layers(model_spec(name), 224, 224)]
    assert kinds.count("conv") == kinds.count("bn") == convolutions


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnet152"])
def test_the_released_models_have_stride_2_on_the_first_1x1_and_the_projection_of_three_stages(name):
    strided = [layer.name for layer in layers(model_spec(name), 224, 224) if layer.stride == 2]
    entries = [f"layer{stage}.0.{conv}" for stage in (2, 3, 4) for conv in ("downsample.0", "conv1")]
    assert strided == ["conv1", "maxpool", *entries]


def test_resnet101_has_91_convolutions_up_to_conv4_x():
    """Sec. 4.3 and appendix A: the shared layers of the detector ("totally 91 conv layers in ResNet-101")."""
    up_to_conv4 = ("conv1", "conv2_x", "conv3_x", "conv4_x")
    found = layers(model_spec("resnet101"), 224, 224)
    assert sum(layer.kind == "conv" and layer.branch == "main" and layer.stage in up_to_conv4 for layer in found) == 91
