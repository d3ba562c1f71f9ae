"""What becomes of an image that is put into shards: its bytes as they are, a smaller JPEG, or its pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from resnets.data.decode import read_image
from resnets.data.preprocess import resized_size
from resnets.data.read_ahead import read_ahead
from resnets.specs.errors import ImageError

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


class Outcome(NamedTuple):
    """What is stored of an image, or why nothing is."""

    content: bytes = b""
    extension: str = ""
    reason: str = ""


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
        extension = Path(self._names[number]).suffix.lower()
        try:
            content = self._images.read(number)
            if self._form.kind == "as-is":
                return Outcome(content, extension)
            return _encoded(content, extension, self._form)
        except ImageError as error:
            # A file that is there and cannot be decoded is copied; one that cannot be read leaves nothing to copy.
            return Outcome(reason=str(error))


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
        ResnetsError: a worker process died.
    """
    chunks = _Encoded(images, names, numbers, form)
    encoded = read_ahead(chunks, range(len(chunks)), workers=min(workers, len(chunks)), device=torch.device("cpu"))
    try:
        each = (outcome for chunk in encoded for outcome in chunk)
        yield from zip(numbers.tolist(), each, strict=True)
    finally:
        encoded.close()


def _encoded(content: bytes, extension: str, form: Form) -> Outcome:
    """Return an image in its new form; a JPEG that is small enough already stays as it is.

    Raises:
        ImageError: it cannot be read.
    """
    image = read_image(content)
    size = image.size
    if form.resize_px and min(size) > form.resize_px:
        image = image.resize(resized_size(*size, form.resize_px), Image.Resampling.BILINEAR)
    elif form.kind == "jpeg" and extension in (".jpg", ".jpeg"):
        return Outcome(content, extension)
    file = io.BytesIO()
    if form.kind == "raw":
        np.lib.format.write_array(file, np.asarray(image), version=(1, 0), allow_pickle=False)
        return Outcome(file.getvalue(), ".npy")
    if max(image.size) > _LONGEST_JPEG_PX:
        raise ImageError(
            f"it cannot be stored as JPEG: {image.width} x {image.height} pixels, of which a side may have "
            f"{_LONGEST_JPEG_PX:,} at most"
        )
    image.save(file, "JPEG", quality=form.quality, subsampling="4:2:0")
    return Outcome(file.getvalue(), ".jpg")
