"""A trained classifier from a run directory, finished or not, from a model folder, or by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.artifacts.model_folder import StoredModel, build_with_weights, load_model
from resnets.artifacts.pretrained import FORMS, is_source, open_source
from resnets.artifacts.run_directory import RunDirectory
from resnets.data.preprocess import Preprocessor
from resnets.engine.checkpoint import latest_checkpoint, load_checkpoint
from resnets.engine.state import tested_weights
from resnets.specs import io
from resnets.specs.errors import ModelError, SpecError
from resnets.specs.preprocess import Preprocess
from resnets.specs.run import TrainSpec

if TYPE_CHECKING:
    from resnets.data.download import Progress


def load_source(source: str, *, on_progress: Progress | None = None) -> StoredModel:
    """Return the model that `source` means, in evaluation mode on the CPU.

    Args:
        source: a run directory, a model folder, or a name that `open_source` takes; a word is never looked up.
        on_progress: told of the bytes of a download; None shows them on stderr.

    Raises:
        ModelError: there is no model, it is damaged, or it cannot be downloaded.
        DataError: a download has the wrong checksum, or cannot be written.
    """
    if is_source(source):
        return open_source(source, on_progress=on_progress)
    return load_classifier(Path(source))


def load_classifier(path: Path) -> StoredModel:
    """Return the model that `path` holds, in evaluation mode on the CPU.

    Args:
        path: a model folder, a finished run directory, or one with a checkpoint, of which the latest is taken.

    Raises:
        ModelError: there is no model, or it is damaged.
    """
    if not path.exists():
        raise ModelError(
            f"There is no model at {path}; name a run directory (runs/…), a model folder, or weights to download: "
            f"{FORMS}."
        )
    if path.is_file():
        raise ModelError(
            f"{path} is a file; a model is a folder. Where it holds weights, `resnets convert {path} models/NAME` makes one."
        )
    directory = RunDirectory(path)
    if directory.is_finished:
        return load_model(directory.model)
    if (path / "model.safetensors").exists():
        return load_model(path)
    checkpoint = latest_checkpoint(directory.checkpoints)
    if checkpoint is None:
        raise ModelError(
            f"{path} holds no model: neither a run directory with a model/ or a checkpoint, nor a model folder with "
            "config.json and model.safetensors."
        )
    stored = _from_checkpoint(checkpoint)
    divergence = directory.divergence()
    return stored if divergence is None else replace(stored, metrics=stored.metrics | {"diverged_at": divergence.step})


def _from_checkpoint(path: Path) -> StoredModel:
    values = load_checkpoint(path)
    try:
        spec = io.from_json(TrainSpec, json.loads(values["spec"]))
        preprocess = io.from_json(Preprocess, json.loads(values["preprocess"]))
        mean, classes = values["mean_image"], tuple(values["classes"])
        weights, step = tested_weights(values)
        mean = None if mean is None else mean.numpy()
        fingerprint = str(values["fingerprint"])
        metrics: dict[str, Any] = {"steps": step, "of": spec.steps, "finished": False, "recipe": spec.recipe}
    except SpecError as error:
        raise ModelError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} lacks or garbles {error}; it is not a checkpoint of this version.") from error
    return StoredModel(
        model=build_with_weights(spec.model, weights, str(path)),
        spec=spec.model,
        preprocessor=Preprocessor(preprocess, mean),
        classes=classes,
        dataset=spec.dataset,
        fingerprint=fingerprint,
        metrics=metrics,
    )
