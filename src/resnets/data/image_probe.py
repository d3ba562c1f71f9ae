"""What one image file is, from its bytes: can it be read whole, and if so its size, colours, hash and oddities.

An image is decoded once, by the code that reads its split in a run, so that what ends or refuses that code is found.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from resnets.data import jpeg_end
from resnets.data.decode import MAX_PIXELS, SIDEWAYS, is_image_name, open_image, orientation_of, read_image
from resnets.data.file_content import known_content
from resnets.data.image_hash import HASHED_PX, THUMBNAIL_PX, perceptual_hash
from resnets.data.jpeg import DIVISORS
from resnets.data.raw_pixels import LARGEST_HEADER, RAW_MAGIC, raw_shape
from resnets.data.window import Window, open_encoded
from resnets.specs.errors import ImageError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BROKEN, BLANK, ANIMATED, SEE_THROUGH = 1, 2, 4, 8
"""Bits of a record's `flags`."""

RAW = "raw"
"""Format of pixels that are stored as they are, as shards can hold them."""

RECORD = np.dtype(
    [
        ("digest", "<u8", (2,)),
        ("hashes", "<u8", (2,)),
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

TRAINED_PX = 720
"""A JPEG's shorter side is decoded at no less than this: what training needs for the largest of the paper's crops."""

# A JPEG's shorter side is reduced to no less than this: enough for the hash.
_HASHED_FROM_PX = 64
_BLANK_RANGE = 4

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


def probe_batch(
    batch: Sequence[tuple[bool, Callable[[], bytes]]],
) -> tuple[np.ndarray, list[tuple[int, Broken]]]:
    """Return the records (`RECORD`) of some images, and those that are broken, by their place in the batch.

    Of each image, whether training reads it is given, and a function that returns the bytes of its file.
    """
    records = np.zeros(len(batch), RECORD)
    broken = []
    for place, (trained, read) in enumerate(batch):
        try:
            data = read()
        except UserError as error:
            if not isinstance(error, ImageError):  # a server that is gone says nothing about the image
                raise
            found: Broken | None = Broken("unreadable", str(error))
        except Exception as error:  # of whatever the images are read from
            found = Broken("unreadable", f"reading it failed: {str(error) or type(error).__name__}")
        else:
            found = probe(data, records[place : place + 1], trained=trained)
        if found is not None:
            records["flags"][place] = BROKEN
            broken.append((place, found))
    return records, broken


def probe(data: bytes, record: np.ndarray, *, trained: bool = True) -> Broken | None:
    """Fill the one record (of type `RECORD`) of an image from its file's bytes, or return why it is broken.

    Args:
        data: content of the file.
        record: to fill.
        trained: decode the image as training does, rather than with Pillow, as evaluation does.
    """
    record["digest"] = np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), "<u8")
    record["bytes"] = len(data)
    try:
        header = read_header(data)
        if header.width * header.height > MAX_PIXELS:
            return _too_large(f"{header.width:,} x {header.height:,} pixels")
        image = _decoded(data, trained=trained)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        return _too_large(f"{int(pixels[0]) / 1e6:,.0f} million pixels" if pixels else "its pixels")
    except UnidentifiedImageError:
        return _no_image(data)
    except ImageError as error:
        return _undecodable(data, str(error))
    except Exception as error:  # damaged headers raise almost anything
        return _undecodable(data, f"its header is damaged ({str(error) or type(error).__name__})")
    if header.format in ("JPEG", "MPO"):
        if (not jpeg_end.has_end(data) or jpeg_end.has_gray_corner(image)) and jpeg_end.stops_early(data):
            return Broken("truncated", "its pixels stop early: decoders fill up the rest")
        image = _reduced(image, header)
    gray = image.convert("L").resize((HASHED_PX, HASHED_PX), Image.Resampling.BOX, reducing_gap=2.0)
    record["hashes"] = perceptual_hash(np.asarray(gray))
    thumbnail = gray.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    record["thumbnail"] = np.asarray(thumbnail).reshape(-1)
    sideways = header.orientation in SIDEWAYS
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
    if data.startswith(RAW_MAGIC):
        height, width, _ = raw_shape(data[:LARGEST_HEADER], size=len(data), max_pixels=sys.maxsize)
        return Header(RAW, "RGB", width, height, orientation=1, animated=False, see_through=False)
    with warnings.catch_warnings(action="ignore"), open_image(io.BytesIO(data), sys.maxsize) as image:
        # Pillow decodes the whole image in search of a PNG's tag, and turns TIFF itself.
        has_tag = image.format not in ("PNG", "TIFF") or "exif" in image.info
        orientation = orientation_of(image) if has_tag else 1
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


def _decoded(data: bytes, *, trained: bool) -> Image.Image:
    """Return the image upright and in RGB, a large JPEG at 1/2, 1/4 or 1/8; the pixels are those of either reader.

    Raises:
        ImageError: the reader that a run has for it refuses it.
    """
    if trained:
        with open_encoded(data, color="rgb") as encoded:
            divisor = _divisor(encoded.width, encoded.height, TRAINED_PX, encoded.divisors)
            whole = Window(divisor, 0, 0, -(-encoded.width // divisor), -(-encoded.height // divisor))
            return Image.fromarray(encoded.pixels(whole))
    return read_image(data, at_least_px=TRAINED_PX)


def _reduced(image: Image.Image, header: Header) -> Image.Image:
    """Return a JPEG at up to 1/8 of its size in all, less what its decoder has done of that."""
    divisor = _divisor(header.width, header.height, _HASHED_FROM_PX, DIVISORS)
    factor = divisor * max(image.size) // max(header.width, header.height)
    return image.reduce(factor) if factor > 1 else image


def _divisor(width: int, height: int, at_least_px: int, divisors: Sequence[int]) -> int:
    return next(divisor for divisor in divisors if min(width, height) >= divisor * at_least_px or divisor == 1)


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
