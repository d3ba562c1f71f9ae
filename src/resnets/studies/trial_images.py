"""The images of a trial: read as cold as a program without rights can make them, kept in memory, or made smaller.

Nothing here writes a file: smaller images are made in memory, and what reading them would take is measured by reading
as many bytes of the files that are there.
"""

from __future__ import annotations

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnets.data.decode import read_image, read_size
from resnets.data.shard_forms import jpeg_of, shrunk
from resnets.data.shards import ShardFiles
from resnets.specs.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jaxtyping import Int64

    from resnets.data.sources import ImageSource

MOST_BYTES = 192 * 2**20
"""Of encoded images that a trial keeps in memory."""
JPEG_QUALITY = 95
"""Of the smaller images, as `resnets prepare` writes them."""
_MOST_SMALLER = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What reading files took."""

    indices: tuple[int, ...]
    """The images that were read, in the order in which they were begun."""
    contents: tuple[bytes, ...]
    """What is in their files."""
    unreadable: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images a second, over all readers."""
        return len(self.indices) / max(self.seconds, 1e-9)

    @property
    def bytes_per_second(self) -> float:
        """Bytes a second, over all readers."""
        return sum(map(len, self.contents)) / max(self.seconds, 1e-9)

    @property
    def mean_bytes(self) -> float:
        """Bytes of an image."""
        return sum(map(len, self.contents)) / max(1, len(self.contents))


def read_images(
    source: ImageSource, indices: Sequence[int], *, readers: int, seconds: float, at_least: int = 1
) -> Reading:
    """Read images one after the other with several threads, until the time is up or there are no more.

    Args:
        source: where they are.
        indices: which ones, in which order.
        readers: threads; they wait for the disk side by side, as worker processes do.
        seconds: after which no further image is begun.
        at_least: images that are read whatever the time.
    """
    found: list[tuple[int, int, bytes]] = []
    lock = threading.Lock()
    upcoming = iter(enumerate(indices))
    unreadable = kept = begun = 0
    started = time.perf_counter()

    def work() -> None:
        nonlocal unreadable, kept, begun
        while True:
            with lock:
                if kept > MOST_BYTES or (begun >= at_least and time.perf_counter() - started > seconds):
                    return
                entry = next(upcoming, None)
                begun += 1
            if entry is None:
                return
            try:
                content = source.read(entry[1])
            except ImageError:
                with lock:
                    unreadable += 1
                continue
            with lock:
                found.append((*entry, content))
                kept += len(content)

    with ThreadPoolExecutor(readers) as pool:
        for done in [pool.submit(work) for _ in range(readers)]:
            done.result()
    elapsed = time.perf_counter() - started
    found.sort(key=lambda entry: entry[0])
    return Reading(
        indices=tuple(index for _, index, _ in found),
        contents=tuple(content for *_, content in found),
        unreadable=unreadable,
        seconds=elapsed,
    )


def drop_from_cache(source: ImageSource, indices: Sequence[int]) -> int:
    """Ask the system to forget the files of these images, of shards the whole shard; return how many files there are.

    What another program has open, or has written a moment ago, stays.

    Args:
        source: where the images are.
        indices: which ones.
    """
    if not hasattr(os, "posix_fadvise"):
        return 0
    return sum(map(_drop, _files(source, indices)))


def _files(source: ImageSource, indices: Sequence[int]) -> Iterable[str]:
    if isinstance(source, SmallerImages):
        return _files(source.images, indices)
    if isinstance(source, ShardFiles):
        return source.shard_paths(np.array(indices, np.int64))
    return map(source.path, indices)


def _drop(path: str) -> bool:
    with suppress(OSError, ValueError):
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
        return True
    return False


