"""ResNetForImageClassification of Hugging Face's transformers: weights under its own names, and two JSON files.

config.json gives the variant: `layer_type`, and `downsample_in_bottleneck` for the stride on the first 1x1 (the
paper, v1) instead of the 3x3. preprocessor_config.json gives resize, crop and normalisation.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812

from resnets.models.interop.files import load_tensors, save_tensors, with_counters
from resnets.models.interop.foreign import Foreign
from resnets.models.interop.functional import layer
from resnets.models.interop.preprocessing import (
    check_printable,
    crop_share,
    flag,
    number,
    numbers,
    preprocess,
    read_json,
    size,
    stated_licence,
    unit_range,
)
from resnets.models.interop.shapes import resolve, structure
from resnets.models.interop.timm import preprocessing_obstacle, weights_file
from resnets.models.interop.torchvision import pooling_obstacle
from resnets.specs.catalogue import model_name
from resnets.specs.errors import ModelError
from resnets.specs.io import shown
from resnets.specs.model import ResNetSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from resnets.models.interop.foreign import Hints
    from resnets.specs.model import ModelSpec
    from resnets.specs.preprocess import Preprocess

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_ARCHITECTURE = "ResNetForImageClassification"
_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
"""What ResNetConfig of transformers takes where a config.json is silent, and all of it that decides the net."""

_STEM = "resnet.embedder.embedder"
_BLOCK = re.compile(
    r"resnet\.encoder\.stages\.(\d{1,4})\.layers\.(\d{1,4})\."
    r"(?:layer\.(\d)|(shortcut))\.(convolution|normalization)\.(\w+)"
)
_OUR_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)")
_RESAMPLE: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
_SHARE_PROCESSORS = ("ConvNextImageProcessor", "ConvNextImageProcessorFast", "ConvNextFeatureExtractor")
"""Those that state the size of the crop, and with `crop_pct` that of the resized image."""
_CROP_PROCESSORS = (
    "BitImageProcessor",
    "BitImageProcessorFast",
    "CLIPImageProcessor",
    "CLIPImageProcessorFast",
    "CLIPFeatureExtractor",
)
"""Those that state the shorter side of the resized image, and with `crop_size` the crop."""
_WARPED_FROM = 384
"""Side from which ConvNextImageProcessor stretches the whole image instead of cropping it."""


def read(path: Path, hints: Hints) -> Foreign:
    """Return the net of a folder with config.json, weights and, as a rule, preprocessor_config.json.

    Raises:
        ModelError: a file is missing or damaged, or describes what the paper's family does not have.
    """
    if not path.is_dir():
        raise ModelError(
            f"{path} is a file, and {_ARCHITECTURE} is read with its config.json; give the folder that holds both."
        )
    where = str(path / "config.json")
    config = read_json(path / "config.json")
    fields = read_config(config, where)
    tensors = load_tensors(weights_file(path, _WEIGHTS), hints.entry)
    weights = with_counters({our_name(name, str(path)): value for name, value in tensors.items()})
    found = structure(weights, str(path))
    expansion = 1 if found.block == "basic" else 4
    described = {
        "layer_type": found.block,
        "depths": list(found.blocks),
        "hidden_sizes": [width * expansion for width in found.widths],
        "embedding_size": found.widths[0],
        "num_channels": found.in_channels,
    }
    for name, value in described.items():
        if fields[name] != value:
            raise ModelError(f"{where}: {name} is {shown(fields[name])}, and the weights have {shown(value)}.")
    fields |= described
    stride_on = "1x1" if fields["downsample_in_bottleneck"] else "3x3"
    spec, missing = resolve(found, hints, str(path), stem_pool="torchvision", stride_on=stride_on)
    side = path / "preprocessor_config.json"
    return Foreign(
        format="huggingface",
        source=str(path),
        weights=weights,
        spec=spec,
        missing=missing,
        preprocess=read_preprocessor(read_json(side), str(side)) if side.exists() else None,
        classes=_labels(config, found.num_classes, where),
        licence=_licence(config, where) or stated_licence(path),
        reference=_reference(tensors, fields, found.num_classes),
    )


def read_config(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the fields that decide the net, with the defaults of transformers.

    Raises:
        ModelError: it is not of a ResNet that classifies images, or has what the paper's nets do not.
    """
    architectures = config.get("architectures")
    if config.get("model_type") != "resnet" or architectures not in (None, [_ARCHITECTURE]):
        raise ModelError(
            f"{where} is of model_type {shown(config.get('model_type'))} and architectures {shown(architectures)}; only "
            f"resnet and {_ARCHITECTURE} can be converted."
        )
    fields = {name: config.get(name, default) for name, default in _DEFAULTS.items()}
    if fields["hidden_act"] != "relu" or fields["downsample_in_first_stage"] is not False:
        raise ModelError(
            f"{where}: hidden_act is {shown(fields['hidden_act'])} and downsample_in_first_stage "
            f"{shown(fields['downsample_in_first_stage'])}; the paper's nets have relu and false."
        )
    flag(fields, "downsample_in_bottleneck", False, where)
    return fields


