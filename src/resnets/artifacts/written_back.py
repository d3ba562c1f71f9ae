"""A net written in the form of another program, or as a model folder: read back and proven equal before it is there."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import torch

from resnets.artifacts.formats import FORMATS, OURS
from resnets.artifacts.model_folder import StoredModel, build_with_weights, load_model, save_model
from resnets.artifacts.proof import Proof, prove
from resnets.data.preprocess import Preprocessor
from resnets.models.interop.foreign import Foreign, Hints
from resnets.specs.errors import ModelError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from resnets.specs.preprocess import Preprocess

T = TypeVar("T")


def write_proven(stored: StoredModel, destination: Path, target: str) -> Proof:
    """Write under another name in the same folder, read that back, prove it equal, and only then rename it.

    Raises:
        ModelError: the net cannot be expressed in the target's form, or does not read back equal; nothing is left.
        UserError: the destination cannot be written.
    """
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
        raise unwritable(destination, error) from error
    return proof


def unwritable(destination: Path, error: OSError) -> UserError:
    """Return what to say where a destination cannot be written."""
    return UserError(f"{destination} cannot be written: {error.strerror or error}.")


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Create the folders above `path` that are missing; if the body fails, those are removed again while empty."""
    created: list[Path] = []
    try:
        for folder in reversed(path.parents):
            if folder.is_dir():
                continue
            try:
                folder.mkdir()
            except FileExistsError:
                if not folder.is_dir():  # otherwise another process has made it in this moment
                    raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file") from None
            else:
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
