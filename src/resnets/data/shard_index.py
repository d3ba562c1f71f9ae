"""What is in a set of shards: which images, in which order, where each lies, and the checksums that prove it.

A set is a folder of tar files in WebDataset's layout with two more files. `shards.json` says how it was made, and has
the classes, the shards and a checksum of itself and of `index.npz`. `index.npz` has the images in the order of the
folder that they were made from: paths, and for each its shard, where its bytes begin and end there, and their CRC-32.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from resnets.data.replace_file import replace_file
from resnets.data.sources import PackedNames, read_file
from resnets.specs.errors import DataError, ImageError, counted

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt32

DESCRIPTION = "shards.json"
INDEX = "index.npz"
MAX_DESCRIPTION_BYTES = 2**27
MAX_INDEX_BYTES = 2**33
_VERSION = 1
_SPLITS = ("train", "validation", "test")
_SHARD = re.compile(rf"({'|'.join(_SPLITS)})-[0-9]{{6,}}\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")

DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    OSError,
    EOFError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What arrays in a damaged or hostile file raise when they are read: sizes beyond all memory, ciphers, unknown forms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What became of the images."""

    kind: Literal["as-is", "jpeg", "raw"] = "as-is"
    """The files as they were; JPEG; or the pixels themselves, as NumPy arrays of bytes."""
    resize_px: int = 0
    """Shorter side, in pixels, of the larger images; 0 where none was resized."""
    quality: int = 0
    """JPEG quality, 1 to 100; 0 where nothing was encoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar file."""

    file: str
    bytes: int
    images: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where the content of each image is."""

    shard: Int64[np.ndarray, " n"]
    """Number of its shard."""
    offset: Int64[np.ndarray, " n"]
    """Of its first byte in the shard."""
    size: Int64[np.ndarray, " n"]
    """Of its content, in bytes."""
    crc32: UInt32[np.ndarray, " n"]
    """Of its content."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.shard)

    def taken(self, indices: Int64[np.ndarray, " k"]) -> Places:
        """Return the places of some of the images, in this order."""
        return Places(**{name: getattr(self, name)[indices] for name in _PLACES})


_PLACES = tuple(field.name for field in dataclasses.fields(Places))


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """A set of shards."""

    form: Form
    plan: dict[str, Any]
    """What the bytes of the shards depend on, but for the content of the images: the same preparation has the same."""
    divided: bool
    """Whether the folder had splits; what has none is "train"."""
    splits: dict[str, dict[str, int]]
    """For each split its classes, sorted, with their numbers of images."""
    shards: tuple[Shard, ...]
    left_out: dict[str, str]
    """Path and reason of the images that could not be read."""
    names: PackedNames
    """Paths of the images below the folder that they were made from, in the order of `splits`."""
    places: Places

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.places)


def write_index(folder: Path, index: ShardIndex) -> None:
    """Write `index.npz` and then `shards.json`, which makes a folder a finished set.

    Raises:
        OSError: they cannot be written.
    """
    arrays = {name: getattr(index.places, name) for name in _PLACES}
    content = io.BytesIO()
    np.savez(content, names=np.frombuffer(index.names.text, np.uint8), ends=index.names.ends, **arrays)
    replace_file(folder / INDEX, content.getvalue())
    described = {
        "format": "resnets-shards",
        "version": _VERSION,
        "form": dataclasses.asdict(index.form),
        "plan": index.plan,
        "divided": index.divided,
        "images": index.images,
        "splits": index.splits,
        "shards": [dataclasses.asdict(shard) for shard in index.shards],
        "left_out": index.left_out,
        "index_sha256": hashlib.sha256(content.getvalue()).hexdigest(),
    }
    replace_file(folder / DESCRIPTION, json.dumps(described | {"checksum": _checksum(described)}, indent=1).encode())


def read_index(folder: Path) -> ShardIndex:
    """Return the index of the set in `folder`.

    Raises:
        DataError: it is missing, damaged, or of a later version; the message names the file.
    """
    described = read_description(folder / DESCRIPTION, _content(folder / DESCRIPTION, MAX_DESCRIPTION_BYTES))
    path = folder / INDEX
    content = _content(path, MAX_INDEX_BYTES)
    if hashlib.sha256(content).hexdigest() != described["index_sha256"]:
        raise DataError(f"{path} is damaged, or of another set: its checksum is not the one in {DESCRIPTION}. {_AGAIN}")
    try:
        return _joined(described, content)
    # What is wrong by these is wrong in both files alike; nobody but their writer can have done it.
    except DAMAGE as error:
        raise DataError(f"{folder / DESCRIPTION} and {INDEX} are no index of shards ({error}). {_AGAIN}") from error


