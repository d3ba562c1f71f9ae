"""How far a preparation of shards is: kept beside them, so that an interrupted one goes on and ends with the same bytes.

What is begun is noted as a plan of everything that the bytes depend on but the content of the files; every finished
shard has a note of what is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resnets.data.order import STORED_STREAM, random_words
from resnets.data.replace_file import replace_file
from resnets.data.shard_index import (
    DAMAGE,
    DESCRIPTION,
    Form,
    Shard,
    ShardIndex,
    check_shards,
    read_index,
)
from resnets.specs.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jaxtyping import Int64

    from resnets.data.listing import Listing
    from resnets.data.sources import ImageSource

WORK = ".prepare"
"""Folder of the notes, in that of the shards, while they are made."""
_PLAN = "plan.json"
_LOCK = "lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSplit:
    """The images of a split, in the order of their listing."""

    name: str
    names: list[str]
    classes: dict[str, int]
    """Images of each class, in the order of `names`."""
    labels: Int64[np.ndarray, " n"]
    images: ImageSource

    @classmethod
    def of(cls, listing: Listing, split: str) -> StoredSplit:
        """Return a split of `listing`."""
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


class FinishedShard(NamedTuple):
    """A shard of an earlier start, or of this one."""

    shard: Shard
    numbers: Int64[np.ndarray, " n"]
    """Of its images in their split."""
    offsets: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]
    crcs: Int64[np.ndarray, " n"]
    left_out: dict[int, str]


@dataclass(slots=True)
class PreparationState:
    """How far a preparation is."""

    done: int = 0
    """Images in finished shards or left out, of all splits."""
    position: int = 0
    """Where in the order of the present split the next shard begins."""
    finished: dict[str, list[FinishedShard]] = field(default_factory=dict)

    def enter(self, split: str, finished: list[FinishedShard]) -> None:
        """Go on to a split of which some shards are there."""
        self.finished[split] = finished
        self.position = sum(len(shard.numbers) + len(shard.left_out) for shard in finished)
        self.done += self.position

    def add(self, split: str, shard: FinishedShard) -> None:
        """Count a shard that is finished."""
        self.finished[split].append(shard)
        self.done += len(shard.numbers) + len(shard.left_out)


def stored_order(split: StoredSplit) -> Int64[np.ndarray, " n"]:
    """Return the numbers of the images of a split in the order in which they are stored."""
    numbers = np.arange(len(split.names), dtype=np.int64)
    if split.name != "train":
        return numbers
    return np.argsort(random_words(0, numbers, 1, STORED_STREAM)[:, 0], kind="stable").astype(np.int64)


def plan_of(images: list[StoredSplit], form: Form, shard_bytes: int) -> dict[str, Any]:
    """Return what the bytes of the shards depend on, but for the content of the files."""
    digest = hashlib.sha256()
    for split in images:
        for name, label in zip(split.names, split.labels.tolist(), strict=True):
            digest.update(f"{split.name}\0{name}\0{label}\n".encode(errors="surrogateescape"))
    return {"version": 1, "form": asdict(form), "shard_bytes": shard_bytes, "images": digest.hexdigest()}


def finished_set(destination: Path, plan: dict[str, Any]) -> ShardIndex | None:
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


def check_place(work: Path, destination: Path) -> None:
    """Refuse a folder in which something else is.

    Raises:
        DataError: saying so.
    """
    if destination.exists() and not destination.is_dir():
        raise DataError(f"{destination} is a file; the shards need a folder.")
    if (
        destination.exists()
        and not (work / _PLAN).exists()
        and any(entry.name != WORK for entry in destination.iterdir())
    ):
        raise DataError(f"{destination} is not empty, and holds no shards; choose another folder.")


def begin(work: Path, destination: Path, plan: dict[str, Any]) -> None:
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


def note_finished(work: Path, finished: FinishedShard) -> None:
    """Keep what is in a shard.

    Raises:
        OSError: it cannot be written.
    """
    file = io.BytesIO()
    described = json.dumps(asdict(finished.shard) | {"left_out": finished.left_out}).encode()
    np.savez(
        file,
        described=np.frombuffer(described, np.uint8),
        **{name: getattr(finished, name) for name in ("numbers", "offsets", "sizes", "crcs")},
    )
    replace_file(work / f"{finished.shard.file}.npz", file.getvalue())


def finished_shards(work: Path, split: str, numbers: Int64[np.ndarray, " n"]) -> list[FinishedShard]:
    """Return the shards of a split that are there already, as far as they follow each other from the first on."""
    found: list[FinishedShard] = []
    position = 0
    while True:
        name = f"{split}-{len(found):06}.tar"
        try:
            with np.load(io.BytesIO((work / f"{name}.npz").read_bytes()), allow_pickle=False) as noted:
                described = json.loads(noted["described"].tobytes())
                left_out = {int(number): reason for number, reason in described.pop("left_out").items()}
                shard = FinishedShard(
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


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
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
