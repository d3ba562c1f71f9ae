"""Early stopping on given losses."""

import torch
from torch import nn

from resnets.engine.stopping import Best
from resnets.specs.finetune import Finetune


def observe(losses, finetune, every=10):
    best, model = Best(), nn.Linear(1, 1)
    for number, loss in enumerate(losses, start=1):
        nn.init.constant_(model.weight, float(number))
        best.observe(finetune, number * every, loss, model)
        if best.stopped:
            break
    return best


def test_a_run_stops_after_its_patience_and_keeps_the_best_weights():
    best = observe([3.0, 2.0, 1.0, 1.5, 1.0, 1.2, 0.1], Finetune(patience_evaluations=3))
    assert best.stopped
    assert (best.step, best.loss) == (30, 1.0)
    assert best.weights["weight"].item() == 3.0


def test_a_better_loss_renews_the_patience():
    best = observe([3.0, 4.0, 2.0, 4.0, 1.0, 4.0], Finetune(patience_evaluations=2))
    assert not best.stopped
    assert best.step == 50


def test_evaluations_of_the_head_phase_use_up_no_patience():
    assert observe([1.0, 2.0, 2.0, 2.0], Finetune(head_steps=20, patience_evaluations=2)).stopped
    assert not observe([1.0, 2.0, 2.0, 2.0], Finetune(head_steps=30, patience_evaluations=2)).stopped


def test_without_patience_nothing_is_kept():
    best = observe([1.0, 2.0, 3.0], Finetune())
    assert not best.stopped
    assert not best.weights


def test_a_loss_that_is_not_a_number_is_never_the_best():
    assert observe([float("nan"), 1.0], Finetune(patience_evaluations=5)).step == 20


def test_the_state_survives_a_checkpoint():
    best = observe([3.0, 2.0, 2.5], Finetune(patience_evaluations=3))
    again = Best.from_state_dict(best.state_dict())
    assert (again.loss, again.step, again.stale_evaluations) == (2.0, 20, 1)
    assert torch.equal(again.weights["weight"], best.weights["weight"])
