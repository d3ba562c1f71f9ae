"""timm's resnet18, 34, 50, 101 and 152: a state dict with torchvision's names, in a folder with a config.json.

The folder is laid out as on the Hugging Face hub: `timm.create_model("local-dir:FOLDER", pretrained=True)` reads it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from resnets.models.interop import torchvision
from resnets.models.interop.files import load_tensors, save_tensors, with_counters
from resnets.models.interop.foreign import Foreign
from resnets.models.interop.preprocessing import (
    check_printable,
    class_names,
    crop_share,
    number,
    numbers,
    preprocess,
    read_json,
    size,
    stated_licence,
    unit_range,
)
from resnets.models.interop.shapes import declared_with, resolve, structure
from resnets.specs.catalogue import IMAGENET_STAGES, model_name
from resnets.specs.errors import ModelError
from resnets.specs.io import shown
from resnets.specs.model import ResNetSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from resnets.models.interop.foreign import Hints
    from resnets.specs.model import ModelSpec
    from resnets.specs.preprocess import Preprocess

ARCHITECTURES = tuple(f"resnet{depth}" for depth in IMAGENET_STAGES)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_HARMLESS = {"num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate"}
"""Arguments of timm's nets that do not change what one computes in testing, that its weights repeat, or (the pooling)
whose value is checked."""


def read(path: Path, hints: Hints) -> Foreign:
    """Return the net of a folder as on the hub, or of a bare state dict, about which timm's file says nothing more.

    Raises:
        ModelError: a file is damaged, or the net is not one of timm's five ResNets of the paper's kind.
    """
    folder = path.is_dir()
    config = read_json(path / "config.json") if folder else {}
    stated, preprocessing, classes, licence = read_config(config, str(path / "config.json")) if folder else _NOTHING
    weights = with_counters(load_tensors(weights_file(path, _WEIGHTS) if folder else path, hints.entry))
    found = structure(weights, str(path))
    spec, missing = resolve(found, hints, str(path), stem_pool="torchvision", stride_on="3x3")
    if spec is not None and (reason := obstacle(spec)):
        raise ModelError(f"{path} is not a net of timm that the paper's family has: {reason}.")
    if spec is not None and stated and IMAGENET_STAGES[int(stated[6:])] != (spec.block, spec.blocks):
        raise ModelError(f"{path / 'config.json'} names {stated}, and the weights are of {model_name(spec)}.")
    return Foreign(
        format="timm",
        source=str(path),
        weights=weights,
        spec=spec,
        missing=missing,
        declared_with=() if spec is None or folder else declared_with(found, hints, str(path)),
        preprocess=preprocessing,
        classes=classes,
        licence=licence or (stated_licence(path) if folder else ""),
        reference=None if spec is None else torchvision.reference(weights, spec),
    )


_NOTHING = ("", None, None, "")


def read_config(config: dict[str, Any], where: str) -> tuple[str, Preprocess | None, tuple[str, ...] | None, str]:
    """Return architecture, preprocessing, class names and licence, as far as a config.json of timm states them.

    Raises:
        ModelError: it is damaged, or asks for what our nets or our preprocessing cannot do.
    """
    architecture = config.get("architecture")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{where}: architecture is {shown(architecture)}; only {', '.join(ARCHITECTURES)} can be converted."
        )
    arguments = config.get("model_args", {})
    if not isinstance(arguments, dict) or set(arguments) - _HARMLESS or arguments.get("global_pool", "avg") != "avg":
        raise ModelError(
            f"{where}: model_args is {shown(arguments)}, which changes timm's {architecture} into another net."
        )
    inner = config.get("pretrained_cfg", config)  # older folders have one level
    if not isinstance(inner, dict):
        raise ModelError(f"{where}: pretrained_cfg is {shown(inner)}; it is an object.")
    if inner.get("label_offset") or inner.get("custom_load"):
        raise ModelError(f"{where}: its weights are not stored as timm's own state dict (label_offset, custom_load).")
    names = config.get("label_names", inner.get("label_names", inner.get("labels")))
    licence = inner.get("license")
    licence = licence if isinstance(licence, str) else ""
    check_printable(licence, f"{where}: license")
    return (
        architecture,
        _preprocess(inner, where) if "mean" in inner and "std" in inner else None,
        None if names is None else class_names(names, f"{where}: label_names"),
        licence,
    )


def _preprocess(values: dict[str, Any], where: str) -> Preprocess:
    sides = values.get("input_size")
    if not isinstance(sides, list) or len(sides) != 3 or sides[0] != 3 or sides[1] != sides[2]:
        raise ModelError(
            f"{where}: input_size is {shown(sides)}; only square RGB images, [3, side, side], can be had here."
        )
    crop = size(sides[1], "input_size", where)
    share = number(values, "crop_pct", None, where)
    mode, interpolation = values.get("crop_mode", "center"), values.get("interpolation")
    if mode != "center" or interpolation not in ("bilinear", "bicubic"):
        raise ModelError(
            f"{where}: crop_mode is {shown(mode)} and interpolation {shown(interpolation)}; only a centre crop (center) of an "
            "image resized with bilinear or bicubic interpolation can be had here."
        )
    if not 0.01 <= share <= 1:
        raise ModelError(f"{where}: crop_pct is {share}; it is a share of the resized side, at most 1.")
    return preprocess(
        resize_px=size(math.floor(crop / share), "input_size / crop_pct", where),
        crop_px=crop,
        mean=numbers(values, "mean", 3, where),
        std=numbers(values, "std", 3, where),
        scale=1 / 255,
        interpolation=interpolation,
        where=where,
        keys=("mean", "std"),
    )


def write(path: Path, net: Foreign) -> None:
    """Write a folder as on the hub: config.json and model.safetensors.

    Raises:
        ModelError: timm has no such net, or cannot prepare images so.
        OSError: a file cannot be written.
    """
    reason = obstacle(net.spec, net.preprocess)
    if reason:
        assert net.spec is not None
        raise ModelError(f"timm cannot express {model_name(net.spec)}: {reason}.")
    assert isinstance(net.spec, ResNetSpec)
    assert net.preprocess is not None
    path.mkdir()
    config = config_for(net.spec, net.preprocess, net.classes or (), net.licence)
    (path / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    save_tensors(net.weights, path / "model.safetensors")


def obstacle(spec: ModelSpec | Any, preprocessing: Preprocess | None = None) -> str | None:
    """Return why no net of timm computes what `spec` says, images prepared alike, or None where one does."""
    if not isinstance(spec, ResNetSpec):
        return "of the paper's nets it has the residual ones only"
    if reason := torchvision.obstacle(spec):
        return reason
    if (spec.block, spec.blocks) not in IMAGENET_STAGES.values():
        return f"it has no net with {spec.block} blocks {spec.blocks}"
    return preprocessing_obstacle(preprocessing)


def preprocessing_obstacle(preprocessing: Preprocess | None) -> str | None:
    """Return why programs that subtract one RGB mean for all pixels cannot prepare images so, or None."""
    if preprocessing is not None and preprocessing.mean_image:
        return "it subtracts one mean a channel, and this net takes a mean image"
    if preprocessing is not None and preprocessing.color != "rgb":
        return f"it prepares images as RGB, and this net takes {preprocessing.color}"
    return None


def config_for(spec: ResNetSpec, preprocessing: Preprocess, classes: Sequence[str], licence: str) -> dict[str, Any]:
    """Return what timm reads in a config.json; only for a net without an `obstacle`."""
    depth = next(depth for depth, own in IMAGENET_STAGES.items() if own == (spec.block, spec.blocks))
    side = preprocessing.crop_px
    return {
        "architecture": f"resnet{depth}",
        "num_classes": spec.num_classes,
        "num_features": spec.widths[-1] * spec.expansion,
        "label_names": list(classes),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, side, side],
            "fixed_input_size": False,
            "interpolation": preprocessing.interpolation,
            "crop_pct": crop_share(side, preprocessing.resize_px),
            "crop_mode": "center",
            "mean": unit_range(preprocessing.mean),
            "std": unit_range(preprocessing.std),
            "num_classes": spec.num_classes,
            "pool_size": [math.ceil(side / 32)] * 2,
            "first_conv": "conv1",
            "classifier": "fc",
            **({"license": licence} if licence else {}),
        },
    }


def weights_file(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of the files `names` that a folder has.

    Raises:
        ModelError: it has none.
    """
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ModelError(f"{folder} has none of {', '.join(names)}; its weights are missing.")
    return found
