"""Make shards of a folder of images, or of other shards: tar files in WebDataset's layout, and their index.

Image number n of a split is NUMBER.jpg (or .png, …, or .npy for raw pixels) with its class's number in NUMBER.cls.
Training images are stored in a seeded random order, so that every shard is a sample of all classes; the others as they
are listed. Whatever is written depends on the images and the options alone: an interrupted preparation goes on behind
its last finished shard, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnets.data.listing import check_classes
from resnets.data.replace_file import clear_parts, replace_file
from resnets.data.shard_forms import Outcome, outcomes
from resnets.data.shard_index import DESCRIPTION, INDEX, Form, Places, Shard, ShardIndex, write_index
from resnets.data.shard_state import (
    WORK,
    FinishedShard,
    PreparationState,
    StoredSplit,
    alone,
    begin,
    check_place,
    finished_set,
    finished_shards,
    note_finished,
    plan_of,
    stored_order,
)
from resnets.data.sources import PackedNames
from resnets.specs.errors import DataError, ImageError, counted
from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Int64

    from resnets.data.listing import Listing

UNREADABLE_IN_A_ROW = 20
"""Images one after the other whose files cannot be read, after which others show whether the data is gone."""

_GO_ON = (
    "Check that the data is still there and can be read, and run the same command again: what is finished stays. Images "
    "that are lost for good are left out of shards in another folder by `resnets check-data --quarantine`."
)

_BLOCK = tarfile.BLOCKSIZE
_CLASSES = "classes.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What a preparation has come to."""

    index: ShardIndex | None
    """The finished set; None where it was stopped."""
    done: int
    """Images that are in finished shards, or left out."""
    images: int
    """Images of the folder."""


