"""Where in an image a net finds a class: class activation maps and Grad-CAM, and pictures of both.

A net that ends in global average pooling and one fully-connected layer (He et al. 2015, Table 1 and Sec. 4.2) scores
every pixel of its last map before it averages: logit = bias + mean over pixels of sum_k weight_k * map_k. The sum is
the class activation map (Zhou et al. 2016), an exact share of the logit for every pixel. Grad-CAM (Selvaraju et al.
2017) takes gradients in the place of weights, so it exists at every stage and for VGG; in the last stage of a residual
net it is the class activation map divided by its number of pixels, with negative values set to 0.

Shapes: n images, c channels, h x w pixels; a net's input has `crop` x `crop` pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image, ImageOps
from torch import nn

from resnets.models.head import head_name
from resnets.models.resnet import ResNet
from resnets.models.vgg import VGG
from resnets.specs.errors import DataError, ModelError, UserError, near_misses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from jaxtyping import Float, Float32, Int64, UInt8
    from torch import Tensor

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.preprocess import Preprocessor

BATCH_SIZE = 64
"""Images a forward pass."""

# float32 sums of up to thousands of channels agree to far better than this; another head does not.
_TOLERANCE = 1e-3


def class_activation_maps(
    stored: StoredModel, images: Iterable[Any], classes: Sequence[int], *, device: torch.device | str = "cpu"
) -> Float32[np.ndarray, "n crop crop"]:
    """Return how much each pixel speaks for (above 0) or against (below 0) a class, in units of its logit.

    Before it is resized bilinearly to the crop that the model sees, the mean of a map is the logit less its bias.

    Args:
        stored: a model that ends in global average pooling and a fully-connected layer.
        images: PIL images, or uint8 arrays (h, w), (h, w, 1) or (h, w, 3) in RGB; of any size, since the model's own
            preprocessing is applied. `seen` returns the crops that the maps lie on.
        classes: the index of a class for each image, usually the predicted one.
        device: where to compute; the model is moved there.

    Raises:
        ModelError: the model ends in something else; `grad_cam` works for it.
        DataError: an entry of `images` is no image, or there are not as many classes as images, or no such class.
    """

    def compute(inputs: Tensor, chosen: Tensor) -> Tensor:
        return activation_maps(stored.model, inputs, chosen)

    return _maps_of(stored, images, classes, compute, torch.device(device))


def grad_cam(
    stored: StoredModel,
    images: Iterable[Any],
    classes: Sequence[int],
    *,
    stage: str | None = None,
    device: torch.device | str = "cpu",
) -> Float32[np.ndarray, "n crop crop"]:
    """Return how much each pixel of a stage's map raises the logit of a class; never below 0.

    Args:
        stored: the model.
        images: as for `class_activation_maps`.
        classes: the index of a class for each image.
        stage: conv2_x, conv3_x, ...; None is the last. For a net of your own, the name of a module whose output is a
            map (n, c, h, w).
        device: where to compute; the model is moved there.

    Raises:
        UserError: the model has no such stage, or `stage` is None for a net of your own.
        DataError: as for `class_activation_maps`.
    """
    layer = stage_module(stored.model, stage)

    def compute(inputs: Tensor, chosen: Tensor) -> Tensor:
        return gradient_maps(stored.model, layer, inputs, chosen)

    return _maps_of(stored, images, classes, compute, torch.device(device))


def seen(preprocessor: Preprocessor, images: Iterable[Any]) -> list[Image.Image]:
    """Return the crop of each image that the model sees, in mode "RGB" or "L": what the maps lie on."""
    crops = []
    for image in images:
        pixels = _pixels(preprocessor, image)
        if preprocessor.spec.color == "bgr":
            pixels = pixels[:, :, ::-1]
        crops.append(Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)))
    return crops


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


def overlay(
    image: Image.Image | UInt8[np.ndarray, "h w *rgb"],
    heat: Float[np.ndarray, "rows columns"],
    *,
    scale: int = 1,
    strength: float = 0.8,
    top: float | None = None,
) -> Image.Image:
    """Return the image in grey with what speaks for the class in colour on it, as a picture in mode "RGB".

    Values of 0 and below leave the image as it is; the largest is yellow and the most opaque.

    Args:
        image: what the map lies on, as `seen` returns it.
        heat: a map of any size; it is resized to the image.
        scale: how many times as large the picture is; the image's pixels stay sharp squares, the map is smooth.
        strength: opacity where the map is largest, 0 to 1.
        top: value that is drawn as the largest; None is the largest of the map. Give one to compare maps.

    Raises:
        ValueError: `scale` is below 1 or `strength` outside 0 to 1.
    """
    if scale < 1 or not 0 <= strength <= 1:
        raise ValueError(f"scale is {scale} and strength {strength}; scale is at least 1, strength between 0 and 1.")
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.squeeze(image))
    size = picture.width * scale, picture.height * scale
    base = np.asarray(picture.convert("L").resize(size, Image.Resampling.NEAREST), np.float32)[:, :, None]
    smooth = Image.fromarray(np.asarray(heat, np.float32)).resize(size, Image.Resampling.BICUBIC)
    values = np.nan_to_num(np.asarray(smooth))
    highest = float(np.max(np.nan_to_num(heat), initial=0.0)) if top is None else top
    share = np.clip(values / highest, 0, 1) if highest > 0 else np.zeros_like(values)
    opacity = strength * share[:, :, None]
    return Image.fromarray(((1 - opacity) * base + opacity * _heat_colors(share)).round().astype(np.uint8))


def _heat_colors(share: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """Return colours from 0..1, of a scale whose lightness grows evenly, so that it also reads in print."""
    import matplotlib as mpl

    # Its first quarter is black, in which the image would drown.
    return mpl.colormaps["inferno"](0.25 + 0.75 * share)[:, :, :3].astype(np.float32) * 255


def _maps_of(
    stored: StoredModel,
    images: Iterable[Any],
    classes: Sequence[int],
    compute: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
) -> Float32[np.ndarray, "n crop crop"]:
    pixels = [_pixels(stored.preprocessor, image) for image in images]
    chosen = torch.as_tensor(np.asarray(classes, np.int64))
    if chosen.shape != (len(pixels),):
        raise DataError(f"There are {len(pixels)} images and {len(chosen)} classes; give one class an image.")
    outside = [int(index) for index in chosen if not 0 <= index < len(stored.classes)]
    if outside:
        raise DataError(f"{outside[0]} is no class of the model; classes are 0 to {len(stored.classes) - 1}.")
    side = stored.preprocessor.spec.crop_px
    maps = np.empty((len(pixels), side, side), np.float32)
    stored.model.to(device)
    for start, batch in _batches(pixels):
        part = slice(start, start + len(batch))
        inputs = stored.preprocessor.normalize(batch.to(device))
        found = compute(inputs, chosen[part].to(device)).float()
        resized = F.interpolate(found[:, None], size=(side, side), mode="bilinear", align_corners=False)
        maps[part] = resized[:, 0].cpu().numpy()
    return maps


def _batches(pixels: Sequence[UInt8[np.ndarray, "h w c"]]) -> Iterator[tuple[int, UInt8[Tensor, "n c h w"]]]:
    for start in range(0, len(pixels), BATCH_SIZE):
        stack = np.stack(pixels[start : start + BATCH_SIZE])
        yield start, torch.from_numpy(stack).permute(0, 3, 1, 2)


def _pixels(preprocessor: Preprocessor, image: Any) -> UInt8[np.ndarray, "crop crop c"]:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
            raise DataError(
                f"An array of type {image.dtype} and shape {image.shape} is no image; give uint8 values 0..255 of "
                "shape (height, width) or (height, width, 3)."
            )
        image = Image.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image)
    if not isinstance(image, Image.Image):
        raise DataError(f"{type(image).__name__} is no image; give PIL images or uint8 arrays.")
    return preprocessor.pixels(ImageOps.exif_transpose(image))


def _close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(
        (first - second).abs().max() <= _TOLERANCE * (1 + float(second.abs().max()))
    )
