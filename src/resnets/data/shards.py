"""Images in shards: tar files that hold thousands of images each, read by number wherever they lie.

Since the index says where each image is, any order of images can be read, so a run on shards is the run on the folder
that they were made from, step for step, and is resumed and evaluated as exactly.
"""

from __future__ import annotations

import errno
import itertools
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnets.data.listing import Files, Listing, normal
from resnets.data.shard_index import DESCRIPTION, ShardIndex, check_shards, read_index
from resnets.specs.errors import DataError, ImageError, counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Int64

    from resnets.data.shard_index import Places
    from resnets.data.sources import PackedNames


# Where little is kept of what was fetched, one process can remove what another has just fetched.
_MOST_FETCHES = 20


def holds_shards(root: Path) -> bool:
    """Return whether a folder is a set of shards."""
    return (root / DESCRIPTION).is_file()


class ShardFiles:
    """Images of a set of shards; see `ImageSource`."""

    def __init__(
        self,
        name: str,
        shards: tuple[str, ...],
        names: PackedNames,
        places: Places,
        fetch: Callable[[int], None] | None = None,
    ) -> None:
        """Keep what is needed to read.

        Args:
            name: what messages call the set.
            shards: paths of the tar files.
            names: paths of the images below the folder that the set was made from.
            places: where the images are.
            fetch: called with the number of a shard whose file is not there; makes it appear, or raises DataError.
        """
        self._name = name
        self._shards = shards
        self._names = names
        self._places = places
        self._fetch = fetch
        # Bytes that were right once in this process are not checked in every epoch: of raw pixels, the check would
        # cost as much as the crop.
        self._checked = np.zeros(len(places), np.bool_)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._places)

    @property
    def shard(self) -> Int64[np.ndarray, " n"]:
        """Number of the shard that each image is in."""
        return self._places.shard

    def shard_paths(self, indices: Int64[np.ndarray, " n"]) -> list[str]:
        """Return the paths of the shards that some of the images are in, each once."""
        return [self._shards[number] for number in np.unique(self._places.shard[indices]).tolist()]

    def name(self, index: int) -> str:
        """Return the path of an image below the folder that the set was made from."""
        return self._names[index]

    def path(self, index: int) -> str:
        """Return the path of an image with the set's."""
        return f"{self._name}/{self._names[index]}"

    def read(self, index: int, most: int | None = None) -> bytes:
        """Return the content of an image, or its first `most` bytes.

        Raises:
            ImageError: the shard cannot be read, or other bytes are there than were written.
            DataError: the shard cannot be fetched: no fault of the image, without which training would be another.
        """
        places = self._places
        shard, size = int(places.shard[index]), int(places.size[index])
        content = self._bytes(shard, int(places.offset[index]), size if most is None else min(most, size))
        if most is None and not self._checked[index]:
            if zlib.crc32(content) != int(places.crc32[index]):
                raise ImageError(f"its bytes in {self._shards[shard]} are not those that were written there")
            self._checked[index] = True
        return content

    def taken(self, indices: Int64[np.ndarray, " n"]) -> ShardFiles:
        """Return the source of some of the images, in this order."""
        return ShardFiles(
            self._name, self._shards, self._names.taken(indices), self._places.taken(indices), self._fetch
        )

    def of_those_here(self) -> ShardFiles:
        """Return a source of as many images that fetches no shard: images of shards that are there, over and over.

        Where no shard is there, its images cannot be read.
        """
        is_there = np.array([Path(path).is_file() for path in self._shards], np.bool_)
        here = np.flatnonzero(is_there[self._places.shard])
        if not len(here):
            return ShardFiles(self._name, self._shards, self._names, self._places)
        # Those that are there keep their number.
        rows = np.resize(here, len(self))
        rows[here] = here
        return ShardFiles(self._name, self._shards, self._names.taken(rows), self._places.taken(rows))

    def _bytes(self, shard: int, offset: int, size: int) -> bytes:
        path = self._shards[shard]
        try:
            file = self._open(shard)
            try:
                content = os.pread(file, size, offset)
                while len(content) < size and (part := os.pread(file, size - len(content), offset + len(content))):
                    content += part
            finally:
                os.close(file)
        except OSError as error:
            raise ImageError(f"the shard {path} cannot be read ({error.strerror or error})") from error
        if len(content) < size:
            raise ImageError(f"the shard {path} is cut off")
        return content

    def _open(self, shard: int) -> int:
        path = self._shards[shard]
        for _ in range(_MOST_FETCHES):
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            if self._fetch is None:
                break
            self._fetch(shard)
        if self._fetch is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise DataError(
            f"{path} was fetched {_MOST_FETCHES} times, and removed by others each time before it was read."
        )


def list_shards(root: Path, *, to_train: bool = True) -> Listing:
    """Return the images of the set in `root`, as `list_folder` returns those of the folder that it was made from.

    Raises:
        DataError: the index is damaged, or a shard is missing or has another size; the message names it.
    """
    from resnets.data.shard_mirror import may_fetch, origin

    index = read_index(root)
    mirrored = origin(root, index)
    if mirrored is None:
        check_shards(root, index)
    name = str(root) if mirrored is None else mirrored.url
    shards = tuple(str(root / shard.file) for shard in index.shards)
    names = list(index.names)
    fetch = None if mirrored is None else mirrored.fetch

    def source(paths: list[str]) -> ShardFiles:
        rows = np.fromiter(map(row_of.__getitem__, paths), np.int64, len(paths))
        files = ShardFiles(name, shards, index.names.taken(rows), index.places.taken(rows), fetch)
        return files if fetch is None or may_fetch() else files.of_those_here()

    row_of = {path: row for row, path in enumerate(names)}
    notes = []
    if index.left_out:
        first = next(iter(index.left_out))
        notes.append(
            f"{counted(len(index.left_out), 'image')} could not be read when these shards were made, and "
            f"{'is' if len(index.left_out) == 1 else 'are'} not in them: {first}: {index.left_out[first]}; …"
        )
    return Listing(
        name=name,
        expected=f"{DESCRIPTION} in it says which images it has; `resnets prepare` makes such a folder.",
        splits=_splits(index, names, to_train=to_train),
        divided=index.divided,
        source=source,
        notes=tuple(notes),
        # Over a network, looking at an image of each class would fetch most of the shards.
        known_readable=mirrored is not None or index.form.kind != "as-is",
    )


def _splits(index: ShardIndex, names: list[str], *, to_train: bool) -> dict[str, Files]:
    rest = iter(names)
    splits = {
        split: {name: list(itertools.islice(rest, count)) for name, count in classes.items()}
        for split, classes in index.splits.items()
    }
    for files in splits.values():
        for paths in files.values():
            paths.sort(key=normal)
    return splits if to_train or index.divided else {"test": splits["train"]}