def prepare(
    listing: Listing,
    destination: Path,
    form: Form,
    *,
    shard_bytes: int = 2**27,
    workers: int = 0,
    on_images: Callable[[int, int], None] = lambda done, of: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Write the images of `listing` to shards in `destination`, which becomes a set when all of them are there.

    An image that cannot be decoded is named in the index, in any form but "as-is", which copies the bytes of every file.
    So is one whose file cannot be read, as long as others can. Where those cannot be read any more either, the data is
    gone: that ends the preparation, and none of them is noted.

    Args:
        listing: the images.
        destination: a folder that does not exist, is empty, or holds what the same preparation left or has made.
        form: what becomes of the images.
        shard_bytes: a shard ends with the first image that makes it larger.
        workers: processes that read and encode; 0 works in this one.
        on_images: told how many of how many images are done.
        should_stop: asked after every few images; the finished shards are kept.

    Raises:
        DataError: `destination` holds something else, is written to by another process, or cannot be written; there
            are no images, or none of a class to train on; or their files cannot be read any more.
        ResnetsError: a worker process died.
    """
    images = [StoredSplit.of(listing, split) for split in listing.splits]
    total = sum(len(split.names) for split in images)
    if not total:
        raise DataError(f"{listing.name} has no images. {listing.expected}")
    work = destination / WORK
    plan = plan_of(images, form, shard_bytes)
    try:
        if (finished := finished_set(destination, plan)) is not None:
            _clear_finished(work, destination)
            return Prepared(index=finished, done=total, images=total)
        # Training on the shards would refuse them, after hours of work.
        check_classes(listing, listing.splits.get("train", {}))
        check_place(work, destination)
        with alone(work):
            _clear_parts(destination)
            # Another process may have finished it meanwhile.
            index = finished_set(destination, plan)
            if index is None:
                begin(work, destination, plan)
                state = PreparationState()
                if not _written(images, state, destination, form, shard_bytes, workers, on_images, should_stop):
                    return Prepared(index=None, done=state.done, images=total)
                index = _index(images, form, plan, state, divided=listing.divided)
                # A line break in a name would shift the numbers of all classes behind it.
                classes = "".join(f"{in_line(name)}\n" for name in _all_classes(images))
                replace_file(destination / _CLASSES, classes.encode())
                write_index(destination, index)
        shutil.rmtree(work, ignore_errors=True)  # the set is finished without it
    except OSError as error:
        raise DataError(
            f"{destination} cannot be written: {error.strerror or error}. What is finished stays; run the command again."
        ) from error
    return Prepared(index=index, done=total, images=total)


def _clear_parts(destination: Path) -> None:
    """Remove what a process that was killed had not written to its end; the caller is alone in the folder."""
    for part in destination.glob("*.tar.part"):
        part.unlink(missing_ok=True)
    for name in (_CLASSES, INDEX, DESCRIPTION):
        clear_parts(destination / name)


def _clear_finished(work: Path, destination: Path) -> None:
    """Remove what a process that was killed at its very end has left beside a finished set."""
    if work.exists():
        # As long as that process is at its end, it does so itself; a set that cannot be written can be read.
        with contextlib.suppress(DataError, OSError):
            with alone(work):
                _clear_parts(destination)
            shutil.rmtree(work, ignore_errors=True)


def _written(
    images: list[StoredSplit],
    state: PreparationState,
    destination: Path,
    form: Form,
    shard_bytes: int,
    workers: int,
    on_images: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> bool:
    """Write the shards that are not there yet; False where it was stopped."""
    total = sum(len(split.names) for split in images)
    work = destination / WORK
    for split in images:
        numbers = stored_order(split)
        state.enter(split.name, finished_shards(work, split.name, numbers))
        rest = numbers[state.position :]
        on_images(state.done, total)
        writer = _Writer(destination, work, split, numbers, shard_bytes)
        try:
            for number, outcome in outcomes(split.images, split.names, rest, form, workers=workers):
                if should_stop():
                    return False
                writer.add(number, outcome, state)
                on_images(state.done + writer.pending, total)
            writer.check_last(state)
            writer.finish(state)
        finally:
            writer.abandon()
    return True


class _Writer:
    """Writes the shards of a split one after the other; only whole ones have their final names."""

    def __init__(
        self, folder: Path, work: Path, split: StoredSplit, numbers: Int64[np.ndarray, " n"], shard_bytes: int
    ) -> None:
        self._folder, self._work, self._split = folder, work, split
        self._digits = len(str(max(1, len(numbers) - 1)))
        self._shard_bytes = shard_bytes
        self._part: Path | None = None
        self._numbers = numbers
        self._added = 0
        self._unreadable = 0
        self._last_read: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._rows: list[tuple[int, int, int, int]] = []
        self._left_out: dict[int, str] = {}
        self._any_unreadable = False
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def pending(self) -> int:
        """Images in the shard that is not finished."""
        return len(self._rows) + len(self._left_out)

    def add(self, number: int, outcome: Outcome, state: PreparationState) -> None:
        """Write an image, or note why it is left out.

        Raises:
            DataError: many one after the other could not be read, and no other can.
        """
        self._added += 1
        if outcome.unreadable:
            self._any_unreadable = True
            self._unreadable += 1
            self._last_reason = f"{self._split.images.path(number)}: {outcome.reason}"
            if self._unreadable % UNREADABLE_IN_A_ROW == 0:
                self._check_others(state)
        else:
            self._unreadable = 0
            self._last_read = number
        if outcome.reason:
            self._left_out[number] = outcome.reason
            return
        if self._part is None:
            self._part = self._folder / f"{self._split.name}.tar.part"
            self._file = self._part.open("wb")
        key = f"{number:0{self._digits}}"
        label = str(int(self._split.labels[number])).encode()
        offset = self._size + _BLOCK
        self._write(key + outcome.extension, outcome.content)
        self._write(f"{key}.cls", label)
        self._rows.append((number, offset, len(outcome.content), zlib.crc32(outcome.content)))
        if self._size >= self._shard_bytes:
            self.finish(state)

    def check_last(self, state: PreparationState) -> None:
        """Look whether the last images of the split could not be read because the data is gone: fewer than in a row.

        Raises:
            DataError: one that could be read before them cannot be read any more, or none could.
        """
        if self._unreadable:
            self._check_others(state)

    def _check_others(self, state: PreparationState) -> None:
        """Look whether another image than the last ones can be read.

        Raises:
            DataError: none can.
        """
        if not any(map(self._can_be_read, self._others(state))):
            raise self._gone()

    def _others(self, state: PreparationState) -> list[int]:
        """Return the last image of the split that could be read; where none could, some of those to come."""
        if self._last_read is not None:
            return [self._last_read]
        before = [int(shard.numbers[-1]) for shard in state.finished[self._split.name] if len(shard.numbers)]
        if before:
            return before[-1:]
        # The split may begin with a class of which no file can be read.
        rest = self._numbers[state.position + self._added :]
        places = np.linspace(0, len(rest) - 1, min(len(rest), UNREADABLE_IN_A_ROW), dtype=np.int64)
        return rest[places].tolist()

    def _check_last_read(self) -> None:
        """Look whether the images that were left out were so because the data is gone, when others came behind them.

        Processes read beside each other: behind an image that is gone may come one that was read before it was.

        Raises:
            DataError: the last image that could be read cannot be read any more.
        """
        if not self._any_unreadable or self._last_read is None:
            return
        try:
            self._split.images.read(self._last_read, 1)
        except ImageError as error:
            raise DataError(
                f"{self._split.images.path(self._last_read)} could be read before, and can no longer: {error}. {_GO_ON}"
            ) from error

    def _can_be_read(self, number: int) -> bool:
        try:
            self._split.images.read(number, 1)
        except ImageError:
            return False
        return True

    def _gone(self) -> DataError:
        return DataError(
            f"The last {counted(self._unreadable, 'image')} could not be read; {self._last_reason}. {_GO_ON}"
        )

    def _write(self, name: str, content: bytes) -> None:
        header = tarfile.TarInfo(name)
        header.size = len(content)
        header.mode = 0o644
        self._put(header.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % _BLOCK))

    def _put(self, *parts: bytes) -> None:
        for part in parts:
            self._file.write(part)
            self._digest.update(part)
            self._size += len(part)

    def finish(self, state: PreparationState) -> None:
        """Give the shard its name and note what is in it.

        Raises:
            DataError: images that are left out may be so because the data is gone.
        """
        if not self.pending:
            return
        self._check_last_read()
        shards = state.finished[self._split.name]
        name = f"{self._split.name}-{len(shards):06}.tar"
        if self._part is not None:
            self._put(bytes(2 * _BLOCK), bytes(-(self._size + 2 * _BLOCK) % tarfile.RECORDSIZE))
            # The next start trusts a shard of the right size, which could be one of zeros after a power failure.
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        rows = np.array(self._rows, np.int64).reshape(-1, 4)
        finished = FinishedShard(
            shard=Shard(file=name, bytes=self._size, images=len(rows), sha256=self._digest.hexdigest()),
            numbers=rows[:, 0],
            offsets=rows[:, 1],
            sizes=rows[:, 2],
            crcs=rows[:, 3],
            left_out=self._left_out,
        )
        if self._part is not None:
            self._part.replace(self._folder / name)
            self._part = None
        note_finished(self._work, finished)
        state.add(self._split.name, finished)
        self._begin()

    def abandon(self) -> None:
        """Remove the shard that is not finished."""
        if self._part is not None:
            with contextlib.suppress(OSError):  # what could not be written to a full disk
                self._file.close()
            self._part.unlink(missing_ok=True)
            self._part = None


def _all_classes(images: list[StoredSplit]) -> list[str]:
    return sorted({name for split in images for name in split.classes})


def _index(
    images: list[StoredSplit], form: Form, plan: dict[str, Any], state: PreparationState, *, divided: bool
) -> ShardIndex:
    shards: list[Shard] = []
    left_out: dict[str, str] = {}
    names: list[str] = []
    splits: dict[str, dict[str, int]] = {}
    columns: list[np.ndarray] = []
    for split in images:
        rows = np.full((len(split.names), 4), -1, np.int64)
        for finished in state.finished[split.name]:
            left_out |= {split.names[number]: reason for number, reason in finished.left_out.items()}
            if not len(finished.numbers):
                continue
            rows[finished.numbers, 0] = len(shards)
            rows[finished.numbers, 1:] = np.stack([finished.offsets, finished.sizes, finished.crcs], axis=1)
            shards.append(finished.shard)
        kept = np.flatnonzero(rows[:, 0] >= 0)
        columns.append(rows[kept])
        names += [split.names[number] for number in kept.tolist()]
        ends = np.cumsum(list(split.classes.values()))
        counts = np.diff(np.searchsorted(kept, ends), prepend=0).tolist()
        splits[split.name] = dict(zip(split.classes, counts, strict=True))
    shard, offset, size, crc32 = np.concatenate(columns).T
    if not names:
        first = next(iter(left_out))
        raise DataError(f"No image could be read: {counted(len(left_out), 'image')}. {first}: {left_out[first]}.")
    return ShardIndex(
        form=form,
        plan=plan,
        divided=divided,
        splits=splits,
        shards=tuple(shards),
        left_out=left_out,
        names=PackedNames.of(names),
        places=Places(
            shard=np.ascontiguousarray(shard),
            offset=np.ascontiguousarray(offset),
            size=np.ascontiguousarray(size),
            crc32=crc32.astype(np.uint32),
        ),
    )
