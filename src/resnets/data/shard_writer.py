"""Make shards of a folder of images, or of other shards: tar files in WebDataset's layout, and their index.

Image number n of a split is NUMBER.jpg (or .png, …, or .npy for raw pixels) with its class's number in NUMBER.cls.
Training images are stored in a seeded random order, so that every shard is a sample of all classes; the others as they
are listed. Whatever is written depends on the images and the options alone: an interrupted preparation goes on behind
its last finished shard, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from resnets.data.decode import read_image
from resnets.data.order import STORED_STREAM, random_words
from resnets.data.preprocess import resized_size
from resnets.data.read_ahead import read_ahead
from resnets.data.shard_index import (
    DAMAGE,
    DESCRIPTION,
    Form,
    Places,
    Shard,
    ShardIndex,
    check_shards,
    read_index,
    replace_file,
    write_index,
)
from resnets.data.sources import PackedNames
from resnets.specs.errors import DataError, ImageError, counted
from resnets.specs.visible import in_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Int64

    from resnets.data.listing import Listing
    from resnets.data.sources import ImageSource

_WORK = ".prepare"
_PLAN = "plan.json"
_LOCK = "lock"
# What a worker sends at once. Several chunks of each worker are in memory, twice while they are sent: of small images
# many make it fast, of photographs as they are few are large enough.
_SMALL_IMAGES_A_CHUNK, _IMAGES_A_CHUNK = 32, 4
_SMALL_PX = 512
_BLOCK = tarfile.BLOCKSIZE
_LONGEST_JPEG_PX = 65_500


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

    An image that cannot be read is named in the index, in any form but "as-is", which copies the bytes of every file.

    Args:
        listing: the images.
        destination: a folder that does not exist, is empty, or holds what the same preparation left or has made.
        form: what becomes of the images.
        shard_bytes: a shard ends with the first image that makes it larger.
        workers: processes that read and encode; 0 works in this one.
        on_images: told how many of how many images are done.
        should_stop: asked after every few images; the finished shards are kept.

    Raises:
        DataError: `destination` holds something else, is written to by another process, or cannot be written; or there
            are no images.
        ResnetsError: a worker process died.
    """
    images = [_Split.of(listing, split) for split in listing.splits]
    total = sum(len(split.names) for split in images)
    if not total:
        raise DataError(f"{listing.name} has no images. {listing.expected}")
    work = destination / _WORK
    plan = _plan(images, form, shard_bytes)
    try:
        if (finished := _finished_set(destination, plan)) is not None:
            return Prepared(index=finished, done=total, images=total)
        _check_place(work, destination)
        with _alone(work):
            # Another process may have finished it meanwhile.
            index = _finished_set(destination, plan)
            if index is None:
                _begin(work, destination, plan)
                state = _State()
                if not _written(images, state, destination, form, shard_bytes, workers, on_images, should_stop):
                    return Prepared(index=None, done=state.done, images=total)
                index = _index(images, form, plan, state, divided=listing.divided)
                # A line break in a name would shift the numbers of all classes behind it.
                classes = "".join(f"{in_line(name)}\n" for name in _all_classes(images))
                replace_file(destination / "classes.txt", classes.encode())
                write_index(destination, index)
        shutil.rmtree(work, ignore_errors=True)  # the set is finished without it
    except OSError as error:
        raise DataError(
            f"{destination} cannot be written: {error.strerror or error}. What is finished stays; run the command again."
        ) from error
    return Prepared(index=index, done=total, images=total)


def _written(
    images: list[_Split],
    state: _State,
    destination: Path,
    form: Form,
    shard_bytes: int,
    workers: int,
    on_images: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> bool:
    """Write the shards that are not there yet; False where it was stopped."""
    total = sum(len(split.names) for split in images)
    work = destination / _WORK
    for split in images:
        numbers = _stored_order(split)
        state.enter(split.name, _finished(work, split.name, numbers))
        on_images(state.done, total)
        writer = _Writer(destination, work, split, numbers, shard_bytes)
        try:
            for number, outcome in _outcomes(split, numbers[state.position :], form, workers):
                if should_stop():
                    return False
                writer.add(number, outcome, state)
                on_images(state.done + writer.pending, total)
            writer.finish(state)
        finally:
            writer.abandon()
    return True


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Keep other processes from writing to the same folder, in which each would rename and remove the other's files.

    Raises:
        DataError: one does.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / _LOCK).open("wb") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                # Workers, which may outlive a process that is killed, do not inherit a lock of this kind.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                raise DataError(
                    f"{work.parent} is being written by another `resnets prepare`; wait for it to end, or choose another "
                    "folder."
                ) from None
            except OSError:  # some network file systems have no locks
                pass
        yield


