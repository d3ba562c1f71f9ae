"""Checkpoints that a kill, a full disk or a hostile file cannot turn into a loss.

A checkpoint is written under a temporary name, flushed to the disk and renamed; `latest` names it only
afterwards. It is read with `weights_only=True`, so a pickle that would execute code is refused.
"""

from __future__ import annotations

import errno
import os
import pickle
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from resnets.engine.state import SCHEMA_VERSION
from resnets.specs.errors import ModelError, TrainingError

NAME = "step-{step:08d}.pt"


def save_checkpoint(folder: Path, step: int, values: dict[str, Any], keep: int = 0) -> Path:
    """Write `values` as the checkpoint of `step` and make it the latest.

    Args:
        folder: the run's `checkpoints` folder; made if missing.
        step: optimiser steps done.
        values: tensors and plain values.
        keep: newest checkpoints to keep; 0 keeps all.

    Raises:
        TrainingError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    path = folder / NAME.format(step=step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_durably(path, lambda file: torch.save(values, file))
        _write_durably(folder / "latest", lambda file: file.write(f"{path.name}\n".encode()))
    except (OSError, RuntimeError) as error:
        # torch reports a failed write inside its archive writer as a RuntimeError.
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        full = isinstance(error, RuntimeError) or error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else getattr(error, "strerror", str(error))
        before = latest_checkpoint(folder)
        kept = f"The run can go on from {before.name}" if before else "No earlier checkpoint exists"
        raise TrainingError(
            f"The checkpoint of step {step} could not be written to {folder}: {reason}. {kept}; "
            "make room and run the same command again."
        ) from error
    if keep:
        for old in checkpoints(folder)[:-keep]:
            with suppress(OSError):  # one checkpoint too many is no reason to stop
                old.unlink()
    return path


def _write_durably(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if os.name == "posix":  # elsewhere a directory cannot be opened, and need not be
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint that `latest` names, else the one of the highest step, else None."""
    try:
        named = folder / (folder / "latest").read_text().strip()
    except (OSError, UnicodeDecodeError):
        named = None
    if named is not None and named.parent == folder and named.name.startswith("step-") and named.is_file():
        return named
    found = checkpoints(folder) if folder.is_dir() else []
    return found[-1] if found else None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote, with all tensors on the CPU.

    Raises:
        ModelError: the file is damaged, holds something else, or would execute code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are not ours, which are refused anyway
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it is damaged, or it is a pickle with more than tensors and plain values, which "
            f"could execute code. {_advice(path)}"
        ) from error
    except Exception as error:  # a damaged file makes torch's reader fail in many ways
        raise ModelError(f"{path} is damaged or incomplete and cannot be read. {_advice(path)}") from error
    if not isinstance(values, dict) or "schema_version" not in values:
        raise ModelError(f"{path} is not a checkpoint of a resnets run. {_advice(path)}")
    if values["schema_version"] != SCHEMA_VERSION:
        raise ModelError(
            f"{path} was written in form {values['schema_version']}, and this version of resnets reads form "
            f"{SCHEMA_VERSION}; go on with the version that wrote it (env.json names it), or start a new run."
        )
    return values


def _advice(path: Path) -> str:
    others = [other for other in checkpoints(path.parent) if other.name < path.name]
    if not others:
        return "There is no earlier checkpoint beside it; start a new run with another --run."
    return f"To go on from {others[-1].name}, delete {path.name} and run the same command again."