class ImagesInMemory:
    """A source that repeats a few images, as many times as it has numbers; reading one takes no time."""

    def __init__(self, contents: Sequence[bytes], count: int) -> None:
        """Keep the content of some files, and say that there are `count`."""
        self._contents = contents
        self._count = count

    def __len__(self) -> int:
        """Return the number of images."""
        return self._count

    def name(self, index: int) -> str:
        """Return what an image is called."""
        return f"image {index}"

    def path(self, index: int) -> str:
        """Return what an image is called."""
        return self.name(index)

    def read(self, index: int, most: int | None = None) -> bytes:
        """Return the content of an image, or its first `most` bytes."""
        return self._contents[index % len(self._contents)][:most]

    def taken(self, indices: Int64[np.ndarray, " n"]) -> ImagesInMemory:
        """Return a source of as many images as there are `indices`."""
        return ImagesInMemory([self.read(int(index)) for index in indices], len(indices))


class SmallerImages:
    """A source as if its images were smaller: of each it reads as many bytes as a smaller one has, and gives that."""

    def __init__(self, images: ImageSource, smaller: Sequence[bytes]) -> None:
        """Take the files that are there, and some smaller images, which are repeated."""
        self.images = images
        self._smaller = smaller

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def name(self, index: int) -> str:
        """Return the path of an image below the dataset's folder."""
        return self.images.name(index)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return self.images.path(index)

    def read(self, index: int, most: int | None = None) -> bytes:
        """Return the content of a smaller image, after reading as many bytes of the file.

        Raises:
            ImageError: the file cannot be read.
        """
        content = self._smaller[index % len(self._smaller)]
        left, number = len(content), index
        while left > 0:  # pixels may be more bytes than the file that they came from
            part = self.images.read(number % len(self.images), left)
            left, number = left - max(1, len(part)), number + 1
        return content[:most]

    def taken(self, indices: Int64[np.ndarray, " n"]) -> SmallerImages:
        """Return the source of some of the images, in this order."""
        return SmallerImages(self.images.taken(indices), self._smaller)


@dataclass(frozen=True, kw_only=True, slots=True)
class Smaller:
    """Images made smaller, and what making them took."""

    encoded: tuple[bytes, ...]
    """As JPEG."""
    raw: tuple[bytes, ...]
    """As arrays of bytes."""
    images_per_second: float


def make_smaller(contents: Sequence[bytes], shorter_px: int, *, threads: int, seconds: float) -> Smaller:
    """Return images with their shorter side resized to `shorter_px`; smaller ones keep their size.

    Args:
        contents: encoded images.
        shorter_px: pixels of the shorter side.
        threads: how many at once.
        seconds: after which no further image is begun.
    """
    started = time.perf_counter()

    def make(content: bytes) -> tuple[bytes, bytes] | None:
        if time.perf_counter() - started > seconds:
            return None
        try:
            return _smaller(content, shorter_px)
        except ImageError:
            return None

    with ThreadPoolExecutor(threads) as pool:
        made = [entry for entry in pool.map(make, contents[:_MOST_SMALLER]) if entry is not None]
    elapsed = time.perf_counter() - started
    return Smaller(
        encoded=tuple(encoded for encoded, _ in made),
        raw=tuple(raw for _, raw in made),
        images_per_second=len(made) / elapsed,
    )


def is_raw(contents: Sequence[bytes]) -> bool:
    """Return whether images are arrays of pixels already."""
    return bool(contents) and contents[0].startswith(np.lib.format.MAGIC_PREFIX)


def are_larger(contents: Sequence[bytes], shorter_px: int) -> bool:
    """Return whether at least half of the images have a shorter side well above `shorter_px`."""
    sizes = [size for size in map(read_size, contents[:64]) if size is not None]
    return 2 * sum(min(size) > 1.1 * shorter_px for size in sizes) >= max(1, len(sizes))


def _smaller(content: bytes, shorter_px: int) -> tuple[bytes, bytes]:
    """Return an image as `resnets prepare` makes it, as JPEG and as an array, so that bytes and time are those."""
    image = read_image(content)
    smaller = shrunk(image, shorter_px)
    encoded = content if smaller is image else jpeg_of(smaller, JPEG_QUALITY)
    raw = io.BytesIO()
    np.lib.format.write_array(raw, np.asarray(smaller), version=(1, 0), allow_pickle=False)
    return encoded, raw.getvalue()
