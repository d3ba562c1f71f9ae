"""Weights between our model folders and other programs: read, completed, proven equal, written, read back.

A conversion either ends with a numeric proof and a complete file or folder, or writes nothing.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from resnets.artifacts.completion import complete
from resnets.artifacts.model_folder import FORMAT_VERSION, StoredModel, build_with_weights, load_model, save_model
from resnets.artifacts.proof import Proof, prove
from resnets.data.preprocess import Preprocessor
from resnets.models.interop import cifar, huggingface, timm, torchvision
from resnets.models.interop.files import SUFFIXES, load_tensors
from resnets.models.interop.foreign import Foreign, Hints
from resnets.models.interop.preprocessing import check_printable, read_json
from resnets.specs.errors import ModelError, UserError, near_misses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from resnets.specs.preprocess import Preprocess

T = TypeVar("T")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What was converted into what, and how equal the two are."""

    source: str
    destination: str
    source_format: str
    target_format: str
    stored: StoredModel
    """The net with its preprocessing, class names and licence."""
    proof: Proof
    """Converted net against source; for a net that came from a third program, the larger of both differences."""
    declared_with: tuple[str, ...] = ()
    """Flags that stated the variant where the source's files do not tell it; the proof is then of the net declared."""
    assumed: tuple[str, ...] = ()
    """What neither the source's files nor the hints say, and was taken to be."""


def import_foreign(path: Path, hints: Hints | None = None) -> StoredModel:
    """Return the net of another program's files, in evaluation mode, proven to give the same logits.

    Args:
        path: a file of weights, or a folder with a config.json.
        hints: what the files do not say.

    Raises:
        ModelError: the files are damaged, hold another kind of net, do not say everything and neither do the hints,
            or the logits differ.
        SpecError: a hint cannot be right.
    """
    return _import(path, hints or Hints())[0]


def convert(
    source: Path | StoredModel, destination: Path, hints: Hints | None = None, to: str | None = None
) -> Conversion:
    """Convert a net to another program's form, or to a model folder.

    Args:
        source: files of another program, or one of our models.
        destination: what is written; must not exist.
        hints: what the source's files do not say; `hints.format` is the source's.
        to: resnets, torchvision, timm, huggingface, caffe or cifar; None is torchvision for a destination that ends
            in .pth, .pt or .safetensors, and resnets for another.

    Raises:
        ModelError: the net cannot be read, cannot be expressed in the target's form, or the logits differ; nothing
            was written then.
        UserError: the destination exists or cannot be written, or the formats are unknown.
    """
    hints = hints or Hints()
    target = _target(destination, to)
    try:
        exists = destination.exists() or destination.is_symlink()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise _unwritable(destination, error) from error
    if exists:
        raise UserError(f"{destination} exists, and convert replaces nothing; name another destination or remove it.")
    declared: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    if isinstance(source, StoredModel):
        for index, name in enumerate(source.classes):
            check_printable(name, f"The class name of output {index}")
        check_printable(source.licence, "The licence (--licence)")
        stored, proofs, origin = source, [], (source.name, OURS)
    else:
        stored, proof, foreign = _import(source, hints)
        proofs, origin = [proof], (str(source), foreign.format)
        declared = foreign.declared_with
        if hints.mean_image is not None and hints.std is None and foreign.format != "caffe":
            assumed = ("std 1, as --mean-image is given without --std",)
    proofs.append(_write(stored, destination, target))
    return Conversion(
        source=origin[0],
        destination=str(destination),
        source_format=origin[1],
        target_format=target,
        stored=stored,
        proof=max(proofs, key=lambda proof: proof.max_share),
        declared_with=declared,
        assumed=assumed,
    )


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


def _import(path: Path, hints: Hints) -> tuple[StoredModel, Proof, Foreign]:
    foreign = complete(_read(path, hints), hints)
    spec, preprocess, classes, reference = foreign.spec, foreign.preprocess, foreign.classes, foreign.reference
    assert spec is not None
    assert preprocess is not None
    assert classes is not None
    assert reference is not None
    model = build_with_weights(spec, foreign.weights, foreign.source)
    preprocessor = Preprocessor(preprocess, foreign.mean_image)
    proof = prove(model, reference, preprocessor, source=foreign.source)
    stored = StoredModel(
        model=model,
        spec=spec,
        preprocessor=preprocessor,
        classes=classes,
        metrics={"converted_from": foreign.format, "max_difference": proof.max_difference},
        licence=foreign.licence,
    )
    return stored, proof, foreign


def _read(path: Path, hints: Hints) -> Foreign:
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


def _target(destination: Path, to: str | None) -> str:
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


def _write(stored: StoredModel, destination: Path, target: str) -> Proof:
    """Write under another name in the same folder, read that back, prove it equal, and only then rename it."""
    temporary = destination.with_name(f".tmp-{os.getpid()}-{destination.name}")
    try:
        with _parents(destination):
            try:
                _remove(temporary)
                if target == OURS:
                    save_model(temporary, stored)
                    proof = _check_folder(stored, temporary, destination)
                else:
                    net = _outgoing(stored, target)
                    FORMATS[target].write(temporary, net)
                    proof = _check_foreign(stored, net, temporary, destination, target)
                for file in _files(temporary):
                    _sync(file)
                temporary.rename(destination)
            finally:
                _remove(temporary)
    except OSError as error:
        raise _unwritable(destination, error) from error
    return proof


