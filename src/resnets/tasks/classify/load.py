"""A trained classifier from a model folder, or from a run directory, finished or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resnets.artifacts.model_folder import StoredModel, build_with_weights, load_model
from resnets.artifacts.run_directory import RunDirectory
from resnets.data.preprocess import Preprocessor
from resnets.engine.checkpoint import latest_checkpoint, load_checkpoint
from resnets.specs import io
from resnets.specs.errors import ModelError, SpecError
from resnets.specs.preprocess import Preprocess
from resnets.specs.run import TrainSpec


def load_classifier(path: Path) -> StoredModel:
    """Return the model that `path` holds, in evaluation mode on the CPU.

    Args:
        path: a model folder, a finished run directory, or one with a checkpoint, of which the latest is taken.

    Raises:
        ModelError: there is no model, or it is damaged.
    """
    if not path.exists():
        raise ModelError(f"There is no model at {path}; name a run directory (runs/…) or a model folder.")
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
    return _from_checkpoint(checkpoint)


def _from_checkpoint(path: Path) -> StoredModel:
    values = load_checkpoint(path)
    try:
        spec = io.from_json(TrainSpec, json.loads(values["spec"]))
        preprocess = io.from_json(Preprocess, json.loads(values["preprocess"]))
        mean, classes, weights = values["mean_image"], tuple(values["classes"]), values["model"]
        mean = None if mean is None else mean.numpy()
        fingerprint = str(values["fingerprint"])
        metrics: dict[str, Any] = {"steps": values["step"], "of": spec.steps, "finished": False, "recipe": spec.recipe}
    except (KeyError, TypeError, ValueError, AttributeError, SpecError) as error:
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
