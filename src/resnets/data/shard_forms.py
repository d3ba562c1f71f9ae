"""What becomes of an image that is put into shards: its bytes as they are, a smaller JPEG, or its pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from resnets.data.decode import is_image_name, read_image
from resnets.data.jpeg import JPEG_MAGIC
from resnets.data.raw_pixels import RAW_MAGIC
from resnets.data.read_ahead import read_ahead
from resnets.specs.errors import DataError, ImageError
from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Int64

    from resnets.data.shard_index import Form
    from resnets.data.sources import ImageSource

# What a worker sends at once. Several chunks of each worker are in memory, twice while they are sent: of small images
# many make it fast, of photographs as they are few are large enough.
_SMALL_IMAGES_A_CHUNK, _IMAGES_A_CHUNK = 32, 4
_SMALL_PX = 512
_LONGEST_JPEG_PX = 65_500
_JPEG_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif")


class Outcome(NamedTuple):
    """What is stored of an image, or why nothing is."""

    content: bytes = b""
    extension: str = ""
    reason: str = ""
    unreadable: bool = False
    """Whether the system could not read the file: a fault of the disk or network, perhaps not of this image."""


class _Encoded(TorchDataset[list[Outcome]]):
    """Images in their new form, some at a time."""

    def __init__(self, images: ImageSource, names: Sequence[str], numbers: Int64[np.ndarray, " n"], form: Form) -> None:
        self._images, self._names, self._numbers, self._form = images, names, numbers, form
        self._at_once = _SMALL_IMAGES_A_CHUNK if 0 < form.resize_px <= _SMALL_PX else _IMAGES_A_CHUNK

    def __len__(self) -> int:
        """Return the number of chunks."""
        return -(-len(self._numbers) // self._at_once)

    def __getitem__(self, chunk: int) -> list[Outcome]:
        first = chunk * self._at_once
        return [self._outcome(number) for number in self._numbers[first : first + self._at_once].tolist()]

    def _outcome(self, number: int) -> Outcome:
        try:
            content = self._images.read(number)
        except ImageError as error:
            # The context, where a source has said why without the cause.
            return Outcome(reason=str(error), unreadable=isinstance(error.__cause__ or error.__context__, OSError))
        try:
            return _stored(content, self._names[number], self._form)
        except ImageError as error:
            return Outcome(reason=str(error))

    def paths(self, chunk: int) -> list[str]:
        """Return the images of a chunk, for messages."""
        first = chunk * self._at_once
        return [self._images.path(number) for number in self._numbers[first : first + self._at_once].tolist()]


def outcomes(
    images: ImageSource, names: Sequence[str], numbers: Int64[np.ndarray, " n"], form: Form, *, workers: int
) -> Iterator[tuple[int, Outcome]]:
    """Yield each of `numbers` with what is stored of that image, in this order.

    Args:
        images: all images.
        names: their paths; the extension of a file that is copied stays.
        numbers: which, and in which order.
        form: what becomes of them.
        workers: processes that read and encode; 0 works in this one.

    Raises:
        DataError: the name of an image that is copied is none of an image.
        ResnetsError: a worker process died.
    """
    chunks = _Encoded(images, names, numbers, form)
    encoded = read_ahead(chunks, range(len(chunks)), workers=min(workers, len(chunks)), device=torch.device("cpu"))
    try:
        each = (outcome for chunk in encoded for outcome in chunk)
        yield from zip(numbers.tolist(), each, strict=True)
    finally:
        encoded.close()


def shrunk(image: Image.Image, shorter_px: int) -> Image.Image:
    """Return an image with its shorter side resized to `shorter_px`; itself, where that is no longer.

    Unlike `Preprocessor.resize` it keeps the whole of a very long image, which is smaller than it was in any case.
    """
    width, height = image.size
    shorter = min(width, height)
    if shorter <= shorter_px:
        return image
    size = (int(shorter_px * width / shorter), int(shorter_px * height / shorter))
    return image.resize(size, Image.Resampling.BILINEAR)


def jpeg_of(image: Image.Image, quality: int) -> bytes:
    """Return an image as JPEG.

    Raises:
        ImageError: a side is too long for it.
    """
    if max(image.size) > _LONGEST_JPEG_PX:
        raise ImageError(
            f"it cannot be stored as JPEG: {image.width} x {image.height} pixels, of which a side may have "
            f"{_LONGEST_JPEG_PX:,} at most"
        )
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def _stored(content: bytes, name: str, form: Form) -> Outcome:
    """Return an image in its new form; a JPEG that is small enough already stays as it is.

    Raises:
        ImageError: it cannot be decoded, which is not tried where the file is copied.
        DataError: it is copied, and its name is none of an image.
    """
    if form.kind == "as-is":
        return Outcome(content, _extension(content, name))
    image = read_image(content)
    smaller = shrunk(image, form.resize_px) if form.resize_px else image
    if form.kind == "raw":
        file = io.BytesIO()
        np.lib.format.write_array(file, np.asarray(smaller), version=(1, 0), allow_pickle=False)
        return Outcome(file.getvalue(), ".npy")
    if smaller is image and content.startswith(JPEG_MAGIC):
        return Outcome(content, _extension(content, name))
    return Outcome(jpeg_of(smaller, form.quality), ".jpg")


def _extension(content: bytes, name: str) -> str:
    """Return what a file that is copied is called in a shard: as its name says, unless its first bytes know better.

    Images of shards have the names of the files that those were made from, whatever they were stored as.
    """
    named = name[name.rfind(".") :].lower()
    if content.startswith(RAW_MAGIC):
        return ".npy"
    if content.startswith(JPEG_MAGIC):
        return named if named in _JPEG_EXTENSIONS else ".jpg"
    if not is_image_name(named):
        raise DataError(f"The name of {in_line(name)} has no extension of an image; no shard can have a copy of it.")
    return named
