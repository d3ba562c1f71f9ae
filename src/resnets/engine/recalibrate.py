"""BatchNorm statistics as a plain average over training batches, taken after training.

The paper does not say how; the authors describe it for the models they released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from resnets.engine.step import autocast, synchronized
from resnets.specs.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resnets.engine.distributed import Distributed


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterable[Tensor], precision: str, ranks: Distributed) -> int:
    """Replace every BatchNorm's running mean and variance by their average over `batches`, and return how many these are.

    The authors' released models hold such averages, not the moving ones of training. Each batch weighs the
    same; with several ranks the average goes over the batches of all, however many each of them has. A batch of less
    than two images is left out. Where anything fails, the statistics are what they were.

    Args:
        model: any module; its mode and its momentum are restored. Without BatchNorm, nothing is done.
        batches: float32 images (n, channels, height, width) on the model's device.
        precision: "fp32", "bf16" or "fp16" of the forward pass.
        ranks: the processes of the run.

    Raises:
        DataError: there is no batch, on any rank.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    was_training = model.training
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's cumulative average
            norm.train()
        return _average(model, norms, batches, precision, ranks)
    except BaseException:
        for norm, buffers in zip(norms, before, strict=True):
            for name, buffer in buffers.items():
                norm.get_buffer(name).copy_(buffer)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)


def _average(
    model: nn.Module,
    norms: list[nn.modules.batchnorm._BatchNorm],
    batches: Iterable[Tensor],
    precision: str,
    ranks: Distributed,
) -> int:
    # Synchronised layers wait for every rank, so all go together, and one without images takes part with none.
    together = synchronized(model, ranks)
    count = 0
    for images in batches:
        if ranks.any(len(images) > 0) if together else len(images) > 1:
            # SyncBatchNorm sends an empty batch's statistics in the type of its input, and the others' are float32.
            with autocast(precision if len(images) else "fp32", ranks.device):
                model(images)
            count += 1
    total = sum(ranks.gather([count]))
    if not total:
        raise DataError(
            "BatchNorm's statistics cannot be averaged anew: there is no batch in which two images or more can be "
            "read. They are what they were."
        )
    if ranks.world_size > 1:
        for norm in norms:
            for statistic in (norm.running_mean, norm.running_var):
                if statistic is not None:
                    share = count * ranks.world_size / total  # 1 where all ranks have equally many
                    ranks.sum(statistic.mul_(share)).div_(ranks.world_size)
    return count if together else total
