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

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from resnets.artifacts.tensors import read_tensors
from resnets.data.preprocess import Preprocessor
from resnets.models.build import build
from resnets.models.interop import timm
from resnets.models.interop.files import save_tensors
from resnets.models.interop.preprocessing import read_json
from resnets.specs import io
from resnets.specs.catalogue import model_name
from resnets.specs.data import DatasetSpec
from resnets.specs.errors import ModelError, SpecError
from resnets.specs.io import shown
from resnets.specs.model import HighwaySpec, ModelSpec, ResNetSpec, VGGSpec
from resnets.specs.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Literal, TypeGuard

    import numpy as np
    from jaxtyping import Float32
    from torch import Tensor, nn

FORMAT_VERSION = 1
_DEEPEST_JSON = 50
"""Levels of objects and lists in a config.json; ours has five, and some more where a person adds to `metrics`."""
_LONGEST_TEXT = 500


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

    An existing folder is replaced, and comes back if that fails. What a killed process has left beside it is removed,
    or put back where it was the only one left.

    Raises:
        OSError: the folder cannot be written.
    """
    if folder.is_symlink():  # what it points at is replaced, not the link
        folder = folder.resolve()
    _clear_up(folder)
    temporary = _beside(folder, "tmp", os.getpid())
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
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        # Names of folders may be no valid UTF-8; JSON has the same escapes for them as Python.
        (temporary / "config.json").write_text(text, "utf-8", errors="backslashreplace")
        _sync(temporary / "config.json")
        _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(folder: Path, what: Literal["tmp", "old"], process: int | str) -> Path:
    """Return where a process writes what becomes `folder`, or keeps what was there while it is replaced."""
    return folder.with_name(f".{folder.name}.{what}-{process}")


def _replace(folder: Path, new: Path) -> None:
    """Put the folder `new` in the place of `folder`; at every moment, one of both and the old one is there, whole."""
    if not folder.exists():
        new.rename(folder)
        return
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file of this name exists", str(folder))
    old = _beside(folder, "old", os.getpid())
    try:
        folder.rename(old)
        new.rename(folder)
    except BaseException:
        if not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _clear_up(folder: Path) -> None:
    """Remove what killed processes have left beside `folder`, after an old one has been put back that has no successor."""
    old = list(_leftovers(folder, "old"))
    if old and not folder.exists():
        max(old, key=lambda path: path.stat().st_mtime).rename(folder)
    for path in [*old, *_leftovers(folder, "tmp")]:
        shutil.rmtree(path, ignore_errors=True)


def _leftovers(folder: Path, what: Literal["tmp", "old"]) -> Iterator[Path]:
    start = _beside(folder, what, "").name
    with suppress(OSError):
        for path in folder.parent.iterdir():
            process = path.name.removeprefix(start)
            if path.name.startswith(start) and process.isdecimal() and not _is_another(int(process)):
                yield path


def _is_another(process: int) -> bool:
    """Return whether this is the number of another process that runs; where that cannot be asked, it may be."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # no signal is sent
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


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
    path = folder / "config.json"
    config = read_config(path)
    spec = read_field(config, "model", ModelSpec, path)
    preprocess = read_field(config, "preprocess", Preprocess, path)
    dataset = None if config.get("dataset") is None else read_field(config, "dataset", DatasetSpec, path)
    classes, metrics = config.get("classes"), config.get("metrics", {})
    fingerprint, licence = config.get("dataset_fingerprint", ""), config.get("licence", "")
    if not _are_texts(classes) or not _are_texts([fingerprint, licence]) or not isinstance(metrics, dict):
        raise ModelError(f"{path} lacks or garbles classes, metrics, licence or fingerprint; it is damaged.")
    outputs = getattr(spec, "num_classes", None)
    if len(classes) != outputs:
        raise ModelError(f"{path} names {len(classes)} classes, and its model has {shown(outputs)} outputs.")
    file = folder / "model.safetensors"
    weights = read_tensors(file)
    model = build_with_weights(spec, weights, str(file))
    _check_values(weights, file)
    mean = _mean_image(folder / "mean_image.safetensors", preprocess) if preprocess.mean_image else None
    return StoredModel(
        model=model,
        spec=spec,
        preprocessor=Preprocessor(preprocess, mean),
        classes=tuple(classes),
        dataset=dataset,
        fingerprint=fingerprint,
        metrics=metrics,
        licence=licence,
    )


