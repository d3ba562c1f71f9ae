"""From an image file to RGB or gray pixels, upright and of 8 bits, whatever the file's format and mode.

Transparent images are laid on white, the background on which most of them were drawn; 16-bit gray is scaled to
8 bits. Of an animation, the first frame is taken. Only the formats listed here are tried, so that no file can
reach a reader that runs another program (EPS).
"""

from __future__ import annotations

import contextlib
import io
import stat
import sys
import threading
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from resnets.data.raw_pixels import LARGEST_HEADER, RAW_MAGIC, raw_pixels, raw_shape
from resnets.specs.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

Source: TypeAlias = "str | Path | bytes | io.BufferedIOBase"
"""An encoded image: the path of its file, its content, or a seekable file of bytes."""

MAX_PIXELS = 178_956_970
"""Largest width x height that is decoded: where Pillow itself refuses, about half a gigabyte of RGB."""

_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
    "TGA": (".tga",),
    "ICO": (".ico",),
}
_EXTENSIONS = frozenset(extension for extensions in _FORMATS.values() for extension in extensions)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""


def is_image_name(name: str) -> bool:
    """Return whether a file name has the extension of a format that `read_image` reads, in any case."""
    return name[name.rfind(".") :].lower() in _EXTENSIONS


def read_image(
    source: Source,
    *,
    color: Literal["rgb", "gray"] = "rgb",
    max_pixels: int = MAX_PIXELS,
    at_least_px: int | None = None,
) -> Image.Image:
    """Return the image in `source` (a path, the content of a file, or a file), upright, in mode "RGB" or "L".

    The pixels of a `.npy` file (uint8, height x width x 3) are an image too. A width x height above `max_pixels` is
    refused from the header alone; Pillow's own limit holds as well.
    `at_least_px` allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, as long as the shorter side keeps this
    many pixels: several times faster for large photographs, with slightly other pixels.

    Raises:
        ImageError: the file cannot be read. The message is the reason alone; the caller knows which file it was.
    """
    with opened(source) as file:
        if magic(file) == RAW_MAGIC:
            return to_color(Image.fromarray(raw_pixels(content_of(file), max_pixels=max_pixels)), color)
        with image_errors(file, max_pixels):
            image = open_image(file, max_pixels)
            if at_least_px is not None:
                image.draft(None, (at_least_px, at_least_px))
            return load(image, color)


def read_size(source: Source) -> tuple[int, int] | None:
    """Return width and height of the image that `read_image` gives, from the header alone; None where it has none.

    An orientation that a PNG states behind its pixels is not seen.
    """
    try:
        with opened(source) as file:
            if magic(file) == RAW_MAGIC:
                size = file.seek(0, io.SEEK_END)
                file.seek(0)
                height, width, _ = raw_shape(file.read(LARGEST_HEADER), size=size, max_pixels=MAX_PIXELS)
                return width, height
            with _pillow_warnings_ignored():
                image = Image.open(cast("IO[bytes]", file), formats=_available_formats())
            # Pillow decodes the whole image in search of a PNG's tag, and turns TIFF itself.
            has_tag = image.format not in ("PNG", "TIFF") or "exif" in image.info
            sideways = has_tag and orientation_of(image) in SIDEWAYS
            return (image.height, image.width) if sideways else image.size
    except Exception:  # as many as in `image_errors`, where each becomes a reason
        return None


def to_color(image: Image.Image, color: Literal["rgb", "gray"]) -> Image.Image:
    """Return a decoded image of any mode as 8-bit "RGB" or "L", transparency laid on white.

    Raises:
        ImageError: the mode has no defined way to 8 bits.
    """
    mode = "L" if color == "gray" else "RGB"
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert(mode)
    if image.mode in ("I", "F"):
        raise ImageError("it has 32-bit pixels, whose range is not defined; convert it to 8 or 16 bits a channel")
    try:
        if image.has_transparency_data:
            # The premultiplied modes convert to their plain form only.
            plain = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain)
        return image.convert(mode)
    except ValueError as error:
        raise ImageError(f"its pixels are of mode {image.mode}, which cannot be converted to {mode}") from error


