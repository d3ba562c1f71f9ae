"""What stands still in fine-tuning, seen from the weights after a step."""

import torch

from resnets.engine.distributed import Distributed
from resnets.engine.freeze import drop_gradients, set_learning
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.finetune import Finetune

ALONE = Distributed(device=torch.device("cpu"))
TWO = Distributed(device=torch.device("cpu"), world_size=2)


def changed_by_a_step(finetune, step, ranks=ALONE):
    model = build(model_spec("cifar-resnet8"), seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    set_learning(model, finetune, step, ranks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.randn(8, 3, 16, 16)).square().sum().backward()
    drop_gradients(model, finetune, step)
    optimizer.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def test_the_head_alone_learns_first():
    for ranks in (ALONE, TWO):
        assert changed_by_a_step(Finetune(head_steps=5), 4, ranks) == {"fc.weight", "fc.bias"}


def test_everything_learns_afterwards():
    changed = changed_by_a_step(Finetune(head_steps=5), 5)
    assert {"conv1.weight", "bn1.weight", "bn1.running_mean", "fc.weight"} <= changed


def test_frozen_statistics_stand_still_while_scale_and_shift_learn():
    changed = changed_by_a_step(Finetune(freeze_batch_norm="yes"), 0)
    assert {"conv1.weight", "bn1.weight", "bn1.bias"} <= changed
    assert not any("running" in name or "tracked" in name for name in changed)


def test_gradients_come_back_when_the_head_has_learnt():
    model = build(model_spec("cifar-resnet8"), seed=0)
    finetune = Finetune(head_steps=1)
    set_learning(model, finetune, 0, ALONE)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["fc.weight", "fc.bias"]
    set_learning(model, finetune, 1, ALONE)
    assert all(parameter.requires_grad for parameter in model.parameters())
