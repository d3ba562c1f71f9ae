"""Weights travel between torchvision's nets and ours, without a converter, in both directions."""

import pytest
import torch
import torchvision
from torch import nn

from resnets.models.build import build
from resnets.specs.catalogue import model_spec

DEPTHS = [18, 34, 50, 101, 152]


def with_statistics(model):
    """Return the net in evaluation mode with BatchNorm values under which a wrong key or epsilon would show."""
    generator = torch.Generator().manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.3, 0.7, generator=generator)
            norm.bias.data.uniform_(-0.2, 0.2, generator=generator)
            norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize("depth", DEPTHS)
def test_state_dicts_have_the_same_keys_shapes_and_types(depth):
    with torch.device("meta"):
        ours, theirs = build(model_spec(f"resnet{depth}-v1.5")), torchvision.models.get_model(f"resnet{depth}")
    ours, theirs = (
        {key: (value.shape, value.dtype) for key, value in net.state_dict().items()} for net in (ours, theirs)
    )
    assert ours == theirs


@pytest.mark.parametrize("depth", [18, 50])
def test_logits_are_equal_with_weights_from_torchvision_and_back(depth):
    theirs = with_statistics(torchvision.models.get_model(f"resnet{depth}"))
    with torch.device("meta"):
        ours = build(model_spec(f"resnet{depth}-v1.5")).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5)
    with torch.device("meta"):
        returned = torchvision.models.get_model(f"resnet{depth}").eval()
    returned.load_state_dict(ours.state_dict(), strict=True, assign=True)
    with torch.no_grad():
        torch.testing.assert_close(returned(x), expected, rtol=0, atol=0)


def test_the_papers_own_variant_takes_the_same_weights_and_computes_something_else():
    theirs = with_statistics(torchvision.models.resnet50())
    with torch.device("meta"):
        ours = build(model_spec("resnet50")).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert (ours(x) - theirs(x)).abs().max() > 1e-3