def read_description(path: str | Path, content: bytes) -> dict[str, Any]:
    """Return what `content`, a shards.json called `path`, says, its checksum being right.

    Raises:
        DataError: it is damaged, or of a later version.
    """
    try:
        described = json.loads(content)
        if described["format"] != "resnets-shards":
            raise ValueError
        version, checksum = described["version"], described.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{path} does not describe shards, or is damaged. {_AGAIN}") from None
    if version != _VERSION:
        raise DataError(f"{path} is of version {version!r}; this resnets reads version {_VERSION}. Use a newer one.")
    if checksum != _checksum(described):
        raise DataError(f"{path} is damaged or was edited: its checksum is wrong. {_AGAIN}")
    index = described.get("index_sha256")
    if not isinstance(index, str) or not _SHA256.fullmatch(index):  # a folder is named by it
        raise DataError(f"{path} does not describe shards: it has no checksum of {INDEX}. {_AGAIN}")
    return described


def check_shards(folder: Path, index: ShardIndex) -> None:
    """Refuse a set of which a shard is not there, or not whole.

    Raises:
        DataError: naming the shard.
    """
    for shard in index.shards:
        path = folder / shard.file
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror or error}), but {DESCRIPTION} names it with "
                f"{counted(shard.images, 'image')}. {_AGAIN}"
            ) from error
        if size != shard.bytes:
            raise DataError(
                f"{path} has {size:,} bytes; {DESCRIPTION} says {shard.bytes:,}. It was not copied whole, or is of another "
                f"set. {_AGAIN}"
            )


# In the folder itself, `prepare` would find the damaged set.
_AGAIN = "Copy the file again, or make the shards anew with `resnets prepare`, in another folder."


def _content(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise DataError(f"{path} has more than {limit:,} bytes; it is no index of shards.")
        return read_file(path, limit_bytes=limit)
    except (ImageError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read: {reason}. {_AGAIN}") from error


def _checksum(described: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _joined(described: dict[str, Any], content: bytes) -> ShardIndex:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # NumPy would unpack a thousand times what was read; `write_index` packs nothing.
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its arrays are compressed")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        places = Places(**{name: _array(arrays[name], np.uint32 if name == "crc32" else np.int64) for name in _PLACES})
        names = PackedNames(_array(arrays["names"], np.uint8).tobytes(), _array(arrays["ends"], np.int64))
    index = ShardIndex(
        form=Form(**described["form"]),
        plan=dict(described["plan"]),
        divided=bool(described["divided"]),
        splits={split: dict(classes) for split, classes in described["splits"].items()},
        shards=tuple(Shard(**shard) for shard in described["shards"]),
        left_out=dict(described["left_out"]),
        names=names,
        places=places,
    )
    _check(index, described["images"])
    return index


def _array(values: np.ndarray, dtype: type) -> np.ndarray:
    if values.dtype != dtype or values.ndim != 1:
        raise ValueError(f"an array is {values.dtype} of {values.ndim} dimensions")
    return values


def _is_sound(shard: Shard) -> bool:
    return (
        isinstance(shard.file, str)
        and _SHARD.fullmatch(shard.file) is not None
        and isinstance(shard.sha256, str)
        and _SHA256.fullmatch(shard.sha256) is not None
        and all(type(number) is int and 0 <= number < 2**63 for number in (shard.bytes, shard.images))
    )


def _check(index: ShardIndex, images: int) -> None:
    """Refuse an index that contradicts itself.

    Raises:
        ValueError: saying in what.
    """
    places, names = index.places, index.names
    numbers = [images, *(count for classes in index.splits.values() for count in classes.values())]
    if not all(type(number) is int and number >= 0 for number in numbers):  # JSON's 2.0 equals 2
        raise ValueError("a number of images is none")
    counts = {len(getattr(places, name)) for name in _PLACES} | {len(names), images}
    counts |= {sum(sum(classes.values()) for classes in index.splits.values())}
    if len(counts) != 1 or sum(shard.images for shard in index.shards) != images:
        raise ValueError("it contradicts itself in the number of images")
    if not set(index.splits) <= set(_SPLITS) or not (index.divided or set(index.splits) == {"train"}):
        raise ValueError("its splits are not train, validation and test, or train alone where it is not divided")
    if not all(map(_is_sound, index.shards)):
        raise ValueError("a shard is not described as one")
    if not all(isinstance(reason, str) for reason in index.left_out.values()):
        raise ValueError("an image is left out for no reason")
    if not images:
        return
    sizes = np.array([shard.bytes for shard in index.shards], np.int64)
    if places.shard.min() < 0 or places.shard.max() >= len(sizes):
        raise ValueError("an image is in no shard")
    inside = (places.offset >= 0) & (places.size >= 0) & (places.size <= sizes[places.shard] - places.offset)
    if not inside.all():
        raise ValueError("an image lies behind the end of its shard")
    if (np.diff(names.ends, prepend=0) <= 0).any() or names.ends[-1] != len(names.text):
        raise ValueError("the names of its images are damaged")
