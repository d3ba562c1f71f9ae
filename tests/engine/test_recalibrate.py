"""BatchNorm statistics after recalibration, against a plain float64 average."""

import torch
from torch import nn

from resnets.engine.distributed import Distributed
from resnets.engine.recalibrate import recalibrate_batch_norm


def test_statistics_are_the_average_over_the_batches():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    model.train()
    batches = [torch.randn(8, 3, 6, 6) * scale for scale in (1, 2, 3)]
    recalibrate_batch_norm(model, batches, "fp32", Distributed(device=torch.device("cpu")))
    outputs = [model[0](batch).double() for batch in batches]
    means = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variances = torch.stack([output.transpose(0, 1).flatten(1).var(1) for output in outputs]).mean(0)
    torch.testing.assert_close(model[1].running_mean.double(), means, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model[1].running_var.double(), variances, rtol=1e-5, atol=1e-6)
    assert model[1].momentum == 0.1
    assert model.training


def test_a_net_without_batch_norm_is_left_alone():
    model = nn.Linear(2, 2)
    recalibrate_batch_norm(model, [torch.zeros(1, 2)], "fp32", Distributed(device=torch.device("cpu")))
