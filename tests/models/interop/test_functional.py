"""The functional net is checked against torchvision where it has the variant, and against our modules elsewhere."""

import itertools

import pytest
import torch
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from resnets.models.interop.functional import TORCHVISION, residual_net
from resnets.specs.model import ResNetSpec


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_it_equals_torchvisions_own_net(block):
    theirs = ResNet(BasicBlock if block == "basic" else Bottleneck, [1, 2, 1, 1], num_classes=5).eval().double()
    for norm in theirs.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    spec = ResNetSpec(
        block=block, blocks=(1, 2, 1, 1), widths=(64, 128, 256, 512), stem="7x7", stem_pool="torchvision", shortcut="B",
        stride_on="3x3", num_classes=5,
    )  # fmt: skip
    images = torch.randn(2, 3, 65, 47, dtype=torch.float64)
    with torch.no_grad():
        ours, expected = residual_net(theirs.state_dict(), TORCHVISION, spec, images), theirs(images)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("block", "stem_pool", "stride_on", "shortcut", "zero_pad"),
    [
        combination
        for combination in itertools.product(
            ["basic", "bottleneck"], ["official", "torchvision", "none"], ["1x1", "3x3"], ["A", "B", "C", "none"],
            ["end", "both"],
        )
        if (combination[3] == "A" or combination[4] == "end") and (combination[0] == "bottleneck" or combination[2] == "1x1")
    ],
)  # fmt: skip
def test_it_equals_our_modules_in_every_variant_and_differs_between_variants(
    small, net, block, stem_pool, stride_on, shortcut, zero_pad
):
    spec = small(
        block=block,
        stem="3x3" if stem_pool == "none" else "7x7",
        stem_pool=stem_pool,
        stride_on=stride_on,
        shortcut=shortcut,
        zero_pad=zero_pad,
    )
    model = net(spec).double()
    images = torch.randn(2, 3, 33, 38, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(residual_net(model.state_dict(), TORCHVISION, spec, images), model(images))
        if stem_pool == "official":
            other = small(
                block=block, stem_pool="torchvision", stride_on=stride_on, shortcut=shortcut, zero_pad=zero_pad
            )
            difference = residual_net(model.state_dict(), TORCHVISION, other, images) - model(images)
            assert difference.abs().max() > 1e-7  # rounding is 1e-15
