"""BatchNorm statistics as a plain average over training batches, taken after training.

The paper does not say how; the authors describe it for the models they released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from resnets.engine.step import autocast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resnets.engine.distributed import Distributed


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterable[Tensor], precision: str, ranks: Distributed) -> None:
    """Replace every BatchNorm's running mean and variance by their average over `batches`.

    The authors' released models hold such averages, not the moving ones of training. Each batch weighs the
    same; with several ranks the average goes over the batches of all.

    Args:
        model: any module; its mode and its momentum are restored.
        batches: float32 images (n, channels, height, width) on the model's device, of equal n.
        precision: "fp32", "bf16" or "fp16" of the forward pass.
        ranks: the processes of the run.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative average
        norm.train()
    for images in batches:
        with autocast(precision, ranks.device):
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None and ranks.world_size > 1:
                ranks.sum(statistic).div_(ranks.world_size)
    model.train(was_training)
