"""The model folder: weights, the exact variant, preprocessing and class names; all that a prediction needs.

```
model/
  model.safetensors        weights, with torchvision's names
  config.json              spec, full name, preprocessing, class names, metrics, licence; and what timm reads, for a
                           net that timm has: `timm.create_model("local-dir:model", pretrained=True)`
  mean_image.safetensors   only where the preprocessing subtracts a mean image: float32 (height, width, channels)
```
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from resnets.artifacts.tensors import read_tensors
from resnets.data.preprocess import Preprocessor
from resnets.models.build import build
from resnets.models.interop import timm
from resnets.models.interop.files import save_tensors
from resnets.specs import io
from resnets.specs.catalogue import model_name
from resnets.specs.data import DatasetSpec
from resnets.specs.errors import ModelError, SpecError
from resnets.specs.model import ModelSpec, ResNetSpec
from resnets.specs.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """A network together with everything that is needed to use it."""

    model: nn.Module
    spec: ModelSpec
    preprocessor: Preprocessor
    classes: tuple[str, ...]
    dataset: DatasetSpec | None = None
    """What it was trained on, split as it was for training; None where that is not known."""
    fingerprint: str = ""
    """Digest of the images it was trained on; empty where that is not known."""
    metrics: dict[str, Any]
    """Figures of its last evaluation, and how far it was trained."""
    licence: str = ""

    @property
    def name(self) -> str:
        """Full name of the exact variant."""
        return model_name(self.spec)


def save_model(folder: Path, stored: StoredModel) -> None:
    """Write a model folder that is either complete or not there.

    An existing folder is replaced.

    Raises:
        OSError: the folder cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        weights = {name: value.detach().cpu().contiguous() for name, value in stored.model.state_dict().items()}
        save_tensors(weights, temporary / "model.safetensors")
        if stored.preprocessor.mean_image is not None:
            mean = torch.from_numpy(stored.preprocessor.mean_image).contiguous()
            save_tensors({"mean_image": mean}, temporary / "mean_image.safetensors")
        for file in temporary.iterdir():
            _sync(file)
        config = {
            "format_version": FORMAT_VERSION,
            "name": stored.name,
            "model": io.to_json(stored.spec),
            "preprocess": io.to_json(stored.preprocessor.spec),
            "classes": list(stored.classes),
            "dataset": None if stored.dataset is None else io.to_json(stored.dataset),
            "dataset_fingerprint": stored.fingerprint,
            "metrics": stored.metrics,
            "licence": stored.licence,
            **_for_timm(stored),
        }
        (temporary / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        _sync(temporary / "config.json")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _for_timm(stored: StoredModel) -> dict[str, Any]:
    """Return the keys with which timm builds the same net; none where it has no such net, or prepares images otherwise."""
    preprocess = stored.preprocessor.spec
    if not isinstance(stored.spec, ResNetSpec) or timm.obstacle(stored.spec, preprocess):
        return {}
    return timm.config_for(stored.spec, preprocess, stored.classes, stored.licence)


def load_model(folder: Path) -> StoredModel:
    """Return the model in `folder`, in evaluation mode on the CPU.

    Raises:
        ModelError: the folder is missing a file, is damaged, or its weights do not fit its spec.
    """
    config = read_config(folder / "config.json")
    try:
        spec = io.from_json(ModelSpec, config["model"], "model")
        preprocess = io.from_json(Preprocess, config["preprocess"], "preprocess")
        classes = tuple(str(name) for name in config["classes"])
        dataset = config.get("dataset")
        dataset = None if dataset is None else io.from_json(DatasetSpec, dataset, "dataset")
        fingerprint = str(config.get("dataset_fingerprint", ""))
        metrics, licence = dict(config.get("metrics", {})), str(config.get("licence", ""))
    except SpecError as error:
        raise ModelError(f"{folder / 'config.json'}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / 'config.json'} lacks or garbles {error}; it is not a model folder's.") from error
    if len(classes) != spec.num_classes:
        raise ModelError(
            f"{folder / 'config.json'} names {len(classes)} classes, and its model has {spec.num_classes} outputs."
        )
    mean = None
    if preprocess.mean_image:
        mean = read_tensors(folder / "mean_image.safetensors").get("mean_image")
        expected = (preprocess.crop_px, preprocess.crop_px, preprocess.channels)
        if mean is None or tuple(mean.shape) != expected:
            raise ModelError(f"{folder / 'mean_image.safetensors'} does not hold a mean image of shape {expected}.")
    model = build_with_weights(spec, read_tensors(folder / "model.safetensors"), str(folder / "model.safetensors"))
    return StoredModel(
        model=model,
        spec=spec,
        preprocessor=Preprocessor(preprocess, None if mean is None else mean.numpy()),
        classes=classes,
        dataset=dataset,
        fingerprint=fingerprint,
        metrics=metrics,
        licence=licence,
    )


def build_with_weights(spec: ModelSpec, weights: Mapping[str, Tensor], source: str) -> nn.Module:
    """Return the net of `spec` with `weights`, in evaluation mode, without initialising it first.

    Raises:
        ModelError: names or shapes do not fit; the message names the first ones.
    """
    with torch.device("meta"):
        model = build(spec)
    check_weights(model, weights, f"{source} does not fit {model_name(spec)}")
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], message: str) -> None:
    """Refuse weights whose names or shapes are not the model's.

    Raises:
        ModelError: beginning with `message`.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    misshapen = [
        f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    problems = [
        *([f"{len(missing)} tensors are missing ({', '.join(missing[:3])} …)"] if missing else []),
        *([f"{len(extra)} are not part of it ({', '.join(extra[:3])} …)"] if extra else []),
        *([f"{len(misshapen)} have another shape ({'; '.join(misshapen[:2])} …)"] if misshapen else []),
    ]
    if problems:
        raise ModelError(
            f"{message}: {', '.join(problems)}. The weights belong to another net, variant or class count."
        )


def _sync(path: Path) -> None:
    """Force a written file to the disk, so that a power cut after the rename cannot leave it empty."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def read_config(path: Path) -> dict[str, Any]:
    """Return the `config.json` of a model folder.

    Raises:
        ModelError: it is missing, damaged, or something else.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} is not a model folder: it has no config.json.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON; the model folder is damaged.") from error
    if not isinstance(config, dict) or "model" not in config:
        raise ModelError(f'{path} is not a model folder\'s: it has no "model".')
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelError(f"{path} has format_version {version}; this version of resnets reads {FORMAT_VERSION}.")
    return config
