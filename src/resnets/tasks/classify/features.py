"""Features of single images: the maps of a stage, or their averages over the pixels (one vector an image)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from resnets.specs.errors import ModelError, UserError, near_misses
from resnets.tasks.classify.predict import compute_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jaxtyping import Float32

    from resnets.artifacts.model_folder import StoredModel
    from resnets.tasks.classify.predict import Unreadable


def features(
    stored: StoredModel,
    images: Iterable[Any],
    *,
    stage: str | None = None,
    pooled: bool = True,
    device: torch.device | None = None,
) -> Iterator[Float32[np.ndarray, "channels ..."] | Unreadable]:
    """Yield, in order, the features of each image after the preprocessing of the model.

    Args:
        stored: the model, in evaluation mode; its module has `features(x)`, from normalised images to named maps.
        images: as for `predict`.
        stage: conv2_x, conv3_x, ...; None is the last. In a residual net, its average is the input of the
            fully-connected layer.
        pooled: the average over the pixels, (channels,); else the map, (channels, height, width).
        device: where to compute; the model is moved there.

    Raises:
        ModelError: the model has no features, or those of an image are not finite.
        UserError: it has no such stage.
        DataError: an entry is of another type than an image.
    """
    stage, _ = choose_stage(stored, stage)

    def compute(inputs: torch.Tensor) -> Sequence[np.ndarray | None]:
        found = _maps(stored.model, inputs)[stage].float()
        if pooled:
            found = F.adaptive_avg_pool2d(found, 1).flatten(1)
        # Copies, so that a kept row does not keep its whole batch.
        return [row.copy() if np.isfinite(row).all() else None for row in found.cpu().numpy()]

    return compute_each(stored, images, compute, device)


def choose_stage(stored: StoredModel, stage: str | None) -> tuple[str, tuple[int, int, int]]:
    """Return the stage, the last where `stage` is None, and the shape of its map: channels, height, width.

    Raises:
        ModelError: the model has no features.
        UserError: it has no such stage.
    """
    side, channels = stored.preprocessor.spec.crop_px, stored.preprocessor.spec.channels
    device = next(stored.model.parameters()).device
    with torch.no_grad():
        maps = _maps(stored.model, torch.zeros(1, channels, side, side, device=device))
    if stage is not None and stage not in maps:
        raise UserError(f"{stored.name} has no stage {stage!r}; it has {', '.join(maps)}.{near_misses(stage, maps)}")
    stage = stage or list(maps)[-1]
    _, channels, height, width = maps[stage].shape
    return stage, (channels, height, width)


def _maps(model: torch.nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    function = getattr(model, "features", None)
    maps = function(inputs) if callable(function) else None
    if not isinstance(maps, dict) or not maps or any(value.ndim != 4 for value in maps.values()):
        raise ModelError(
            f"{type(model).__name__} has no features: give it a method features(x) that returns its maps "
            "(n, channels, height, width) by name."
        )
    return maps


def check_output(path: Path) -> None:
    """Refuse a file for features that cannot be written, before any image is read.

    Raises:
        UserError: its name does not end in .npz, or its folder is missing or may not be written.
    """
    if path.suffix != ".npz":
        raise UserError(f"--features is {path}; the name of the file ends in .npz.")
    if path.is_dir():
        raise UserError(f"--features is {path}, which is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise UserError(f"--features is {path}, and the folder {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"--features is {path}, and you may not write into {path.parent}.")


def save_features(
    path: Path, values: Float32[np.ndarray, "n channels"], paths: Sequence[str], *, stage: str, model: str
) -> None:
    """Write a .npz file that is either complete or not there.

    It holds `features`, float32 (n, channels); `paths`, the images of its rows; `stage`; and `model`, the full name.
    `numpy.load` reads it without pickle.

    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}.npz")
    try:
        np.savez(temporary, features=values, paths=np.array(paths, dtype=np.str_), stage=stage, model=model)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