def read_preprocessor(values: dict[str, Any], where: str) -> Preprocess:
    """Return the preprocessing that a preprocessor_config.json states.

    Raises:
        ModelError: it is damaged, or something else than a resize, a centre crop and a normalisation.
    """
    instead = "remove the file and give --resize, --crop, --mean and --std"
    kind = values.get("image_processor_type") or values.get("feature_extractor_type")
    if kind not in (*_SHARE_PROCESSORS, *_CROP_PROCESSORS):
        raise ModelError(
            f"{where}: image_processor_type is {shown(kind)}, and what that one does is known here only of "
            f"{', '.join((*_SHARE_PROCESSORS, *_CROP_PROCESSORS))}; {instead}."
        )
    resample = values.get("resample")
    interpolation = _RESAMPLE.get(resample) if type(resample) is int else None
    if not flag(values, "do_resize", True, where) or interpolation is None:
        raise ModelError(
            f"{where}: do_resize is {shown(values.get('do_resize', True))} and resample {shown(resample)}; only a "
            f"resize with bilinear (2) or bicubic (3) interpolation can be had here. Or {instead}."
        )
    edge = values.get("size")
    if isinstance(edge, dict):
        edge = edge.get("shortest_edge") if set(edge) == {"shortest_edge"} else edge
    edge = size(edge, "size (shortest_edge)", where)
    if kind in _SHARE_PROCESSORS:
        share = number(values, "crop_pct", 224 / 256, where)
        if edge >= _WARPED_FROM or not 0.01 <= share <= 1:
            raise ModelError(
                f"{where}: {shown(kind)} with size {edge} and crop_pct {share} does not crop a resized image; {instead}."
            )
        crop, edge = edge, size(int(edge / share), "size / crop_pct", where)
    elif flag(values, "do_center_crop", False, where):
        crop = values.get("crop_size")
        if isinstance(crop, dict):
            crop = crop.get("height") if crop.get("height") == crop.get("width") else crop
        crop = size(crop, "crop_size", where)
    else:
        raise ModelError(f"{where}: {shown(kind)} does not crop images to one size; {instead}.")
    rescale = number(values, "rescale_factor", 1 / 255, where) if flag(values, "do_rescale", True, where) else 1.0
    normalised = flag(values, "do_normalize", True, where)
    return preprocess(
        resize_px=edge,
        crop_px=crop,
        mean=numbers(values, "image_mean", 3, where) if normalised else (0.0, 0.0, 0.0),
        std=numbers(values, "image_std", 3, where) if normalised else (1.0, 1.0, 1.0),
        scale=rescale,
        interpolation=interpolation,
        where=where,
        keys=("image_mean", "image_std"),
    )


