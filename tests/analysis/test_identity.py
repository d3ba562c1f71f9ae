"""The solution by construction (Sec. 1): deeper nets with the outputs of the net they were made from."""

import pytest
import torch
from torch import nn

from resnets.analysis.identity import insert_identity_blocks
from resnets.models.build import build
from resnets.models.resnet import ResNet
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import ModelError

RESIDUAL = ("cifar-resnet8", "cifar-resnet8-b", "resnet18", "resnet18-a", "resnet18-c", "resnet50", "resnet50-v1.5")


@pytest.mark.parametrize("name", [*RESIDUAL, "cifar-plain8", "plain18", "cifar-highway8"])
def test_a_deeper_net_has_the_same_outputs(trained_like, name):
    model, images = trained_like(name), torch.randn(3, 3, 40, 40)
    deeper = insert_identity_blocks(model, 2)
    assert deeper.spec.depth == model.spec.depth + 2 * len(model.stages()) * (3 if name.startswith("resnet50") else 2)
    assert not deeper.training
    with torch.no_grad():
        difference = float((deeper(images) - model(images)).abs().max())
    assert difference <= 1e-6


@pytest.mark.parametrize("name", ["cifar-resnet8", "resnet18-a", "resnet50"])
def test_a_deeper_residual_net_trains_on_from_the_same_function(trained_like, name):
    model, images = trained_like(name).train(), torch.randn(4, 3, 40, 40)
    deeper = insert_identity_blocks(model, 1)
    assert deeper.training
    torch.testing.assert_close(deeper(images), model(images), rtol=0, atol=1e-6)
    deeper(images).sum().backward()
    new = deeper.layer1[-1]
    last = new.bn3 if hasattr(new, "bn3") else new.bn2
    assert last.weight.grad.abs().max() > 0


def test_of_option_c_the_outputs_are_the_same_in_evaluation_mode_alone(trained_like):
    """Each new block has a projection with BatchNorm, which normalises with the batch in training mode."""
    model, images = trained_like("resnet18-c"), torch.randn(4, 3, 40, 40)
    deeper = insert_identity_blocks(model, 1)
    with torch.no_grad():
        assert float((deeper(images) - model(images)).abs().max()) <= 1e-6
        assert float((deeper.train()(images) - model.train()(images)).abs().max()) > 1e-4


def test_a_plain_net_can_hold_the_shallow_one_twenty_times_as_deep(trained_like):
    """Plain nets of 128 layers degrade when they are trained; the solution is there all the same."""
    model, images = trained_like("cifar-plain8"), torch.randn(2, 3, 32, 32)
    deeper = insert_identity_blocks(model, [20, 20, 20])
    assert deeper.spec.depth == 128
    with torch.no_grad():
        assert torch.equal(deeper(images), model(images))


def test_stages_can_get_different_numbers_of_blocks_and_none(trained_like):
    model = trained_like("cifar-resnet8")
    assert insert_identity_blocks(model, [0, 2, 1]).spec.blocks == (1, 3, 2)
    same = insert_identity_blocks(model, 0)
    assert same.spec == model.spec
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in same.state_dict().items())


def test_the_model_stays_as_it_is_and_the_random_state_too(trained_like):
    model = trained_like("cifar-resnet8")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, second = insert_identity_blocks(model, 1), insert_identity_blocks(model, 1)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert second.conv1.weight.abs().max() > 0


def test_type_is_kept(trained_like):
    assert next(insert_identity_blocks(trained_like("cifar-resnet8").double(), 1).parameters()).dtype == torch.float64


class OwnBlock(nn.Conv2d):
    def __init__(self, in_channels, width, stride, spec):
        super().__init__(in_channels, width, 3, stride, padding=1)


def test_what_has_no_identity_is_refused():
    with pytest.raises(ModelError, match="OwnBlock is not a block of the paper"):
        insert_identity_blocks(ResNet(model_spec("cifar-resnet8"), OwnBlock), 1)
    with pytest.raises(ModelError, match="a quarter of the channels"):
        insert_identity_blocks(build(model_spec("resnet50", shortcut="none", num_classes=2)), 1)
    with pytest.raises(ModelError, match="this is a Conv2d"):
        insert_identity_blocks(nn.Conv2d(3, 3, 3), 1)
    for extra in ([1, 1], [1, 1, -1], -1):
        with pytest.raises(ModelError, match="for each of 3"):
            insert_identity_blocks(build(model_spec("cifar-plain8")), extra)
