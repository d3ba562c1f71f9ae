"""Initial weights."""

import math

import pytest
import torch
from torch import nn

from resnets.models.build import build
from resnets.specs.catalogue import model_spec


@pytest.mark.parametrize("name", ["resnet18", "cifar-resnet20", "cifar-highway20"])
def test_convolutions_are_normal_with_the_fan_out_deviation(name):
    checked = 0
    for module in build(model_spec(name), seed=0).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            error = 5 / math.sqrt(2 * module.weight.numel())  # five standard errors of a sample deviation
            assert module.weight.std().item() == pytest.approx(expected, rel=error)
            assert abs(module.weight.mean().item()) < 5 * expected / math.sqrt(module.weight.numel())
            checked += 1
    assert checked > 10


def test_every_batch_norm_starts_as_the_identity_the_last_of_a_block_included():
    norms = [module for module in build(model_spec("resnet50"), seed=0).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 53
    for norm in norms:
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))
        assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
        assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))


def test_the_head_is_normal_with_deviation_one_hundredth_and_no_bias():
    head = build(model_spec("resnet18"), seed=0).fc
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not head.bias.any()


def test_biases_of_vgg_start_at_zero():
    model = build(model_spec("vgg16", hidden=8, num_classes=2), seed=0)
    assert not any(value.any() for name, value in model.named_parameters() if name.endswith("bias"))
