"""Tensors of a file that nobody vouches for: safetensors, or a PyTorch checkpoint that may not execute code.

A checkpoint is unpickled with `weights_only=True`, its archive is checked against its checksums first, and every
tensor has to be dense, finite and no larger than the file that holds it.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from resnets.specs.errors import ModelError, near_misses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Names of the files that `load_tensors` reads."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and training programs put before every name."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COUNTER = "num_batches_tracked"
_DEPTH = 3
"""Levels of dictionaries that are searched for a state dict."""


def load_tensors(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """Return the state dict of a file under the names it has there, without the prefixes that all of them share.

    Tensors are on the CPU, contiguous, and float32 whatever float type they are stored in; BatchNorm's counters of
    batches are int64.

    Args:
        path: a .safetensors file, or a checkpoint of torch.save, in which the state dict may lie inside dictionaries.
        entry: which one, where there are several: its keys from the outside in, joined by dots.

    Raises:
        ModelError: the file is missing or damaged, would execute code, holds no state dict or several, or holds a
            tensor that is not a dense array of finite numbers.
    """
    if not path.is_file():
        raise ModelError(f"{path} is not a file; name a file of weights ({', '.join(SUFFIXES)}).")
    values = _load_safetensors(path) if path.suffix == ".safetensors" else _load_checkpoint(path)
    named = _without_prefixes(_choose(values, entry, path))
    limit = path.stat().st_size
    return {name: _checked(value, f"{path}: {name}", limit) for name, value in named.items()}


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a .safetensors file that others may read as far as the user's settings allow it.

    Raises:
        OSError: the file cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:  # how the library reports a failed write
        number = re.search(r"\(os error (\d+)\)", str(error))
        raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))) from error
    path.chmod(mode)  # the library makes files that nobody but their owner can read


def with_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with a counter of batches, 0, for every BatchNorm that lacks it."""
    complete = dict(weights)
    for name in weights:
        if name.endswith("running_var"):
            counter = name.removesuffix("running_var") + _COUNTER
            complete.setdefault(counter, torch.zeros((), dtype=torch.int64))
    return complete


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is damaged or not a safetensors file ({_first_line(error)}).") from error


def _load_checkpoint(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            archived = file.read(2) == b"PK"  # a pickle without an archive, as torch wrote before 1.6, has no checksums
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    source = _checked_archive(path) if archived else path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles, whose content is checked here anyway
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it is damaged, or it is a pickle with more than tensors and plain values, which "
            "could execute code. Ask its author for a .safetensors file or a plain state dict."
        ) from error
    except Exception as error:  # a damaged file makes torch's reader fail in many ways
        raise ModelError(f"{path} is damaged, or not a checkpoint of torch.save ({_first_line(error)}).") from error


def _checked_archive(path: Path) -> io.BytesIO:
    """Return the archive of a checkpoint, packed anew from entries that match their checksums.

    torch reads flipped bits without a word, and finds an entry elsewhere than another reader does where the archive's
    directory is damaged. So it is given a directory that is not.
    """
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as target:
            entries = source.infolist()
            # torch.save never compresses, so whatever is compressed is not its file, and could unpack to any size.
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            repeated = len({entry.filename for entry in entries}) < len(entries)
            if compressed or repeated or sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise zipfile.BadZipFile("its entries are compressed, repeated or larger than the file")
            for entry in entries:
                target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))
    except Exception as error:  # a damaged archive makes zipfile fail in many ways
        raise ModelError(f"{path} is damaged: {_first_line(error)}. Download or copy it again.") from error
    packed.seek(0)
    return packed


def _choose(values: Any, entry: str | None, path: Path) -> dict[str, Tensor]:
    found = dict(_state_dicts(values, path))
    if isinstance(values, dict) and "schema_version" in values and "spec" in values:
        raise ModelError(f"{path} is a checkpoint of a resnets run; give the run directory, which says what net it is.")
    if entry is not None:
        if entry not in found:
            choices = ", ".join(name or "the file itself" for name in found) or "none"
            raise ModelError(f"{path} has no state dict {entry!r}; it has {choices}.{near_misses(entry, found)}")
        return found[entry]
    if not found:
        held = ", ".join(repr(name) for name in list(values)[:4]) if isinstance(values, dict) else type(values).__name__
        raise ModelError(f"{path} holds no weights of a convolutional net (it holds {held or 'nothing'}).")
    if len(found) > 1:
        raise ModelError(f"{path} holds several nets, {', '.join(found)}; choose one with --entry NAME.")
    return next(iter(found.values()))


def _state_dicts(values: Any, path: Path, key: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every dictionary that has a convolution's weights, with its keys from the outside in."""
    if not isinstance(values, dict) or depth > _DEPTH:
        return
    if any(isinstance(value, torch.Tensor) and value.ndim == 4 for value in values.values()):
        for name, value in values.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                kind = type(value).__name__
                raise ModelError(f"{path}: {key or 'its state dict'} has {name!r}, a {kind}; it may have only tensors.")
        yield key, values
        return
    for inner, value in values.items():
        if isinstance(inner, str):
            yield from _state_dicts(value, path, f"{key}.{inner}" if key else inner, depth + 1)


def _without_prefixes(values: dict[str, Tensor]) -> dict[str, Tensor]:
    values = {name: value for name, value in values.items() if name != "n_averaged"}  # of torch's averaged models
    while values and (shared := [prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in values)]):
        values = {name.removeprefix(shared[0]): value for name, value in values.items()}
    return values


def _checked(value: Tensor, where: str, limit: int) -> Tensor:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ModelError(f"{where} is not a dense tensor of plain numbers.")
    if value.numel() == 0 or value.numel() * value.element_size() > limit:
        raise ModelError(f"{where} has shape {tuple(value.shape)}, which this file of {limit:,} bytes cannot hold.")
    if where.endswith(_COUNTER):
        if value.ndim or value.dtype.is_floating_point or value.dtype.is_complex or value.item() < 0:
            raise ModelError(f"{where} is {value.dtype} of shape {tuple(value.shape)}; it is a whole number.")
        return value.to(torch.int64, copy=True)
    if value.dtype not in _FLOATS:
        raise ModelError(f"{where} is of type {value.dtype}; weights are {', '.join(map(str, _FLOATS))}.")
    # A copy, because a safetensors file is mapped into memory and may change or shrink later.
    weights = value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not torch.isfinite(weights).all():
        raise ModelError(f"{where} has values that are not finite in float32 (NaN or infinite); the file is damaged.")
    if where.endswith("running_var") and (weights < 0).any():
        raise ModelError(f"{where} has negative values, which no variance has; the file is damaged.")
    return weights


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
