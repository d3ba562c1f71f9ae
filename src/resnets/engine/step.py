"""One optimiser step: the only place with autocast, the gradient scaler and the backward pass."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from resnets.engine.average import update_average
from resnets.engine.freeze import drop_gradients

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from jaxtyping import Float, Int64
    from torch import Tensor

    from resnets.engine.distributed import Distributed
    from resnets.engine.state import TrainState
    from resnets.specs.run import TrainSpec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@runtime_checkable
class LabelledImages(Protocol):
    """Images and labels on the device."""

    @property
    def images(self) -> Float[Tensor, "n channels height width"]:
        """Normalised images."""
        ...

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """Class indices."""
        ...

    @property
    def partner_labels(self) -> Int64[Tensor, " n"] | None:
        """Class indices of the images that were mixed in; None where none were."""
        ...

    @property
    def own_share(self) -> float:
        """How much of each image is its own, 0 ... 1."""
        ...


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a forward pass computes in `precision` ("fp32", "bf16" or "fp16")."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def train_step(
    model: nn.Module,
    passes: Sequence[LabelledImages],
    state: TrainState,
    spec: TrainSpec,
    ranks: Distributed,
    class_weights: Float[Tensor, " classes"] | None = None,
) -> Tensor:
    """Update the weights once and return the sum of losses, the errors and the images, as a vector of 3.

    Each loss is divided by the nominal batch, so that an image that could not be read contributes nothing
    and every other image weighs the same on every rank and in every pass.

    Args:
        model: the module to call: `state.model`, compiled or wrapped for several ranks.
        passes: this rank's images of the step, one entry for each of `spec.accumulation` passes.
        state: holds the optimiser, whose learning rate is set, and the gradient scaler; `updating` stays set where an
            update fails half-way.
        spec: precision, label smoothing and batch size.
        ranks: the processes of the run.
        class_weights: how much an image of each class weighs in the loss; None is 1.
    """
    rank_batch = spec.global_batch / ranks.world_size
    totals = torch.zeros_like(state.window)
    together = synchronized(state.model, ranks)
    for number, batch in enumerate(passes, start=1):
        last = number == len(passes)
        statistics = together and ranks.any(len(batch.labels) > 0)
        if not len(batch.labels):
            if statistics or (last and ranks.world_size > 1):
                with nullcontext() if last else ranks.without_averaging(model):
                    _take_part(model, batch.images, state.scaler, statistics=statistics)
            continue
        with nullcontext() if last else ranks.without_averaging(model):
            with autocast(spec.precision, ranks.device):
                logits = model(batch.images)
            loss = _loss(logits.float(), batch, spec.label_smoothing, class_weights)
            state.scaler.scale(loss / rank_batch).backward()
        errors = (logits.detach().argmax(dim=1) != batch.labels).sum()
        totals[0] += loss.detach()
        totals[1] += errors
        totals[2] += len(batch.labels)
    if ranks.world_size > 1 or any(len(batch.labels) for batch in passes):
        drop_gradients(state.model, spec.finetune, state.step)
        state.updating = True
        updated = _update(state)
        if state.average is not None and updated:
            update_average(state.average, state.model, spec.ema_decay, state.step + 1)
        state.updating = False
    state.optimizer.zero_grad(set_to_none=True)
    return totals


def _loss(
    logits: Float[Tensor, "n classes"],
    batch: LabelledImages,
    label_smoothing: float,
    class_weights: Float[Tensor, " classes"] | None,
) -> Tensor:
    """Return the summed cross-entropy; of a mixed image, towards both labels in the shares of the mixture."""

    def towards(labels: Int64[Tensor, " n"]) -> Tensor:
        return functional.cross_entropy(
            logits, labels, weight=class_weights, reduction="sum", label_smoothing=label_smoothing
        )

    if batch.partner_labels is None:
        return towards(batch.labels)
    return batch.own_share * towards(batch.labels) + (1 - batch.own_share) * towards(batch.partner_labels)


def _update(state: TrainState) -> bool:
    """Update the weights; return false where the scaler left it out, which only runs with averaged weights ask."""
    # Reading the scale waits for the device, which without an average nothing needs.
    asks = state.average is not None and state.scaler.is_enabled()
    scale = state.scaler.get_scale() if asks else 1.0
    state.scaler.step(state.optimizer)
    state.scaler.update()
    # The scaler lowers its scale where it left out an update that had overflowed.
    return not asks or state.scaler.get_scale() >= scale


def synchronized(model: nn.Module, ranks: Distributed) -> bool:
    """Return whether BatchNorm's statistics are over all ranks, which then wait for each other in every layer."""
    return ranks.world_size > 1 and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())


def _take_part(
    model: nn.Module,
    images: Float[Tensor, "0 channels height width"],
    scaler: torch.amp.GradScaler,
    *,
    statistics: bool,
) -> None:
    """Run a backward pass that adds nothing: the other ranks wait for this one, whose images are all unreadable.

    With `statistics` they wait in every BatchNorm too, which takes none from an empty batch. There is no autocast:
    SyncBatchNorm sends the empty batch's statistics in the type of its input, and the others' are float32.
    """
    if statistics:
        scaler.scale(model(images).sum() * 0).backward()
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()  # or BatchNorm would learn from the image that stands in
    scaler.scale(model(images.new_zeros(1, *images.shape[1:])).sum() * 0).backward()
    for module, training in modes.items():
        module.training = training