@contextlib.contextmanager
def opened(source: Source) -> Iterator[io.BufferedIOBase]:
    """Open what holds an encoded image, and close it if it was a path.

    Raises:
        ImageError: the path is no regular file that may be read.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        with _opened_path(Path(source)) as file:
            yield file
    else:
        yield source


def magic(file: io.BufferedIOBase) -> bytes:
    """Return the first six bytes of a file, by which its format is known.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        file.seek(0)
        return file.read(6)
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error})") from error


def content_of(file: io.BufferedIOBase) -> bytes:
    """Return the bytes of a file, of which no more are read than an image of `MAX_PIXELS` can need.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        file.seek(0)
        return file.read(3 * MAX_PIXELS + LARGEST_HEADER)
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error})") from error


def _opened_path(path: Path) -> io.BufferedReader:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise ImageError("it is a folder" if path.is_dir() else "it is not a regular file")
        return path.open("rb")
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except PermissionError:
        raise ImageError("permission to read the file is denied") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"the file cannot be opened ({error})") from error


def open_image(file: io.BufferedIOBase, max_pixels: int) -> Image.Image:
    """Return the image in `file`, of which the header is read. Raises as `image_errors` expects it."""
    file.seek(0)
    image = Image.open(cast("IO[bytes]", file), formats=_available_formats())
    if image.width * image.height > max_pixels:
        raise ImageError(too_large(f"{image.width} x {image.height}", max_pixels))
    return image


def load(image: Image.Image, color: Literal["rgb", "gray"]) -> Image.Image:
    """Return an opened image decoded, upright, in mode "RGB" or "L". Raises as `image_errors` expects it."""
    image.load()
    return _upright(to_color(image, color), orientation_of(image))


@contextlib.contextmanager
def image_errors(file: io.BufferedIOBase, max_pixels: int) -> Iterator[None]:
    """Turn what Pillow raises about an image into an `ImageError` that says why, and ignore its warnings."""
    try:
        with _pillow_warnings_ignored():
            yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(_unidentified(file)) from None
    except Image.DecompressionBombError:
        raise ImageError(too_large("its width x height", min(max_pixels, MAX_PIXELS))) from None
    # Pillow's readers answer damaged bytes with almost any exception: SyntaxError, struct.error, KeyError, …
    except Exception as error:
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise ImageError(f"it is cut off: the file ends before the image does ({error})") from error
        raise ImageError(f"it is damaged ({str(error) or type(error).__name__})") from error


def _available_formats() -> tuple[str, ...]:
    if "TIFF" not in Image.OPEN:
        Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def too_large(size: str, limit: int) -> str:
    """Say that an image is too large."""
    return f"it is too large: {size} is above the limit of {limit / 1e6:.0f} million pixels"


def _unidentified(file: io.BufferedIOBase) -> str:
    file.seek(0)
    start = file.read(512)
    if not start:
        return "it is empty (0 bytes)"
    if not start.strip(b"\0"):
        return "it holds no image: it begins with zeros, as after a broken copy"
    if start.isascii() and b"\0" not in start:
        return "it is a text file, not an image"
    return "it is not an image that can be read (JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, …), or its header is damaged"


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 ... 8, of an opened image; 1 where it has none."""
    # Asked after load(): some formats keep the tag behind the pixels, and Pillow turns TIFF itself and drops the tag.
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data, in as many ways as damaged images; the pixels are sound
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info.clear()  # the tag goes with the rotation it asked for
    return turned


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    return ((pixels.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)


_warnings_lock = threading.Lock()
_warnings_depth = 0
_warnings_saved: warnings.catch_warnings | None = None


@contextlib.contextmanager
def _pillow_warnings_ignored() -> Iterator[None]:
    """Ignore Pillow's warnings about files (odd metadata, large sizes), while any thread decodes.

    `warnings.catch_warnings` alone is not safe in threads: two that overlap can leave the filter behind. The first
    to come sets it, the last to go removes it.
    """
    global _warnings_depth, _warnings_saved
    with _warnings_lock:
        if _warnings_depth == 0:
            _warnings_saved = warnings.catch_warnings()
            _warnings_saved.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _warnings_depth += 1
    try:
        yield
    finally:
        with _warnings_lock:
            _warnings_depth -= 1
            if _warnings_depth == 0 and _warnings_saved is not None:
                _warnings_saved.__exit__(*sys.exc_info())
                _warnings_saved = None