@dataclass(frozen=True, kw_only=True, slots=True)
class _Split:
    name: str
    names: list[str]
    classes: dict[str, int]
    """Images of each class, in the order of `names`."""
    labels: Int64[np.ndarray, " n"]
    images: ImageSource

    @classmethod
    def of(cls, listing: Listing, split: str) -> _Split:
        files = listing.splits[split]
        every = sorted({name for other in listing.splits.values() for name in other})
        ordered = sorted(files)
        names = [path for name in ordered for path in files[name]]
        counts = [len(files[name]) for name in ordered]
        return cls(
            name=split,
            names=names,
            classes=dict(zip(ordered, counts, strict=True)),
            labels=np.repeat(np.array([every.index(name) for name in ordered], np.int64), counts),
            images=listing.source(names),
        )


class _Finished(NamedTuple):
    """A shard of an earlier start, or of this one."""

    shard: Shard
    numbers: Int64[np.ndarray, " n"]
    """Of its images in their split."""
    offsets: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]
    crcs: Int64[np.ndarray, " n"]
    left_out: dict[int, str]


@dataclass(slots=True)
class _State:
    """How far a preparation is."""

    done: int = 0
    """Images in finished shards or left out, of all splits."""
    position: int = 0
    """Where in the order of the present split the next shard begins."""
    finished: dict[str, list[_Finished]] = field(default_factory=dict)

    def enter(self, split: str, finished: list[_Finished]) -> None:
        self.finished[split] = finished
        self.position = sum(len(shard.numbers) + len(shard.left_out) for shard in finished)
        self.done += self.position

    def add(self, split: str, shard: _Finished) -> None:
        self.finished[split].append(shard)
        self.done += len(shard.numbers) + len(shard.left_out)


