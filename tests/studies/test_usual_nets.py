"""Nets of others compute what ours do with the same weights, so that a comparison is one of code."""

import dataclasses

import pytest
import torch

from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.studies.usual_nets import largest_difference, plain_cifar_net, torchvision_net, with_weights


def same_function(spec, make, side):
    ours = build(spec, seed=0).eval()
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    theirs = with_weights(make(spec), ours.state_dict()).eval()
    x = torch.randn(2, spec.in_channels, side, side)
    with torch.no_grad():
        return largest_difference(theirs(x), ours(x))


@pytest.mark.parametrize(
    ("name", "side"), [("resnet18", 65), ("resnet18-v1.5", 64), ("resnet50", 64), ("resnet50-v1.5", 65)]
)
def test_torchvisions_net_is_put_into_the_variant(name, side):
    spec = model_spec(name, num_classes=7)
    assert same_function(spec, torchvision_net, side) < 1e-5


def test_other_channels_are_taken_too():
    assert same_function(model_spec("resnet18", num_classes=3, in_channels=1), torchvision_net, 64) < 1e-5


@pytest.mark.parametrize("name", ["cifar-resnet14", "cifar-plain14"])
@pytest.mark.parametrize("zero_pad", ["end", "both"])
def test_the_plain_cifar_net_is_ours(name, zero_pad):
    spec = dataclasses.replace(model_spec(name), zero_pad=zero_pad)
    assert same_function(spec, plain_cifar_net, 32) < 1e-5


@pytest.mark.parametrize("name", ["plain18", "resnet34-a", "resnet34-c", "cifar-resnet20", "cifar-highway20"])
def test_torchvision_has_no_other_net(name):
    assert torchvision_net(model_spec(name)) is None


@pytest.mark.parametrize("name", ["resnet18", "cifar-highway20", "vgg16"])
def test_the_plain_cifar_net_stands_for_no_other(name):
    assert plain_cifar_net(model_spec(name)) is None


def test_torchvision_has_the_vgg_nets():
    with torch.device("meta"):
        theirs, ours = torchvision_net(model_spec("vgg16")), build(model_spec("vgg16"))
    assert sum(value.numel() for value in theirs.parameters()) == sum(value.numel() for value in ours.parameters())
