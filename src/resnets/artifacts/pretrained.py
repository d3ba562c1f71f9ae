"""Trained nets by name: torchvision:NAME[.WEIGHTS], timm:NAME, hf-hub:OWNER/NAME[@REVISION].

A file is downloaded once, its content is held against its checksum, and later starts make no request. Files are in
$RESNETS_CACHE, else in ~/.cache/resnets/weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.artifacts.hub import CONFIG, LARGEST_WEIGHTS_BYTES, fetch_snapshot, printable
from resnets.artifacts.model_folder import StoredModel, build_with_weights, load_model, save_model
from resnets.data.download import DownloadError, StderrProgress, download_once
from resnets.data.preprocess import Preprocessor
from resnets.models.interop.files import load_tensors, with_counters
from resnets.models.interop.foreign import Hints
from resnets.models.interop.preprocessing import read_json
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import ModelError, near_misses
from resnets.specs.preprocess import Preprocess

if TYPE_CHECKING:
    from resnets.artifacts.hub import Snapshot
    from resnets.data.download import Progress

FORMS = "torchvision:NAME (such as torchvision:resnet50), timm:NAME or hf-hub:OWNER/NAME"
TORCHVISION = {f"resnet{depth}": f"resnet{depth}-v1.5" for depth in (18, 34, 50, 101, 152)} | {
    "vgg16": "vgg16",
    "vgg19": "vgg19",
}
"""Our names of the nets that torchvision has trained."""

_TORCHVISION_LICENCE = (
    "torchvision states none for these weights; they were trained on ImageNet-1k, whose terms may apply "
    "(https://github.com/pytorch/vision#pre-trained-model-license)"
)


def weights_cache() -> Path:
    """Return the folder of downloaded weights: $RESNETS_CACHE, else ~/.cache/resnets/weights."""
    return Path(os.environ.get("RESNETS_CACHE") or "~/.cache/resnets/weights").expanduser()


def is_source(text: str) -> bool:
    """Return whether `text` names weights to download; everything else is a path, and a bare word is never guessed."""
    return text.partition(":")[0] in ("torchvision", "timm", "hf-hub") and ":" in text


def open_source(source: str, *, on_progress: Progress | None = None) -> StoredModel:
    """Return the trained net that `source` names, in evaluation mode on the CPU, with its licence.

    Args:
        source: `torchvision:resnet50`, or with one of several weights `torchvision:resnet50.IMAGENET1K_V1`;
            `hf-hub:OWNER/NAME[@REVISION]`: a net in the layout of timm, transformers or this package;
            `timm:NAME`, which is `hf-hub:timm/NAME`.
        on_progress: told of the bytes of a download; None shows them on stderr.

    Raises:
        ModelError: there is no net of that name, it is none of the paper's nets, its files are damaged, or it is not
            on this machine and cannot be downloaded; then the message says what to put where.
        DataError: a download has the wrong checksum, or cannot be written.
    """
    form, _, name = source.partition(":")
    match form:
        case "torchvision":
            return _from_torchvision(name, on_progress)
        case "hf-hub":
            return _from_hub(name, on_progress)
        case "timm":
            if "/" in name:
                raise ModelError(f"{source} has an owner; the form is timm:NAME. Write hf-hub:{name} for that model.")
            return _from_hub(f"timm/{name}", on_progress)
        case _:
            raise ModelError(f"{source!r} names no weights; give {FORMS}.")


def _from_torchvision(name: str, on_progress: Progress | None) -> StoredModel:
    net, _, tag = name.partition(".")
    if net not in TORCHVISION:
        raise ModelError(
            f"torchvision:{name} cannot be loaded; torchvision's nets here are {', '.join(TORCHVISION)}."
            f"{near_misses(net, TORCHVISION)}"
        )
    weights = _torchvision_weights(net, tag)
    path = weights_cache() / "torchvision" / Path(urllib.parse.urlsplit(weights.url).path).name
    _fetch_torchvision(f"torchvision:{net}", weights.url, path, on_progress)
    categories = tuple(weights.meta["categories"])
    spec = model_spec(TORCHVISION[net], num_classes=len(categories))
    return StoredModel(
        model=build_with_weights(spec, with_counters(load_tensors(path)), str(path)),
        spec=spec,
        preprocessor=Preprocessor(_torchvision_preprocess(weights)),
        classes=categories,
        metrics={},
        licence=_TORCHVISION_LICENCE,
    )


def _torchvision_weights(net: str, tag: str) -> Any:
    """Return torchvision's entry: the one named `tag`, or its default."""
    import torchvision.models

    weights = torchvision.models.get_model_weights(net)
    known = [entry.name for entry in weights if entry.meta.get("categories")]
    if tag and tag not in known:
        raise ModelError(
            f"torchvision:{net} has no weights {tag!r}; it has {', '.join(known)}.{near_misses(tag, known)}"
        )
    return weights[tag or weights.DEFAULT.name]  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]