def read_field(config: dict[str, Any], name: str, kind: Any, path: Path) -> Any:
    """Return a spec of class `kind`, or of one of several, that the field `name` of the file at `path` holds.

    Raises:
        ModelError: it is missing or cannot be such a spec.
    """
    try:
        return io.from_json(kind, config.get(name), name)
    except SpecError as error:
        text = str(error)  # which has the value, and that can be a number of thousands of digits
        text = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
        raise ModelError(f"{path}: {text}") from error
    except Exception as error:  # a file can name any class that is loaded, and give it any values
        raise ModelError(f"{path}: {name} is of no use ({type(error).__name__}); it is damaged.") from error


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    """Return whether this is a list of strings that can be encoded: without halves of surrogate pairs."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return False
    try:
        "".join(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _mean_image(path: Path, preprocess: Preprocess) -> Float32[np.ndarray, "h w c"]:
    mean = read_tensors(path).get("mean_image")
    expected = (preprocess.crop_px, preprocess.crop_px, preprocess.channels)
    if mean is None or tuple(mean.shape) != expected or mean.dtype != torch.float32:
        raise ModelError(f"{path} does not hold a mean image of shape {expected} in float32.")
    _check_values({"mean_image": mean}, path)
    return mean.numpy()


def _check_values(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse values that are not finite, and variances below zero: what a net makes of them means nothing."""
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{path}: {name} has values that are not finite (NaN or infinite); it is damaged.")
        if name.endswith("running_var") and (value < 0).any():
            raise ModelError(f"{path}: {name} has values below 0, which no variance has; it is damaged.")


def build_with_weights(spec: ModelSpec, weights: Mapping[str, Tensor], source: str) -> nn.Module:
    """Return the net of `spec` with `weights`, in evaluation mode, without initialising it first.

    Raises:
        ModelError: names, shapes or types do not fit; the message names the first ones.
    """
    layers = spec.depth if isinstance(spec, ResNetSpec | HighwaySpec | VGGSpec) else 0
    if layers > len(weights):  # found before the net is built, which takes long if a damaged file asks for much
        raise ModelError(f"{source} holds {len(weights)} tensors, and a net of {layers:,} layers has more.")
    try:
        with torch.device("meta"):
            model = build(spec)
    except SpecError as error:
        raise ModelError(f"{source}: {error}") from error
    check_weights(model, weights, f"{source} does not fit {model_name(spec)}")
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], message: str) -> None:
    """Refuse weights whose names, shapes or types are not the model's.

    Raises:
        ModelError: beginning with `message`.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    misshapen = [
        f"{name} has shape {shown(tuple(weights[name].shape))} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    mistyped = [
        f"{name} is {weights[name].dtype} instead of {value.dtype}"
        for name, value in own.items()
        if name in weights and weights[name].dtype != value.dtype
    ]
    problems = [
        _told(missing, "tensor is missing", "tensors are missing"),
        _told([shown(name) for name in extra], "is not part of it", "are not part of it"),
        _told(misshapen, "has another shape", "have another shape"),
        _told(mistyped, "has another type", "have another type"),
    ]
    if problems := [problem for problem in problems if problem]:
        raise ModelError(
            f"{message}: {', '.join(problems)}. The weights belong to another net, variant or class count."
        )


def _told(tensors: list[str], one: str, several: str) -> str:
    """Return how many tensors have a problem and which the first ones are; nothing of none."""
    if not tensors:
        return ""
    more = "; …" if len(tensors) > 3 else ""
    return f"{len(tensors)} {one if len(tensors) == 1 else several} ({'; '.join(tensors[:3])}{more})"


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
        config = read_json(path)
    except ModelError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise ModelError(f"{path.parent} is not a model folder: it has no config.json.") from error
        raise
    if "model" not in config:
        raise ModelError(f'{path} is not a model folder\'s: it has no "model".')
    if _is_deep(config):
        raise ModelError(f"{path} has more than {_DEEPEST_JSON} levels of lists and objects; it is damaged.")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelError(f"{path} has format_version {shown(version)}; this version of resnets reads {FORMAT_VERSION}.")
    return config


def _is_deep(config: dict[str, Any]) -> bool:
    level: list[Any] = [config]
    for _ in range(_DEEPEST_JSON):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [value for values in inner for value in values]
    return bool(level)