class _Writer:
    """Writes the shards of a split one after the other; only whole ones have their final names."""

    def __init__(
        self, folder: Path, work: Path, split: _Split, numbers: Int64[np.ndarray, " n"], shard_bytes: int
    ) -> None:
        self._folder, self._work, self._split = folder, work, split
        self._digits = len(str(max(1, len(numbers) - 1)))
        self._shard_bytes = shard_bytes
        self._part: Path | None = None
        self._begin()

    def _begin(self) -> None:
        self._rows: list[tuple[int, int, int, int]] = []
        self._left_out: dict[int, str] = {}
        self._digest = hashlib.sha256()
        self._size = 0

    @property
    def pending(self) -> int:
        """Images in the shard that is not finished."""
        return len(self._rows) + len(self._left_out)

    def add(self, number: int, outcome: _Outcome, state: _State) -> None:
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

    def finish(self, state: _State) -> None:
        """Give the shard its name and note what is in it."""
        if not self.pending:
            return
        shards = state.finished[self._split.name]
        name = f"{self._split.name}-{len(shards):06}.tar"
        if self._part is not None:
            self._put(bytes(2 * _BLOCK), bytes(-(self._size + 2 * _BLOCK) % tarfile.RECORDSIZE))
            # The next start trusts a shard of the right size, which could be one of zeros after a power failure.
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        rows = np.array(self._rows, np.int64).reshape(-1, 4)
        finished = _Finished(
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
        _note(self._work, finished)
        state.add(self._split.name, finished)
        self._begin()

    def abandon(self) -> None:
        """Remove the shard that is not finished."""
        if self._part is not None:
            with contextlib.suppress(OSError):  # what could not be written to a full disk
                self._file.close()
            self._part.unlink(missing_ok=True)
            self._part = None


class _Outcome(NamedTuple):
    """What is stored of an image, or why nothing is."""

    content: bytes = b""
    extension: str = ""
    reason: str = ""


class _Encoded(TorchDataset[list[_Outcome]]):
    """Images in their new form, some at a time."""

    def __init__(self, split: _Split, numbers: Int64[np.ndarray, " n"], form: Form) -> None:
        self._split, self._numbers, self._form = split, numbers, form
        self._at_once = _SMALL_IMAGES_A_CHUNK if 0 < form.resize_px <= _SMALL_PX else _IMAGES_A_CHUNK

    def __len__(self) -> int:
        """Return the number of chunks."""
        return -(-len(self._numbers) // self._at_once)

    def __getitem__(self, chunk: int) -> list[_Outcome]:
        first = chunk * self._at_once
        return [self._outcome(number) for number in self._numbers[first : first + self._at_once].tolist()]

    def _outcome(self, number: int) -> _Outcome:
        extension = Path(self._split.names[number]).suffix.lower()
        try:
            content = self._split.images.read(number)
            if self._form.kind == "as-is":
                return _Outcome(content, extension)
            return _encoded(content, extension, self._form)
        except ImageError as error:
            # A file that is there and cannot be decoded is copied; one that cannot be read leaves nothing to copy.
            return _Outcome(reason=str(error))


def _outcomes(
    split: _Split, numbers: Int64[np.ndarray, " n"], form: Form, workers: int
) -> Iterator[tuple[int, _Outcome]]:
    images = _Encoded(split, numbers, form)
    encoded = read_ahead(images, range(len(images)), workers=min(workers, len(images)), device=torch.device("cpu"))
    try:
        outcomes = (outcome for chunk in encoded for outcome in chunk)
        yield from zip(numbers.tolist(), outcomes, strict=True)
    finally:
        encoded.close()


def _encoded(content: bytes, extension: str, form: Form) -> _Outcome:
    """Return an image in its new form; a JPEG that is small enough already stays as it is.

    Raises:
        ImageError: it cannot be read.
    """
    image = read_image(content)
    size = image.size
    if form.resize_px and min(size) > form.resize_px:
        image = image.resize(resized_size(*size, form.resize_px), Image.Resampling.BILINEAR)
    elif form.kind == "jpeg" and extension in (".jpg", ".jpeg"):
        return _Outcome(content, extension)
    file = io.BytesIO()
    if form.kind == "raw":
        np.lib.format.write_array(file, np.asarray(image), version=(1, 0), allow_pickle=False)
        return _Outcome(file.getvalue(), ".npy")
    if max(image.size) > _LONGEST_JPEG_PX:
        raise ImageError(
            f"it cannot be stored as JPEG: {image.width} x {image.height} pixels, of which a side may have "
            f"{_LONGEST_JPEG_PX:,} at most"
        )
    image.save(file, "JPEG", quality=form.quality, subsampling="4:2:0")
    return _Outcome(file.getvalue(), ".jpg")


def _stored_order(split: _Split) -> Int64[np.ndarray, " n"]:
    """Return the numbers of the images of a split in the order in which they are stored."""
    numbers = np.arange(len(split.names), dtype=np.int64)
    if split.name != "train":
        return numbers
    return np.argsort(random_words(0, numbers, 1, STORED_STREAM)[:, 0], kind="stable").astype(np.int64)


def _all_classes(images: list[_Split]) -> list[str]:
    return sorted({name for split in images for name in split.classes})


def _plan(images: list[_Split], form: Form, shard_bytes: int) -> dict[str, Any]:
    """Return what the bytes of the shards depend on, but for the content of the files."""
    digest = hashlib.sha256()
    for split in images:
        for name, label in zip(split.names, split.labels.tolist(), strict=True):
            digest.update(f"{split.name}\0{name}\0{label}\n".encode(errors="surrogateescape"))
    return {"version": 1, "form": asdict(form), "shard_bytes": shard_bytes, "images": digest.hexdigest()}


def _finished_set(destination: Path, plan: dict[str, Any]) -> ShardIndex | None:
    """Return the set that the same preparation has made before.

    Raises:
        DataError: there is one of another preparation, or it is damaged.
    """
    if not (destination / DESCRIPTION).exists():
        return None
    index = read_index(destination)
    if index.plan != plan:
        raise DataError(
            f"{destination} holds shards of other images or with other options; choose another folder, or remove it."
        )
    check_shards(destination, index)
    return index


def _check_place(work: Path, destination: Path) -> None:
    """Refuse a folder in which something else is.

    Raises:
        DataError: saying so.
    """
    if destination.exists() and not destination.is_dir():
        raise DataError(f"{destination} is a file; the shards need a folder.")
    if (
        destination.exists()
        and not (work / _PLAN).exists()
        and any(entry.name != _WORK for entry in destination.iterdir())
    ):
        raise DataError(f"{destination} is not empty, and holds no shards; choose another folder.")


def _begin(work: Path, destination: Path, plan: dict[str, Any]) -> None:
    """Note what is to be written, or go on with the same.

    Raises:
        DataError: something else has been begun.
    """
    path = work / _PLAN
    if path.exists():
        if path.read_text(encoding="utf-8") != json.dumps(plan):
            raise DataError(
                f"{destination} holds the beginning of other shards: the images or the options have changed since. "
                "Choose another folder, or remove it."
            )
        return
    replace_file(path, json.dumps(plan).encode())


def _note(work: Path, finished: _Finished) -> None:
    file = io.BytesIO()
    described = json.dumps(asdict(finished.shard) | {"left_out": finished.left_out}).encode()
    np.savez(
        file,
        described=np.frombuffer(described, np.uint8),
        **{name: getattr(finished, name) for name in ("numbers", "offsets", "sizes", "crcs")},
    )
    replace_file(work / f"{finished.shard.file}.npz", file.getvalue())


def _finished(work: Path, split: str, numbers: Int64[np.ndarray, " n"]) -> list[_Finished]:
    """Return the shards of a split that are there already, as far as they follow each other from the first on."""
    found: list[_Finished] = []
    position = 0
    while True:
        name = f"{split}-{len(found):06}.tar"
        try:
            with np.load(io.BytesIO((work / f"{name}.npz").read_bytes()), allow_pickle=False) as noted:
                described = json.loads(noted["described"].tobytes())
                left_out = {int(number): reason for number, reason in described.pop("left_out").items()}
                shard = _Finished(
                    Shard(**described), noted["numbers"], noted["offsets"], noted["sizes"], noted["crcs"], left_out
                )
            whole = not shard.shard.bytes or (work.parent / name).stat().st_size == shard.shard.bytes
        except DAMAGE:
            return found
        count = len(shard.numbers) + len(shard.left_out)
        expected = set(numbers[position : position + count].tolist())
        if not whole or expected != {*shard.numbers.tolist(), *left_out}:
            return found
        found.append(shard)
        position += count


def _index(images: list[_Split], form: Form, plan: dict[str, Any], state: _State, *, divided: bool) -> ShardIndex:
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
