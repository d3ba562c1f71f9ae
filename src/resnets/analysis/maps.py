"""Class activation maps and Grad-CAM of normalised images, as tensors at the size of a net's own maps.

`analysis/attribution.py` has both for images as they are, at the size that the net sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from resnets.models.head import head_name
from resnets.models.resnet import ResNet
from resnets.models.vgg import VGG
from resnets.specs.errors import ModelError, UserError, near_misses

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

# float32 sums of up to thousands of channels agree to far better than this; another head does not.
_TOLERANCE = 1e-3


@torch.no_grad()
def activation_maps(
    model: nn.Module, inputs: Float[Tensor, "n c h_in w_in"], classes: Int64[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """Return the class activation map of normalised images at the size of the last map: its mean is logit - bias.

    Args:
        model: in evaluation mode, with `features(x)` for its maps by stage.
        inputs: on the model's device.
        classes: a class for each image.

    Raises:
        ModelError: its logits are not those of the average of the last map, so that there are no shares of pixels.
    """
    features = getattr(model, "features", None)
    maps: Any = features(inputs) if callable(features) else None
    name = head_name(model)
    head = cast("nn.Linear", model.get_submodule(name))
    if not isinstance(maps, dict) or not maps:
        raise ModelError(
            f"{type(model).__name__} has no class activation maps: it has no method features(x) that returns its maps "
            "by name. Use grad_cam with the name of a module."
        )
    last = list(maps.values())[-1]
    pooled = last.mean(dim=(2, 3))
    if pooled.shape[1] != head.in_features or not _close(head(pooled), model(inputs)):
        raise ModelError(
            f"{type(model).__name__} has no class activation maps: its logits are not those of {name} on the average "
            "of its last map. Use grad_cam, which needs no such form."
        )
    return torch.einsum("nchw,nc->nhw", last, head.weight[classes])


def gradient_maps(
    model: nn.Module,
    layer: tuple[nn.Module, bool],
    inputs: Float[Tensor, "n c h_in w_in"],
    classes: Int64[Tensor, " n"],
) -> Float[Tensor, "n h w"]:
    """Return Grad-CAM at the size of a module's map: relu(sum_k mean(d logit / d map_k) * map_k).

    No gradient is left in the model's parameters.

    Args:
        model: in evaluation mode.
        layer: from `stage_module`.
        inputs: on the model's device.
        classes: a class for each image.
    """
    module, takes_input = layer
    found: list[Tensor] = []

    def cut(value: Any) -> Tensor:
        if not isinstance(value, torch.Tensor) or value.ndim != 4:
            raise UserError(f"{type(module).__name__} gives no map (n, c, h, w), so there is no Grad-CAM of it.")
        # The graph starts here. The net goes on with a copy, since it may work in place on what it is given.
        found.append(value.detach().requires_grad_())
        return found[-1].clone()

    if takes_input:
        handle = module.register_forward_pre_hook(lambda _, inputs: (cut(inputs[0]),))
    else:
        handle = module.register_forward_hook(lambda _, inputs, output: cut(output))
    try:
        with torch.enable_grad():
            logits = model(inputs)
            chosen = logits.gather(1, classes[:, None]).sum()
            (gradients,) = torch.autograd.grad(chosen, found[-1])
    finally:
        handle.remove()
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * found[-1].detach()).sum(dim=1))


def stage_module(model: nn.Module, stage: str | None) -> tuple[nn.Module, bool]:
    """Return the module at the end of a stage, and whether the stage's map is its input rather than its output.

    Args:
        model: any net.
        stage: conv2_x, conv3_x, ... (VGG has conv1_x too), None for the last; else the name of a module.

    Raises:
        UserError: there is none, or None is given for a net whose stages are not known.
    """
    stages: dict[str, tuple[nn.Module, bool]] = {}
    match model:
        case ResNet():
            stages = dict(zip(model.feature_shapes(), ((module, False) for module in model.stages()), strict=True))
        case VGG():
            pools = [module for module in model.features if isinstance(module, nn.MaxPool2d)]
            stages = dict(zip(model.feature_shapes(), ((module, True) for module in pools), strict=True))
    if stage is None and stages:
        return list(stages.values())[-1]
    if stage in stages:
        return stages[stage]
    modules = dict(model.named_modules())
    if stage and stage in modules:
        return modules[stage], False
    known = list(stages) or [name for name in modules if name]
    listed = ", ".join(known if len(known) <= 8 else [*known[:7], "…"])
    if stage is None:
        raise UserError(f"The stages of a {type(model).__name__} are not known: name one of its modules ({listed}).")
    raise UserError(f"{type(model).__name__} has no stage {stage!r}; it has {listed}.{near_misses(stage, known)}")


def _close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(
        (first - second).abs().max() <= _TOLERANCE * (1 + float(second.abs().max()))
    )
