"""From specs to modules: seeds, the spec as an attribute, specs from outside."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from resnets.models.build import build
from resnets.specs.catalogue import model_spec, names
from resnets.specs.counts import count_parameters
from resnets.specs.errors import SpecError


@pytest.mark.parametrize("name", [name for name in names() if name != "cifar-resnet1202"])
def test_every_net_has_as_many_parameters_as_its_spec_counts(name):
    spec = model_spec(name)
    with torch.device("meta"):
        model = build(spec)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(spec)
    assert model.spec == spec


@pytest.mark.parametrize("name", ["cifar-resnet8", "cifar-highway8"])
def test_a_seed_decides_the_weights_and_leaves_the_global_state_alone(name):
    spec = model_spec(name)
    before = torch.random.get_rng_state()
    first, again, other = build(spec, seed=1), build(spec, seed=1), build(spec, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    states = [
        torch.cat([value.flatten().double() for value in net.state_dict().values()]) for net in (first, again, other)
    ]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_without_a_seed_the_global_state_decides():
    spec = model_spec("cifar-resnet8")
    torch.manual_seed(5)
    first, second = build(spec), build(spec)
    torch.manual_seed(5)
    assert torch.equal(build(spec).conv1.weight, first.conv1.weight)
    assert not torch.equal(first.conv1.weight, second.conv1.weight)


@dataclass(frozen=True)
class LinearSpec:
    """A net from outside the package."""

    features: int

    def build(self):
        return nn.Linear(self.features, 2)


def test_a_spec_from_outside_builds_itself_with_the_seed_and_stays_with_its_net():
    spec = LinearSpec(4)
    first, again = build(spec, seed=1), build(spec, seed=1)
    assert torch.equal(first.weight, again.weight)
    assert first.spec is spec


@dataclass(frozen=True)
class BrokenSpec:
    """Its build gives no module."""

    def build(self):
        return 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("resnet50", "a str"), (None, "a NoneType"), (LinearSpec, "a type"), (BrokenSpec(), r"BrokenSpec.build\(\)")],
)
def test_anything_else_is_refused_by_name(wrong, message):
    with pytest.raises(SpecError, match=message):
        build(wrong)


@pytest.mark.slow
def test_the_deepest_net_of_the_paper_can_be_built():
    spec = model_spec("cifar-resnet1202")
    with torch.device("meta"):
        model = build(spec)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(spec) == 19_421_274
