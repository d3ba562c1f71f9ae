"""What one image file is, from its bytes: can it be read whole, and if so its size, colours, hash and oddities."""

from __future__ import annotations

import hashlib
import io
import re
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from resnets.data import jpeg_end
from resnets.data.decode import MAX_PIXELS, is_image_name, read_image
from resnets.data.image_hash import HASHED_PX, THUMBNAIL_PX, perceptual_hash
from resnets.specs.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BROKEN, BLANK, ANIMATED, SEE_THROUGH = 1, 2, 4, 8
"""Bits of a record's `flags`."""

RECORD = np.dtype(
    [
        ("digest", "<u8", (2,)),
        ("hash", "<u8"),
        ("bytes", "<u8"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("orientation", "u1"),
        ("flags", "u1"),
        ("format", "S8"),
        ("mode", "S8"),
        ("thumbnail", "u1", (THUMBNAIL_PX**2,)),
    ]
)
"""Facts of one image, about 200 bytes: width and height in pixels as it is seen, upright; mode is Pillow's. Of a
broken image only `digest` and `bytes` are set."""

# Decoded at no less than this shorter side: enough for the hash, and several times faster for large photographs.
_DECODED_PX = 64
_MOST_BYTES = 1 << 30
_BLANK_RANGE = 4

_ORIENTATION = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})
_TURNED = frozenset(range(2, 9))


class Broken(NamedTuple):
    """Why an image cannot be used: a kind of finding in `BROKEN`, and what was seen."""

    kind: str
    reason: str


class Header(NamedTuple):
    """What a file says of its image before the pixels."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    animated: bool
    see_through: bool


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file of an image.

    Raises:
        OSError: it cannot be read, or is no regular file (opening a pipe would wait for a writer), or is larger than
            an image can be.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    if status.st_size > _MOST_BYTES:
        raise OSError(f"it is larger than {_MOST_BYTES >> 30} GiB")
    return path.read_bytes()


def probe_batch(
    batch: Sequence[tuple[str, Callable[[], bytes]]],
) -> tuple[np.ndarray, list[tuple[int, Broken]]]:
    """Return the records (`RECORD`) of some images, given as name and function that reads, and those that are broken.

    The broken ones are given by their place in the batch.
    """
    records = np.zeros(len(batch), RECORD)
    broken = []
    for place, (_, read) in enumerate(batch):
        try:
            data = read()
        except Exception as error:  # of whatever the images are read from
            found: Broken | None = Broken("unreadable", _why_unreadable(error))
        else:
            found = probe(data, records[place : place + 1])
        if found is not None:
            records["flags"][place] = BROKEN
            broken.append((place, found))
    return records, broken


def _why_unreadable(error: Exception) -> str:
    match error:
        case ImageError():
            return str(error)
        case PermissionError():
            return "permission to read the file is denied"
        case OSError():
            return error.strerror or str(error) or type(error).__name__
        case _:
            return f"reading it failed: {str(error) or type(error).__name__}"


def probe(data: bytes, record: np.ndarray) -> Broken | None:
    """Fill the one record (of type `RECORD`) of an image from its file's bytes, or return why it is broken."""
    record["digest"] = np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), "<u8")
    record["bytes"] = len(data)
    try:
        header = read_header(data)
        if header.width * header.height > MAX_PIXELS:
            return _too_large(f"{header.width:,} x {header.height:,} pixels")
        image = read_image(io.BytesIO(data), at_least_px=_DECODED_PX)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        return _too_large(f"{int(pixels[0]) / 1e6:,.0f} million pixels" if pixels else "its pixels")
    except UnidentifiedImageError:
        return _no_image(data)
    except ImageError as error:
        return _undecodable(data, str(error))
    except Exception as error:  # damaged headers raise almost anything
        return _undecodable(data, f"its header is damaged ({str(error) or type(error).__name__})")
    if (
        header.format in ("JPEG", "MPO")
        and (not jpeg_end.has_end(data) or jpeg_end.has_gray_corner(image))
        and jpeg_end.stops_early(data)
    ):
        return Broken("truncated", "its pixel data ends before the image does; the rest would be filled up")
    gray = image.convert("L").resize((HASHED_PX, HASHED_PX), Image.Resampling.BOX, reducing_gap=2.0)
    record["hash"] = perceptual_hash(np.asarray(gray))
    thumbnail = gray.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    record["thumbnail"] = np.asarray(thumbnail).reshape(-1)
    sideways = header.orientation in _SIDEWAYS
    record["width"] = header.height if sideways else header.width
    record["height"] = header.width if sideways else header.height
    record["orientation"] = header.orientation
    record["format"], record["mode"] = header.format.encode(), header.mode.encode()
    flags = (_is_blank(image), BLANK), (header.animated, ANIMATED), (header.see_through, SEE_THROUGH)
    record["flags"] = sum(bit for holds, bit in flags if holds)
    return None