def _unwritable(destination: Path, error: OSError) -> UserError:
    return UserError(f"{destination} cannot be written: {error.strerror or error}.")


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Create the folders above `path` that are missing; if the body fails, those are removed again while empty."""
    created: list[Path] = []
    try:
        for folder in reversed(path.parents):
            if not folder.is_dir():
                folder.mkdir()
                created.append(folder)
        yield
    except BaseException:
        with suppress(OSError):  # somebody else may have put something into one
            for folder in reversed(created):
                folder.rmdir()
        raise


def _outgoing(stored: StoredModel, target: str) -> Foreign:
    """Return one of our nets as the other programs take it: for RGB images."""
    weights = {name: value.detach().cpu() for name, value in stored.model.state_dict().items()}
    preprocess, mean_image = stored.preprocessor.spec, stored.preprocessor.mean_image
    if preprocess.color == "bgr":
        first = "conv1.weight" if "conv1.weight" in weights else "features.0.weight"
        weights[first] = weights[first].flip(1)
        mean_image = None if mean_image is None else mean_image[:, :, ::-1].copy()
        preprocess = dataclasses.replace(preprocess, color="rgb", mean=preprocess.mean[::-1], std=preprocess.std[::-1])
    return Foreign(
        format=target,
        source=stored.name,
        weights=weights,
        spec=stored.spec,
        preprocess=preprocess,
        mean_image=mean_image,
        classes=stored.classes,
        licence=stored.licence,
    )


def _check_folder(stored: StoredModel, written: Path, destination: Path) -> Proof:
    again = _read_back(load_model, written, destination)
    same = {
        "weights": _same(again.model.state_dict(), stored.model.state_dict()),
        "variant": again.spec == stored.spec,
        "normalisation": again.preprocessor.same_as(stored.preprocessor),
        "class names": again.classes == stored.classes,
        "licence": again.licence == stored.licence,
        "dataset": (again.dataset, again.fingerprint) == (stored.dataset, stored.fingerprint),
    }
    _refuse_others(same, destination)
    return prove(again.model, stored.model, stored.preprocessor, source=str(destination))


def _check_foreign(stored: StoredModel, net: Foreign, written: Path, destination: Path, target: str) -> Proof:
    form = FORMATS[target]
    again = _read_back(lambda path: form.read(path, Hints(format=target, model=net.spec)), written, destination)
    expected = dict(net.weights)
    if target == "caffe":  # which has no place for BatchNorm's counters of batches, that decide nothing
        expected |= {name: value for name, value in again.weights.items() if name.endswith("num_batches_tracked")}
    assert net.preprocess is not None
    assert net.spec is not None
    same = {
        "weights": _same(again.weights, expected),
        "normalisation": _prepares_alike(net.preprocess, again.preprocess),
        "class names": again.classes == net.classes,
        "licence": again.licence == net.licence,
    }
    held = {name: equal for name, equal in same.items() if not any(lack.startswith(name) for lack in form.lacks)}
    _refuse_others(held, destination)
    _read_back(lambda path: form.check(path, net), written, destination)
    assert again.reference is not None
    model = stored.model if net.preprocess == stored.preprocessor.spec else None
    if model is None:
        model = build_with_weights(net.spec, net.weights, net.source)
    preprocessor = Preprocessor(net.preprocess, net.mean_image)
    return prove(model, again.reference, preprocessor, source=str(destination))


def _read_back(read: Callable[[Path], T], written: Path, destination: Path) -> T:
    """Return what `read` returns for the files at `written`, which errors call by the name that they were to have."""
    try:
        return read(written)
    except ModelError as error:
        reason = str(error).replace(str(written), str(destination))
        raise ModelError(f"{destination} does not read back as it was written; nothing was kept. {reason}") from error


def _refuse_others(same: Mapping[str, bool], destination: Path) -> None:
    others = [name for name, equal in same.items() if not equal]
    if others:
        raise ModelError(
            f"{destination} does not read back as it was written: {', '.join(others)} would differ; nothing was kept."
        )


def _prepares_alike(ours: Preprocess, theirs: Preprocess | None) -> bool:
    """Return whether two preprocessings are one, up to the decimals that a file has of a mean and a divisor."""
    exact = ("resize_px", "crop_px", "color", "mean_image", "interpolation")
    if theirs is None or any(getattr(ours, name) != getattr(theirs, name) for name in exact):
        return False
    values = zip((*ours.mean, *ours.std), (*theirs.mean, *theirs.std), strict=True)
    return all(math.isclose(one, other, rel_tol=0, abs_tol=1e-9) for one, other in values)


def _same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        value.dtype == theirs[name].dtype and torch.equal(value.cpu(), theirs[name].cpu())
        for name, value in ours.items()
    )


def _files(path: Path) -> Iterator[Path]:
    yield from (file for file in path.iterdir() if file.is_file()) if path.is_dir() else (path,)


def _sync(path: Path) -> None:
    """Force a written file to the disk, so that a power cut after the rename cannot leave it empty."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    with suppress(OSError):  # nothing is there, as a rule
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def as_json(conversion: Conversion) -> dict[str, Any]:
    """Return a conversion as plain JSON values."""
    from resnets.specs.architecture import variant

    stored, proof = conversion.stored, conversion.proof
    return {
        "source": conversion.source,
        "from": conversion.source_format,
        "destination": conversion.destination,
        "to": conversion.target_format,
        "name": stored.name,
        "variant": variant(stored.spec),
        "classes": len(stored.classes),
        "preprocess": dataclasses.asdict(stored.preprocessor.spec),
        **dataclasses.asdict(proof),
        "licence": stored.licence,
        "declared_with": list(conversion.declared_with),
        "assumed": list(conversion.assumed),
        "not_in_these_files": list(
            FORMATS[conversion.target_format].lacks if conversion.target_format in FORMATS else ()
        ),
    }
