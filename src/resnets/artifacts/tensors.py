"""Named tensors of our own safetensors files, which cannot execute code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file

from resnets.specs.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


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
