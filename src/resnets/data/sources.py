"""Where the encoded images of a split come from: by number, so that any order of them can be read from anywhere.

The names of a million files are kept as one string of bytes: as many Python objects would cost ten times the memory,
and each worker process its own copy, since counting references writes to them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, overload

import numpy as np

from resnets.specs.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import Int64

MAX_FILE_BYTES = 2**30
"""Largest file that is read as an image."""


class ImageSource(Protocol):
    """The encoded images of a split, numbered from 0."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def name(self, index: int) -> str:
        """Return the path of an image below the dataset's folder, with forward slashes."""
        ...

    def path(self, index: int) -> str:
        """Return what a message calls an image: its path with the dataset's folder."""
        ...

    def read(self, index: int, most: int | None = None) -> bytes:
        """Return the content of an image's file, or its first `most` bytes.

        Raises:
            ImageError: it cannot be read; the message is the reason alone.
        """
        ...

    def taken(self, indices: Int64[np.ndarray, " n"]) -> ImageSource:
        """Return the source of some of the images, in this order."""
        ...


class PackedNames(Sequence[str]):
    """Names in one string of bytes."""

    __slots__ = ("ends", "text")

    def __init__(self, text: bytes, ends: Int64[np.ndarray, " n"]) -> None:
        """Take `text`, the names one after the other in the file system's encoding, and where each of them ends."""
        self.text = text
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[str]) -> PackedNames:
        """Pack `names`."""
        encoded = [os.fsencode(name) for name in names]
        return cls(b"".join(encoded), np.cumsum([len(name) for name in encoded], dtype=np.int64))

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> PackedNames: ...
    def __getitem__(self, index: int | slice) -> str | PackedNames:
        """Return a name, or some of them.

        Raises:
            IndexError: there is no such name.
        """
        if isinstance(index, slice):
            return self.taken(np.arange(len(self))[index])
        number = range(len(self.ends))[index]
        start = int(self.ends[number - 1]) if number else 0
        return os.fsdecode(self.text[start : int(self.ends[number])])

    def taken(self, indices: Int64[np.ndarray, " n"]) -> PackedNames:
        """Return the names of these numbers, in this order."""
        return PackedNames.of(self[index] for index in indices.tolist())


class FolderFiles:
    """Files below a folder."""

    def __init__(self, root: str | Path, names: PackedNames) -> None:
        """Keep the folder and the paths below it."""
        self._root = os.fspath(root)
        self.names = names

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> FolderFiles:
        """Return the source of the files at `paths`, wherever they are."""
        return cls("", PackedNames.of(map(str, paths)))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def name(self, index: int) -> str:
        """Return the path of an image below the folder."""
        return self.names[index]

    def path(self, index: int) -> str:
        """Return the path of an image with the folder's."""
        return str(Path(self._root, self.names[index]))

    def read(self, index: int, most: int | None = None) -> bytes:
        """Return the content of a file, or its first `most` bytes.

        Raises:
            ImageError: it cannot be read.
        """
        return read_file(os.path.join(self._root, self.names[index]), most)  # noqa: PTH118 (much slower with Path)

    def taken(self, indices: Int64[np.ndarray, " n"]) -> FolderFiles:
        """Return the source of some of the images, in this order."""
        return FolderFiles(self._root, self.names.taken(indices))


def read_file(path: str | Path, most: int | None = None, *, limit_bytes: int | None = None) -> bytes:
    """Return the content of a regular file, or its first `most` bytes.

    Raises:
        ImageError: there is none, it is larger than `limit_bytes` (None: `MAX_FILE_BYTES`), or it cannot be read; the message is the reason.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except PermissionError:
        raise ImageError("permission to read the file is denied") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"the file cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
        limit = MAX_FILE_BYTES if limit_bytes is None else limit_bytes
        if most is None and status.st_size > limit:
            raise ImageError(f"its file has {status.st_size:,} bytes, above the limit of {limit:,}")
        return _read(file, status.st_size if most is None else min(most, status.st_size))
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror or error})") from error
    finally:
        os.close(file)


def _read(file: int, size: int) -> bytes:
    content = os.read(file, size)
    if len(content) == size:
        return content
    parts = [content]
    while size > sum(map(len, parts)) and (part := os.read(file, size - sum(map(len, parts)))):
        parts.append(part)
    return b"".join(parts)  # shorter where the file has shrunk meanwhile; the decoder says so
