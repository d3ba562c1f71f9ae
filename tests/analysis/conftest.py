"""Nets whose BatchNorms are as after training: statistics of images, and gammas and betas that differ."""

import pytest
import torch
from torch import nn

from resnets.models.build import build
from resnets.specs.catalogue import model_spec


@pytest.fixture
def trained_like():
    """Return a function from a name of the catalogue to such a net, in evaluation mode."""

    def make(name, classes=5, side=48, **fields):
        model = build(model_spec(name, num_classes=classes, **fields), seed=0)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = None
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.5, 0.5)
        with torch.no_grad():
            model(torch.randn(8, 3, side, side))
        return model.eval()

    return make
