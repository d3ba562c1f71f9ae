"""Image files as batches of views, for protocols that see more than the centre: read once for all views and sizes.

Images of equal shape share a batch. Their sizes are read from the headers first; an image that turns out to have
another size is scored in a batch of its own, so that a wrong header costs time, not a wrong score.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from resnets.data.decode import read_image, read_size
from resnets.data.preprocess import Preprocessor
from resnets.data.read_ahead import read_ahead
from resnets.data.splits import FileSplit, Skipped
from resnets.data.views import ManyViews, batches_of_equal_shape, shorter_sides, views
from resnets.specs.errors import ImageError
from resnets.specs.protocol import Dense

IMAGES_A_BATCH = 32
"""Most images that are read at once."""

PIXELS_A_BATCH = 2**23
"""Most pixels that are read at once, over all sizes: 25 MB of RGB."""

_HEADER_BYTES = 2**16


class Views(NamedTuple):
    """Images of equal shape: for each size a tensor of their views, mirrored ones left out."""

    sizes: tuple[UInt8[Tensor, "n views height width channels"], ...]
    labels: Int64[Tensor, " n"]
    indices: Int64[Tensor, " n"]


class DecodedViews(NamedTuple):
    """What a worker sends: the images that could be read, by shape, and those that could not."""

    groups: tuple[Views, ...]
    skipped: tuple[Skipped, ...]


class ViewFiles(TorchDataset[DecodedViews]):
    """Images of a split in batches, each as the views that a protocol sees."""

    def __init__(
        self,
        split: FileSplit,
        preprocessor: Preprocessor,
        protocol: ManyViews,
        batches: list[Int64[np.ndarray, " _"]],
    ) -> None:
        """Keep what the workers need; `batches` holds the indices of the images of each batch."""
        self._split = split
        self._preprocessor = preprocessor
        self._protocol = protocol
        self._batches = batches

    def __getitem__(self, number: int) -> DecodedViews:
        """Return the views of the images of batch `number` that can be read."""
        groups: dict[tuple[tuple[int, ...], ...], list[tuple[int, list[np.ndarray]]]] = {}
        skipped: list[Skipped] = []
        for index in self._batches[number].tolist():
            try:
                image = read_image(self._split.images.read(index), color=self._preprocessor.decode_color)
            except ImageError as error:
                skipped.append(Skipped(self._split.images.path(index), str(error)))
                continue
            seen = views(image, self._preprocessor, self._protocol)
            groups.setdefault(tuple(one.shape for one in seen), []).append((index, seen))
        return DecodedViews(tuple(map(self._stacked, groups.values())), tuple(skipped))

    def paths(self, number: int) -> list[str]:
        """Return the images of batch `number`, for messages."""
        return self._split.paths(self._batches[number])

    def _stacked(self, images: list[tuple[int, list[np.ndarray]]]) -> Views:
        indices = np.array([index for index, _ in images], dtype=np.int64)
        sizes = zip(*(seen for _, seen in images), strict=True)
        return Views(
            tuple(torch.from_numpy(np.stack(one)) for one in sizes),
            torch.from_numpy(self._split.labels[indices]),
            torch.from_numpy(indices),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewBatches:
    """The images of one process, planned into batches."""

    files: ViewFiles
    count: int
    """Number of batches."""

    def read(self, *, workers: int, device: torch.device) -> Iterator[DecodedViews]:
        """Yield the batches; `device` is where they will be used.

        For an accelerator, `workers` processes read ahead (0: none). The CPU that computes has no core to spare for
        them, and its threads wait for the slowest: there, `workers` threads read while the net waits, and where none
        are given as many as it computes with.

        Raises:
            ResnetsError: A worker process died.
        """
        if device.type != "cpu":
            return read_ahead(self.files, range(self.count), workers=min(workers, self.count), device=device)
        return self._read_in_turns(workers or torch.get_num_threads())

    def _read_in_turns(self, threads: int) -> Iterator[DecodedViews]:
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, self.count, threads):
                yield from list(pool.map(self.files.__getitem__, range(start, min(start + threads, self.count))))


def view_batches(
    split: FileSplit, preprocessor: Preprocessor, protocol: ManyViews, *, rank: int = 0, world_size: int = 1
) -> ViewBatches:
    """Return the images rank::world_size of `split` in batches of views."""
    indices = np.arange(rank, len(split), world_size, dtype=np.int64)
    if isinstance(protocol, Dense):
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            sizes = list(pool.map(lambda index: _size(split, index), indices.tolist()))
        sides = shorter_sides(protocol, preprocessor.spec.crop_px)
        places = batches_of_equal_shape(sizes, sides, max_pixels=PIXELS_A_BATCH, max_images=IMAGES_A_BATCH)
        batches = [indices[some] for some in places]
    else:
        batches = [indices[start : start + IMAGES_A_BATCH] for start in range(0, len(indices), IMAGES_A_BATCH)]
    return ViewBatches(files=ViewFiles(split, preprocessor, protocol, batches), count=len(batches))


def _size(split: FileSplit, index: int) -> tuple[int, int] | None:
    """Return width and height as a file's header has them; most headers are short, and few follow the pixels."""
    try:
        return read_size(split.images.read(index, _HEADER_BYTES)) or read_size(split.images.read(index))
    except ImageError:
        return None
