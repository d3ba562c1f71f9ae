"""The loss of a step against cross-entropy with soft targets in float64."""

from types import SimpleNamespace

import pytest
import torch

from resnets.engine.step import _loss


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