def format_of_name(name: str) -> str | None:
    """Return the format that the extension of a file's name stands for, as Pillow calls it; None where we read none."""
    return Image.registered_extensions().get(Path(name).suffix.lower()) if is_image_name(name) else None


def read_header(data: bytes) -> Header:
    """Return what the header of an image says.

    Raises:
        UnidentifiedImageError: it is of no format that we read.
        Image.DecompressionBombError: it states a size far beyond what is decoded.
        Exception: the header is damaged, in any of Pillow's ways to say so.
    """
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(data), formats=_formats()) as image,
    ):
        # Pillow decodes the whole image in search of a PNG's tag, and turns TIFF itself.
        has_tag = image.format not in ("PNG", "TIFF") or "exif" in image.info
        orientation = _orientation(image) if has_tag else 1
        # A JPEG with a second picture behind (MPO) has frames too, but is no animation.
        animated = image.format in ("GIF", "PNG", "WEBP") and getattr(image, "is_animated", False)
        return Header(
            format=image.format or "",
            mode=image.mode,
            width=image.width,
            height=image.height,
            orientation=orientation if orientation in _TURNED else 1,
            animated=animated,
            see_through=image.has_transparency_data,
        )


def _formats() -> tuple[str, ...]:
    # Those whose names we take for images, so that no file can reach a reader that runs another program (EPS).
    return tuple(sorted({name for end, name in Image.registered_extensions().items() if is_image_name(f"x{end}")}))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data; the pixels are sound
        return 1


def _is_blank(image: Image.Image) -> bool:
    extrema = image.getextrema()
    ranges = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(high - low <= _BLANK_RANGE for low, high in ranges)  # type: ignore[misc]


def _too_large(size: str) -> Broken:
    return Broken("too-large", f"{size} are above the limit of {MAX_PIXELS / 1e6:.0f} million that are decoded")


def _no_image(data: bytes) -> Broken:
    start = data[:512]
    if not data:
        return Broken("empty", "it is empty (0 bytes)")
    if not start.strip(b"\0"):
        return Broken("zeros", "it holds zeros, as after a broken copy")
    known = known_content(data)
    if known is not None:
        return Broken("not-an-image", f"it is {known}")
    if data[:2] == b"\xff\xd8" or data[:4] in (b"\x89PNG", b"GIF8", b"RIFF"):
        if _lacks_end(data):
            return Broken("truncated", "it is cut off: the file ends within its header")
        return Broken("damaged", "it begins as an image, but its header is damaged")
    return Broken("not-an-image", "it is not an image that can be read (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, …)")


def format_of_content(data: bytes) -> str | None:
    """Return the format of an image whose file begins with `data`: JPEG, PNG, GIF, WebP; None for all else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    magics = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n", "PNG"), (b"GIF8", "GIF"))
    return next((name for magic, name in magics if data.startswith(magic)), None)


_CONTENTS = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"8BPS", "a Photoshop document"),
    (4, b"ftyphe", "a HEIC photograph, which is not read here"),
    (4, b"ftypmif1", "a HEIF photograph, which is not read here"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image, which is not read here"),
    (0, b"\xff\x0a", "a JPEG XL image, which is not read here"),
    (4, b"ftyp", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` fetches the file"),
)


def known_content(data: bytes) -> str | None:
    """Return in words what bytes are that are no image we read; None where that is not known."""
    for offset, magic, what in _CONTENTS:
        if data[offset : offset + len(magic)] == magic:
            return what
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    low = start.lower()
    if low.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page (HTML), as a failed download leaves it"
    if b"<svg" in low:
        return "an SVG drawing, which is not read here"
    if low.startswith(b"<?xml"):
        return "an XML file"
    text = data[:512].decode("utf-8", "ignore")
    # A letter may be cut in two at the end.
    whole = len(data[:512]) - len(text.encode()) <= 3
    return "a text file" if text and whole and all(map(_belongs_in_text, text)) else None


def _belongs_in_text(letter: str) -> bool:
    return letter.isprintable() or letter.isspace()


def _undecodable(data: bytes, reason: str) -> Broken:
    """Return why an image whose header can be read cannot be decoded."""
    if "cut off" in reason or _lacks_end(data):
        return Broken("truncated", "it is cut off: the file ends before the image does")
    return Broken("damaged", reason)


def _lacks_end(data: bytes) -> bool:
    """Return whether a JPEG, PNG or WebP file is shorter than it says."""
    if data[:2] == b"\xff\xd8":
        return not jpeg_end.has_end(data)
    if data[:4] == b"\x89PNG":
        return b"IEND" not in data[-64:]
    if data[:4] == b"RIFF":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return False
