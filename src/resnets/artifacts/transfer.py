"""Weights of a trained net as the start of another of the same variant, whatever its classes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from resnets.artifacts.model_folder import check_weights
from resnets.models.head import head_name
from resnets.specs.catalogue import model_name
from resnets.specs.errors import ModelError
from resnets.specs.model import HighwaySpec, VGGSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from resnets.artifacts.model_folder import StoredModel

_UNTRAINED_FIELDS = {VGGSpec: ("dropout",), HighwaySpec: ("gate_bias",)}
"""Fields that the meaning of trained weights does not depend on: one acts in training only, one is an initial value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """What became of the weights, by the names of the state dict."""

    loaded: tuple[str, ...]
    """Tensors that the model has now from the given weights."""
    skipped: tuple[str, ...]
    """Tensors of the given weights that are not used."""
    initialised: tuple[str, ...]
    """Tensors of the model that keep their random initial values."""
    text: str
    """The same for a person."""


def transfer(model: nn.Module, stored: StoredModel, classes: tuple[str, ...]) -> Transfer:
    """Copy the weights of a trained net into `model`, in place; parameters keep their device and memory layout.

    The last fully-connected layer is copied only where both nets have the same classes; where their order differs,
    its rows are put into the order of `classes`. Everything else is copied as it is, statistics of BatchNorm included.

    Args:
        model: the net to fill, with its spec as the attribute `spec`.
        stored: the trained net.
        classes: class names of `model`, in the order of its logits.

    Raises:
        ModelError: the nets are different variants (the message names both, and the fields that differ), have other
            names or shapes, or the given weights are not finite.
    """
    check_variant(getattr(model, "spec", None), stored)
    head = head_name(model)
    check_head(model, len(classes))
    check_head(stored.model, len(stored.classes))
    weights, own = stored.model.state_dict(), model.state_dict()
    of_head = tuple(name for name in own if name.startswith(f"{head}."))
    kept = of_head
    if _same_classes(stored.classes, classes):
        # Names that occur twice have no other order than their own.
        same = stored.classes == classes
        order = torch.tensor([index if same else stored.classes.index(name) for index, name in enumerate(classes)])
        weights |= {name: weights[name][order.to(weights[name].device)] for name in of_head}
        kept = ()
    else:
        weights |= {name: own[name] for name in of_head}
    check_finite(weights, stored.name)
    check_weights(model, weights, f"The weights of {stored.name} do not fit this {type(model).__name__}")
    model.load_state_dict(weights, strict=True)
    loaded = tuple(name for name in own if name not in kept)
    text = _text(stored, classes, loaded=loaded, head=kept)
    return Transfer(loaded=loaded, skipped=kept, initialised=kept, text=text)


def check_variant(spec: Any, stored: StoredModel) -> None:
    """Refuse weights of another variant than the net of `spec`, whatever its classes.

    Raises:
        ModelError: naming both nets and the fields that differ.
    """
    given = stored.spec
    if type(spec) is not type(given):
        ours = "a net without a spec" if spec is None else _full_name(spec)
        raise ModelError(
            f"The given weights are those of {_full_name(given)}, and this net is {ours}. Choose weights of the same "
            "net, or take over theirs with --init.model adopt."
        )
    free = ("num_classes", *_UNTRAINED_FIELDS.get(type(given), ()))
    differing = [
        f"{field.name} is {getattr(given, field.name)!r} there and {getattr(spec, field.name)!r} here"
        for field in dataclasses.fields(given)
        if field.name not in free and getattr(given, field.name) != getattr(spec, field.name)
    ]
    if differing:
        raise ModelError(
            f"The given weights are those of {_full_name(given)}, and this net is {_full_name(spec)}: "
            f"{', '.join(differing)}. Weights of one variant give wrong results in another: choose others, or take "
            "over their net with --init.model adopt."
        )


def _full_name(spec: Any) -> str:
    return f"{model_name(spec)} ({spec.in_channels} channels)" if hasattr(spec, "in_channels") else model_name(spec)


def check_head(model: nn.Module, classes: int) -> None:
    """Refuse a net whose last fully-connected layer does not give its logits.

    Raises:
        ModelError: naming the layer.
    """
    head = head_name(model)
    outputs = getattr(model.get_submodule(head), "out_features", None)
    if outputs != classes:
        raise ModelError(
            f"{type(model).__name__}.{head} has {outputs} outputs, and there are {classes} classes; the last "
            "fully-connected layer has to give the logits for weights to be taken over."
        )


def _same_classes(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    if ours == theirs:
        return True
    # Names that occur twice cannot be told apart, so their rows cannot be put in order.
    return set(ours) == set(theirs) and len(set(ours)) == len(ours) == len(theirs)


def check_finite(weights: dict[str, Tensor], name: str) -> None:
    """Refuse weights that are not finite numbers.

    Raises:
        ModelError: naming the first tensor.
    """
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"The weights of {name} are not finite ({key}); they are damaged, or training diverged.")


def _text(stored: StoredModel, classes: tuple[str, ...], *, loaded: tuple[str, ...], head: tuple[str, ...]) -> str:
    if not head:
        return f"all {len(loaded)} tensors of {stored.name} loaded, since the {len(classes)} classes are the same"
    names = ", ".join(head)
    return (
        f"{len(loaded)} tensors of {stored.name} loaded; skipped: {names} ({len(stored.classes)} classes); "
        f"initialised at random: {names} ({len(classes)} classes)"
    )