def write(path: Path, net: Foreign) -> None:
    """Write a folder that `ResNetForImageClassification.from_pretrained` and `AutoImageProcessor` read.

    Raises:
        ModelError: that class has no such net, or its processors cannot prepare images so.
        OSError: a file cannot be written.
    """
    spec = net.spec
    reason = obstacle(spec, net.preprocess)
    if reason:
        assert spec is not None
        raise ModelError(f"{_ARCHITECTURE} cannot express {model_name(spec)}: {reason}.")
    assert isinstance(spec, ResNetSpec)
    assert net.preprocess is not None
    path.mkdir()
    _write_json(path / "config.json", _config(spec, net.classes or (), net.licence))
    _write_json(path / "preprocessor_config.json", _processor(net.preprocess))
    save_tensors({their_name(name): value for name, value in net.weights.items()}, path / "model.safetensors")


def obstacle(spec: ModelSpec | Any, preprocessing: Preprocess | None = None) -> str | None:
    """Return why that class has no net that computes what `spec` says, images prepared alike, or None."""
    if not isinstance(spec, ResNetSpec):
        return "it has residual nets only"
    if spec.stem != "7x7":
        return "its nets have a 7x7 stem"
    if spec.shortcut != "B":
        kind = "plain nets" if spec.shortcut == "none" else f"option {spec.shortcut}"
        return f"it has no {kind}, only projections where dimensions change (option B)"
    if spec.stem_pool != "torchvision":
        return pooling_obstacle()
    if spec.in_channels != 3:
        return f"its processors give images of 3 channels, and this net takes {spec.in_channels}"
    return preprocessing_obstacle(preprocessing)


def our_name(name: str, source: str) -> str:
    """Return torchvision's name for one of transformers'.

    Raises:
        ModelError: it is no name of ResNetForImageClassification.
    """
    if match := _BLOCK.fullmatch(name):
        stage, block, number_, shortcut, kind, rest = match.groups()
        place = f"layer{int(stage) + 1}.{int(block)}"
        if shortcut:
            return f"{place}.downsample.{0 if kind == 'convolution' else 1}.{rest}"
        return f"{place}.{'conv' if kind == 'convolution' else 'bn'}{int(number_) + 1}.{rest}"
    for theirs, ours in ((f"{_STEM}.convolution", "conv1"), (f"{_STEM}.normalization", "bn1"), ("classifier.1", "fc")):
        if name.startswith(f"{theirs}."):
            return f"{ours}{name.removeprefix(theirs)}"
    raise ModelError(f"{source} has a tensor {name}, which {_ARCHITECTURE} does not have.")


def their_name(name: str) -> str:
    """Return transformers' name for one of torchvision's."""
    if match := _OUR_BLOCK.fullmatch(name):
        stage, block, kind, number_, rest = match.groups()
        place = f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}"
        if kind == "downsample.":
            return f"{place}.shortcut.{'normalization' if number_ == '1' else 'convolution'}.{rest}"
        return f"{place}.layer.{int(number_) - 1}.{'convolution' if kind == 'conv' else 'normalization'}.{rest}"
    head, _, rest = name.partition(".")
    return f"{ {'conv1': f'{_STEM}.convolution', 'bn1': f'{_STEM}.normalization', 'fc': 'classifier.1'}[head] }.{rest}"


def _config(spec: ResNetSpec, classes: tuple[str, ...], licence: str) -> dict[str, Any]:
    by_name = {name: index for index, name in enumerate(classes)}
    return {
        "architectures": [_ARCHITECTURE],
        "model_type": "resnet",
        "num_channels": spec.in_channels,
        "embedding_size": spec.stem_width,
        "hidden_sizes": [width * spec.expansion for width in spec.widths],
        "depths": list(spec.blocks),
        "layer_type": spec.block,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": spec.block == "bottleneck" and spec.stride_on == "1x1",
        "id2label": {str(index): name for index, name in enumerate(classes)},
        **({"label2id": by_name} if len(by_name) == len(classes) else {}),  # it has no place for a name of two outputs
        **({"license": licence} if licence else {}),
    }


