"""Where in an image a net finds a class: class activation maps and Grad-CAM.

A net that ends in global average pooling and one fully-connected layer (He et al. 2015, Table 1 and Sec. 4.2) scores
every pixel of its last map before it averages: logit = bias + mean over pixels of sum_k weight_k * map_k. The sum is
the class activation map (Zhou et al. 2016), an exact share of the logit for every pixel. Grad-CAM (Selvaraju et al.
2017) takes gradients in the place of weights, so it exists at every stage and for VGG; in the last stage of a residual
net it is the class activation map divided by its number of pixels, with negative values set to 0.

Shapes: n images, c channels, h x w pixels; a net's input has `crop` x `crop` pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image, ImageOps

from resnets.analysis.maps import activation_maps, gradient_maps, stage_module
from resnets.engine.device import use
from resnets.specs.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from jaxtyping import Float32, UInt8
    from torch import Tensor

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.preprocess import Preprocessor

BATCH_SIZE = 64
"""Images a forward pass."""


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
    use(device)
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
