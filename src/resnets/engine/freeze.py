"""What stands still in a step of fine-tuning: all but the last layer at first, BatchNorm's statistics where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from resnets.models.head import head_name

if TYPE_CHECKING:
    from resnets.engine.distributed import Distributed
    from resnets.specs.finetune import Finetune


def set_learning(model: nn.Module, finetune: Finetune, step: int, ranks: Distributed) -> None:
    """Put `model` into training mode, except for what stands still in the update that follows `step` finished ones.

    In the first `head_steps` only the last layer has gradients, and every other module is in evaluation mode, so
    that neither BatchNorm nor dropout disturbs the features that it learns from. With `freeze_batch_norm`,
    BatchNorm uses and keeps the statistics it was given; its scale and shift learn.

    Several ranks average the gradients that they agreed on when the model was wrapped, so there all parameters keep
    theirs, and `drop_gradients` takes them away.
    """
    if step < finetune.head_steps:
        head = head_name(model)
        model.eval()
        model.get_submodule(head).train()
        if ranks.world_size == 1:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.startswith(f"{head}."))
        return
    model.train()
    if finetune.head_steps:
        model.requires_grad_(True)
    if finetune.freeze_batch_norm == "yes":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def drop_gradients(model: nn.Module, finetune: Finetune, step: int) -> None:
    """Remove the gradients of what stands still, so that the optimiser passes it over."""
    if step < finetune.head_steps:
        head = head_name(model)
        for name, parameter in model.named_parameters():
            if not name.startswith(f"{head}."):
                parameter.grad = None
