"""The cost of a built net against the exact counts of its spec."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from resnets.specs import counts
from resnets.specs.catalogue import model_spec
from resnets.studies.model_cost import model_cost


@pytest.mark.parametrize(
    ("name", "side"),
    [("cifar-resnet20", 32), ("cifar-highway20", 8), ("resnet50", 64), ("resnet18-c", 97), ("vgg16", 64)],
)
def test_the_built_net_has_the_parameters_and_multiply_adds_of_its_spec(name, side):
    spec = model_spec(name)
    cost = model_cost(spec, side)
    assert cost.model == name
    assert cost.parameters == counts.count_parameters(spec)
    assert cost.multiply_adds == counts.count_multiply_adds(spec, side, side)
    assert cost.input_shape == (3, side, side)


@dataclass(frozen=True, kw_only=True)
class OwnNet:
    num_classes: int = 10
    in_channels: int = 1

    def build(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(10, 64))
                self.frozen = nn.Parameter(torch.zeros(5), requires_grad=False)

            def forward(self, x):
                return x.flatten(1) @ self.weight.T

        return Net()


def test_a_net_of_ones_own_is_counted_by_what_it_computes():
    cost = model_cost(OwnNet(), 8)
    assert (cost.parameters, cost.multiply_adds) == (640, 640)
