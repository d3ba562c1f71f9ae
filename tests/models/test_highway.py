"""Highway nets: the residual net with a gate."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from resnets.models.build import build
from resnets.models.highway import HighwayBlock
from resnets.specs.catalogue import model_spec


def blocks_of(model):
    return [module for module in model.modules() if isinstance(module, HighwayBlock)]


@pytest.mark.parametrize("number", [0, 3])  # 3 is the first of the second stage, where dimensions change
def test_a_block_is_the_highway_formula(number):
    model = build(model_spec("cifar-highway20"), seed=0).eval()
    block = blocks_of(model)[number]
    x = torch.randn(2, 16, 8, 8)
    gate = 1 / (1 + torch.exp(-block.gate(x)))
    transformed = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    carried = x if number == 0 else torch.cat([x[:, :, ::2, ::2], torch.zeros(2, 16, 4, 4)], dim=1)
    torch.testing.assert_close(block(x), F.relu(gate * transformed + (1 - gate) * carried))


def test_gates_start_with_the_bias_of_the_spec():
    for bias in (-2.0, -1.0):
        blocks = blocks_of(build(model_spec("cifar-highway20", gate_bias=bias), seed=0))
        assert len(blocks) == 9
        assert all(torch.all(block.gate.bias == bias) for block in blocks)


def test_without_its_gates_the_state_is_that_of_the_residual_net():
    highway = build(model_spec("cifar-highway20"), seed=0).state_dict()
    residual = build(model_spec("cifar-resnet20"), seed=0).state_dict()
    shapes = {name: value.shape for name, value in highway.items() if ".gate." not in name}
    assert shapes == {name: value.shape for name, value in residual.items()}


def test_open_gates_make_a_block_the_plain_one_and_closed_gates_the_identity():
    block = blocks_of(build(model_spec("cifar-highway20"), seed=0).eval())[0]
    block.gate.weight.data.zero_()
    x = torch.rand(2, 16, 8, 8)
    block.gate.bias.data.fill_(100)
    torch.testing.assert_close(block(x), F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))))
    block.gate.bias.data.fill_(-100)
    torch.testing.assert_close(block(x), x)


def test_the_spec_of_the_net_is_the_highway_spec():
    spec = model_spec("cifar-highway20")
    assert build(spec).spec == spec
