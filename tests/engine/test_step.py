"""The loss of a step against cross-entropy with soft targets in float64, and what a step reads from the device."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import resnets
from resnets.engine.distributed import Distributed
from resnets.engine.optimizer import build_optimizer
from resnets.engine.state import TrainState
from resnets.engine.step import _loss, train_step


def soft_target_loss(logits, labels, partners, share, smoothing, weights):
    """Return the sum over images of -sum_c w_c t_c log p_c, with mixed and smoothed targets t."""
    classes = logits.shape[1]
    logs = logits.double().log_softmax(1)
    total = torch.zeros((), dtype=torch.float64)
    for own, part in ((labels, share), (partners, 1 - share)):
        for row, label in zip(logs, own.tolist(), strict=True):
            target = torch.full((classes,), smoothing / classes, dtype=torch.float64)
            target[label] += 1 - smoothing
            # torch weighs the smoothed part of each class with that class's weight.
            total -= part * (weights.double() * target * row).sum()
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0, 0.7])])
@pytest.mark.parametrize("share", [None, 1.0, 0.7, 0.0])
def test_the_loss_is_that_of_soft_targets(smoothing, weights, share):
    logits = torch.randn(6, 4)
    labels, partners = torch.randint(0, 4, (2, 6)).unbind(0)
    batch = SimpleNamespace(
        images=torch.zeros(6, 3, 1, 1),
        labels=labels,
        partner_labels=None if share is None else partners,
        own_share=1.0 if share is None else share,
    )
    expected = soft_target_loss(
        logits,
        labels,
        partners,
        1.0 if share is None else share,
        smoothing,
        torch.ones(4) if weights is None else weights,
    )
    torch.testing.assert_close(_loss(logits, batch, smoothing, weights).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("averaged", [False, True])
def test_the_gradient_scale_is_read_only_where_weights_are_averaged(monkeypatch, averaged):
    model = nn.Linear(3, 2)
    spec = dataclasses.replace(
        resnets.recipe("cifar10.resnet20"), global_batch=4, precision="fp16", ema_decay=0.9 if averaged else 0.0
    )
    state = TrainState(
        model=model,
        average=copy.deepcopy(model) if averaged else None,
        optimizer=build_optimizer(model, spec.optimizer),
        scaler=torch.amp.GradScaler("cpu", init_scale=256.0),
    )
    read, get_scale = [], state.scaler.get_scale
    monkeypatch.setattr(state.scaler, "get_scale", lambda: read.append(1) or get_scale())
    before = model.weight.clone()
    for value in (1.0, float("inf")):
        images = torch.full((4, 3), value)
        batch = SimpleNamespace(
            images=images, labels=torch.zeros(4, dtype=torch.int64), partner_labels=None, own_share=1.0
        )
        kept = copy.deepcopy(state.average)
        train_step(model, [batch], state, spec, Distributed(device=torch.device("cpu")))
    assert not torch.equal(model.weight, before)
    assert model.weight.isfinite().all()
    assert bool(read) == averaged
    if averaged:
        # The second update overflowed, so there was nothing to average.
        assert torch.equal(state.average.weight, kept.weight)
