"""The forms that weights have in other programs: how each is told, read and written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resnets.artifacts.model_folder import FORMAT_VERSION
from resnets.models.interop import cifar, huggingface, timm, torchvision
from resnets.models.interop.files import SUFFIXES, load_tensors
from resnets.models.interop.foreign import Foreign, Hints
from resnets.models.interop.preprocessing import read_json
from resnets.specs.errors import ModelError, UserError, near_misses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Format(NamedTuple):
    """How one program's files are read and written."""

    read: Callable[[Path, Hints], Foreign]
    write: Callable[[Path, Foreign], None]
    suffixes: tuple[str, ...]
    """Names of the files that are written; empty where a folder is."""
    lacks: tuple[str, ...] = ()
    """What one of our models has and the files that are written have no place for, or only a comment."""
    check: Callable[[Path, Foreign], None] = lambda path, net: None
    """Refuses written files that say something else than they should where `read` does not return it."""


def _read_caffe(path: Path, hints: Hints) -> Foreign:
    from resnets.models.interop.caffe import read  # pyright: ignore

    return read(path, hints)


def _write_caffe(path: Path, net: Foreign) -> None:
    from resnets.models.interop.caffe import write  # pyright: ignore

    write(path, net)


def _check_caffe(path: Path, net: Foreign) -> None:
    from resnets.models.interop.caffe import check_written  # pyright: ignore

    check_written(path, net)


_LACKS = ("class names", "normalisation", "licence")
FORMATS = {
    "torchvision": Format(torchvision.read, torchvision.write, torchvision.SUFFIXES, _LACKS),
    "timm": Format(timm.read, timm.write, ()),
    "huggingface": Format(huggingface.read, huggingface.write, ()),
    "cifar": Format(cifar.read, cifar.write, cifar.SUFFIXES, _LACKS),
    "caffe": Format(
        _read_caffe,
        _write_caffe,
        (),
        ("class names", "normalisation other than as a comment", "licence other than as a comment"),
        _check_caffe,
    ),
}
OURS = "resnets"
"""What the form of our own model folders is called beside the others."""


def _detect(path: Path) -> str | None:
    """Return the format of files, or None for a state dict, whose names alone tell it."""
    try:
        exists = path.exists()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    if not exists:
        raise ModelError(f"There is nothing at {path}; name a file of weights or a folder.")
    if path.is_dir():
        return _detect_folder(path)
    if path.suffix in (".caffemodel", ".prototxt"):
        return "caffe"
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path} is no file of weights; those end in {', '.join((*SUFFIXES, '.caffemodel'))}.")
    return None


def is_ours(path: Path) -> bool:
    """Return whether a path is a model folder or a run directory of this package."""
    try:
        if (path / "checkpoints").is_dir() or (path / "model" / "config.json").is_file():
            return True
        return (path / "config.json").is_file() and _detect_folder(path) == OURS
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _detect_folder(path: Path) -> str:
    if (path / "config.json").is_file():
        config = read_json(path / "config.json")
        if "model" in config and config.get("format_version") == FORMAT_VERSION:
            return OURS
        if "architecture" in config:
            return "timm"
        if "model_type" in config or "architectures" in config:
            return "huggingface"
        raise ModelError(f"{path / 'config.json'} is neither of this package, nor of timm, nor of transformers.")
    if any(path.glob("*.caffemodel")):
        return "caffe"
    raise ModelError(f"{path} has no config.json; name the file of weights in it.")


def read_foreign(path: Path, hints: Hints) -> Foreign:
    """Return what files of another program hold.

    Raises:
        ModelError: they cannot be read, or are a model folder of this package.
        UserError: `hints.format` is unknown, or another than theirs.
    """
    detected = _detect(path)
    if detected == OURS:
        raise ModelError(f"{path} is a model folder of this package; load it instead of importing it.")
    name = hints.format or detected or _dialect(load_tensors(path, hints.entry))
    if name not in FORMATS:
        raise UserError(f"--from is {name!r}; it is one of {', '.join(FORMATS)}.{near_misses(name, FORMATS)}")
    if detected and name != detected and not (detected == "huggingface" and name == "timm"):
        raise UserError(f"--from is {name}, and {path} is in the form of {detected}; leave --from out.")
    return FORMATS[name].read(path, hints)


def _dialect(tensors: Mapping[str, Tensor]) -> str:
    if any(name.startswith("resnet.embedder") for name in tensors):
        return "huggingface"
    stem = tensors.get("conv1.weight")
    return "cifar" if stem is not None and stem.ndim == 4 and stem.shape[-1] == 3 else "torchvision"


_FILES_ONLY = (
    *SUFFIXES,
    ".caffemodel",
    ".onnx",
    ".h5",
    ".keras",
    ".pb",
    ".tflite",
    ".npz",
    ".npy",
    ".pkl",
    ".prototxt",
    ".json",
    ".zip",
)
"""What no folder is called, as it would be taken for a file of another program."""
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9_]{0,9}")
"""What a file's name ends in, unlike `.5` of resnet50-v1.5 or `.finetune-seed0` of a run."""


def choose_target(destination: Path, to: str | None) -> str:
    """Return the form to write: the one asked for, else what the destination's name says.

    Raises:
        UserError: there is no such form, or the destination is named like something else.
    """
    if to is None:
        if destination.suffix not in torchvision.SUFFIXES and _FILE_SUFFIX.fullmatch(destination.suffix):
            named = "" if destination.suffix in _FILES_ONLY else f" With --to {OURS}, a model folder gets this name."
            raise UserError(
                f"{destination} ends in {destination.suffix}, which no format has that can be written; name a file in "
                f"{' or '.join(torchvision.SUFFIXES)}, or a folder; --to takes {', '.join([OURS, *FORMATS])}.{named}"
            )
        to = "torchvision" if destination.suffix in torchvision.SUFFIXES else OURS
    if to != OURS and to not in FORMATS:
        known = [OURS, *FORMATS]
        raise UserError(f"--to is {to!r}; it is one of {', '.join(known)}.{near_misses(to, known)}")
    suffixes = () if to == OURS else FORMATS[to].suffixes
    if suffixes and destination.suffix not in suffixes:
        raise UserError(f"--to {to} writes a file; end {destination} in {' or '.join(suffixes)}.")
    if not suffixes and destination.suffix in _FILES_ONLY:
        raise UserError(
            f"--to {to} writes a folder, and {destination} is named like a file; --to is one of "
            f"{', '.join([OURS, *FORMATS])}."
        )
    return to
