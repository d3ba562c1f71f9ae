"""Named tensors in a safetensors file, which cannot execute code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from resnets.specs.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors on the CPU.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # how the library reports a failed write
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, on the CPU.

    Raises:
        ModelError: it is missing, damaged, or something else.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} lacks {path.name}; the folder is incomplete.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged or not a safetensors file ({error}).") from error
