"""SGD against a float64 transcription of Caffe's update."""

import torch
from torch import nn

from resnets.engine.optimizer import build_optimizer, set_learning_rate, split_by_decay
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.optim import SGD


def test_updates_are_caffes_when_the_learning_rate_changes():
    spec = SGD(base_lr=0.1, momentum=0.9, weight_decay=0.01)
    layer = nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer(layer, spec)
    weight = layer.weight.detach().double().clone()
    velocity = torch.zeros_like(weight)
    generator = torch.Generator().manual_seed(0)
    for lr in (0.1, 0.1, 0.1, 0.01, 0.01, 0.05, 0.001, 0.001):
        gradient = torch.randn(2, 3, generator=generator)
        layer.weight.grad = gradient.clone()
        set_learning_rate(optimizer, lr, spec)
        optimizer.step()
        velocity = 0.9 * velocity + lr * (gradient.double() + 0.01 * weight)
        weight = weight - velocity
        torch.testing.assert_close(layer.weight.detach().double(), weight, rtol=1e-5, atol=1e-6)


def test_torchs_form_is_torchs_own():
    spec = SGD(momentum_form="torch", weight_decay=0.0)
    ours, theirs = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, spec)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for step, lr in enumerate((0.1, 0.1, 0.01, 0.01)):
        ours.weight.grad = torch.full((2, 3), float(step + 1))
        theirs.weight.grad = ours.weight.grad.clone()
        set_learning_rate(optimizer, lr, spec)
        reference.param_groups[0]["lr"] = lr
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_only_weights_decay_unless_all_are_asked_for():
    model = build(model_spec("cifar-resnet20"))
    decaying, others = split_by_decay(model, SGD())
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {named[id(parameter)] for parameter in decaying} == {
        name for name, parameter in model.named_parameters() if "conv" in name or name == "fc.weight"
    }
    assert len(decaying) + len(others) == len(named)
    assert split_by_decay(model, SGD(decay_scope="all"))[1] == []
