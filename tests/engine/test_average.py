"""The averaged weights, against the recurrence in float64."""

import copy

import torch
from torch import nn

from resnets.engine.average import update_average


def test_the_average_follows_its_recurrence():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average = copy.deepcopy(model)
    expected = average[0].weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            model[0].weight += torch.randn(2, 3, dtype=torch.float64)
            model[1].num_batches_tracked += 1
        update_average(average, model, decay=0.7, step=step)
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
        torch.testing.assert_close(average[0].weight.detach(), expected, rtol=1e-12, atol=1e-12)
    assert average[1].num_batches_tracked == 29


def test_batch_norm_statistics_are_averaged_too():
    model = nn.BatchNorm2d(2)
    average = copy.deepcopy(model)
    model.running_mean.fill_(1.0)
    update_average(average, model, decay=0.9, step=10**6)
    torch.testing.assert_close(average.running_mean, torch.full((2,), 0.1))