def _torchvision_preprocess(weights: Any) -> Preprocess:
    transforms = weights.transforms()
    (resize_px,), (crop_px,) = transforms.resize_size, transforms.crop_size
    return Preprocess(
        resize_px=resize_px,
        crop_px=crop_px,
        mean=tuple(255.0 * value for value in transforms.mean),
        std=tuple(255.0 * value for value in transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _fetch_torchvision(source: str, url: str, path: Path, on_progress: Progress | None) -> None:
    """Download a file whose name ends with the first digits of its SHA-256, unless it is there; verify it."""
    digits = path.stem.rpartition("-")[2]
    try:
        download_once(
            url,
            path,
            checksum=f"sha256:{digits}",
            advice=f"Remove {path} to download it again.",
            limit_bytes=LARGEST_WEIGHTS_BYTES,
            on_progress=on_progress or StderrProgress(path.name),
        )
    except DownloadError as error:
        raise ModelError(
            f"{source} is not on this machine, and {error} Without network, put the file of that address at {path}; "
            f"its SHA-256 (`sha256sum`) begins with {digits}."
        ) from error


def _from_hub(name: str, on_progress: Progress | None) -> StoredModel:
    snapshot = fetch_snapshot(name, weights_cache(), on_progress=on_progress)
    config = read_json(snapshot.folder / CONFIG)
    if "format_version" in config:
        return _with_origin(load_model(snapshot.folder), snapshot)
    converted = snapshot.folder / "converted" / snapshot.digest()
    with contextlib.suppress(ModelError):
        return load_model(converted)
    from resnets.artifacts.completion import IncompleteError
    from resnets.artifacts.conversion import import_foreign

    try:
        stored = import_foreign(snapshot.folder, Hints(classes=_imagenet_classes(config)))
    except IncompleteError as error:
        raise ModelError(
            f"hf-hub:{name} does not say everything about its net. Once, run `resnets convert "
            f"{shlex.quote(str(snapshot.folder))} FOLDER` with {', '.join(error.missing)}; then give FOLDER instead."
        ) from error
    stored = _with_origin(stored, snapshot)
    with contextlib.suppress(OSError):  # kept only so that the next start need not convert and prove it again
        save_model(converted, stored)
    return stored


def _with_origin(stored: StoredModel, snapshot: Snapshot) -> StoredModel:
    """Return the model with the licence that the hub states, and where it comes from."""
    if snapshot.model is None:
        return stored
    licence = snapshot.model.licence or printable(stored.licence) or "not stated"
    origin = f"{snapshot.model.address} at {snapshot.model.commit[:12]}"
    return dataclasses.replace(stored, licence=f"{licence} ({origin})")


def _imagenet_classes(config: dict[str, Any]) -> tuple[str, ...] | None:
    """Return ImageNet's class names where a configuration of timm has none and its tag says in1k."""
    details = config.get("pretrained_cfg")
    details = details if isinstance(details, dict) else {}
    named = "label_names" in config or "label_names" in details
    if named or config.get("num_classes") != 1000 or not str(details.get("tag")).endswith("in1k"):
        return None
    # timm orders the 1,000 classes by their WordNet numbers, as torchvision does.
    return tuple(_torchvision_weights("resnet50", "").meta["categories"])