def _processor(preprocessing: Preprocess) -> dict[str, Any]:
    side = preprocessing.crop_px
    shared = {
        "do_resize": True,
        "resample": next(code for code, name in _RESAMPLE.items() if name == preprocessing.interpolation),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": unit_range(preprocessing.mean),
        "image_std": unit_range(preprocessing.std),
    }
    if side < _WARPED_FROM:  # the processor of the published ResNets
        share = crop_share(side, preprocessing.resize_px)
        kind = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": side}, "crop_pct": share}
    else:
        kind = {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": preprocessing.resize_px},
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
        }
    return {**kind, **shared}


def _labels(config: dict[str, Any], classes: int, where: str) -> tuple[str, ...] | None:
    labels = config.get("id2label")
    if labels is None:
        return None
    indices = {str(index) for index in range(classes)}
    if not isinstance(labels, dict) or not all(isinstance(name, str) for name in labels.values()):
        raise ModelError(f"{where}: id2label is not an object with the name of every class.")
    if set(labels) != indices:
        raise ModelError(f"{where}: id2label names {len(labels)} classes, and the weights have {classes}, 0 and up.")
    for index in range(classes):
        check_printable(labels[str(index)], f"{where}: id2label[{index}]")
    return tuple(labels[str(index)] for index in range(classes))


def _licence(config: dict[str, Any], where: str) -> str:
    licence = config.get("license")
    if not isinstance(licence, str):
        return ""
    check_printable(licence, f"{where}: license")
    return licence


def _reference(tensors: dict[str, Tensor], fields: dict[str, Any], classes: int) -> Callable[[Tensor], Tensor]:
    """Return the model of transformers, or the same function of the same tensors where that is not installed."""
    built: list[Any] = []

    def forward(images: Tensor) -> Tensor:
        if not built:
            built.append(_theirs(tensors, fields, classes))
        return built[0](images) if built[0] is not None else _functional(tensors, fields, images)

    return forward


def _theirs(tensors: dict[str, Tensor], fields: dict[str, Any], classes: int) -> Callable[[Tensor], Tensor] | None:
    try:
        from transformers import ResNetConfig, ResNetForImageClassification  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    with torch.device("meta"):
        model = ResNetForImageClassification(ResNetConfig(num_labels=classes, **fields))
    try:
        model.load_state_dict(with_counters(tensors), strict=True, assign=True)
    except RuntimeError as error:
        raise ModelError(f"transformers does not take the weights: {error}") from error
    model.eval()
    return lambda images: model(pixel_values=images).logits


def _functional(tensors: dict[str, Tensor], fields: dict[str, Any], images: Tensor) -> Tensor:
    x = F.relu(layer(tensors, (f"{_STEM}.convolution", f"{_STEM}.normalization"), images, stride=2))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    layers = 2 if fields["layer_type"] == "basic" else 3
    strided = 1 if layers == 3 and not fields["downsample_in_bottleneck"] else 0
    for stage, depth in enumerate(fields["depths"]):
        for block in range(depth):
            place = f"resnet.encoder.stages.{stage}.layers.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            shortcut = (f"{place}.shortcut.convolution", f"{place}.shortcut.normalization")
            out = x
            for index in range(layers):
                names = (f"{place}.layer.{index}.convolution", f"{place}.layer.{index}.normalization")
                out = layer(tensors, names, out, stride=stride if index == strided else 1)
                out = F.relu(out) if index < layers - 1 else out
            projected = f"{shortcut[0]}.weight" in tensors
            x = F.relu(out + (layer(tensors, shortcut, x, stride=stride) if projected else x))
    return F.linear(x.mean(dim=(2, 3)), tensors["classifier.1.weight"], tensors["classifier.1.bias"])


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
