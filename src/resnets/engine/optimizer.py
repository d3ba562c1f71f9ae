"""SGD as the paper's authors ran it: which parameters decay, and Caffe's form of momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from resnets.specs.optim import SGD


def build_optimizer(model: nn.Module, spec: SGD) -> torch.optim.SGD:
    """Return torch's SGD over the model's parameters, decaying those that `spec.decay_scope` names."""
    decaying, others = split_by_decay(model, spec)
    groups = [
        {"params": decaying, "weight_decay": spec.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=spec.base_lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        fused=fused,
    )
    if spec.momentum:
        # The fused update takes buffers of all parameters or of none, and in fine-tuning some begin later.
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def split_by_decay(model: nn.Module, spec: SGD) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that decay and those that do not.

    With scope "weights", weights of convolutions and fully-connected layers decay; biases and BatchNorm's
    gamma and beta do not.
    """
    if spec.decay_scope == "all":
        return list(model.parameters()), []
    decaying = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return decaying, others


def set_learning_rate(optimizer: torch.optim.SGD, lr: float, spec: SGD) -> None:
    """Set the learning rate of the next update.

    Caffe keeps v = m v + lr g and torch keeps v = m v + g, scaled by lr when it is applied. Scaling torch's
    buffers by old lr / new lr whenever the rate changes makes the updates Caffe's.
    """
    old = optimizer.param_groups[0]["lr"]
    if old == lr:
        return
    for group in optimizer.param_groups:
        group["lr"] = lr
    if spec.momentum_form == "caffe" and lr > 0:
        kept = (state.get("momentum_buffer") for state in optimizer.state.values())
        if buffers := [buffer for buffer in kept if buffer is not None]:
            # At once: a warm-up or a cosine changes the rate in every step, and a net has hundreds of parameters.
            torch._foreach_mul_(buffers, old / lr)  # pyright: ignore[reportPrivateImportUsage]
