"""A dictionary of byte arrays and lists from an untrusted pickle, as the python form of CIFAR is.

The unpickler builds arrays of bytes, bytes, numbers, lists and dictionaries, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from resnets.specs.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import UInt8


def read_dictionary(path: Path, content: bytes) -> dict[Any, Any]:
    """Return the pickled dictionary in `content`, read from `path`; Python 2's strings are bytes.

    Raises:
        DataError: it is damaged, is no dictionary, or asks for anything that could run code.
    """
    try:
        value = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        if isinstance(value, dict):
            return {key: entry.array() if isinstance(entry, _PickledArray) else entry for key, entry in value.items()}
    except DataError as error:
        raise DataError(f"{path} {error}") from error
    except Exception as error:  # a pickle is a program: a damaged one can fail with any exception
        raise DataError(
            f"{path} is damaged ({str(error) or type(error).__name__}); unpack the archive again."
        ) from error
    raise DataError(f"{path} holds no dictionary; it is not an official CIFAR file.")


class _PickledType:
    """Stands for `numpy.dtype` in a pickle; only bytes are admitted."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise DataError(f"holds an array of type {code!r}; images are uint8.")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and the like, which mean nothing to bytes."""


class _PickledArray:
    """Stands for `numpy.ndarray` in a pickle, so that no state from the file reaches NumPy's own unpickling."""

    def __init__(self, *_: object) -> None:
        self._state: Any = None

    def __setstate__(self, state: object) -> None:
        """Keep (version, shape, type, column-major, bytes)."""
        self._state = state

    def array(self) -> UInt8[np.ndarray, "*shape"]:
        """Return the array; raises ValueError or TypeError where the state is not that of one."""
        _, shape, _, column_major, content = self._state
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if column_major else "C")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise DataError(f"holds text encoded as {encoding!r}.")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, bytes and arrays of bytes; refuses every other name."""

    _ADMITTED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledType,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in for a name that the official files contain."""
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise DataError(
                f"asks for {module}.{name}, which could run code; an official CIFAR file does not. It was not loaded."
            ) from None
