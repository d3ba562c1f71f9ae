"""A part of an encoded image, without decoding more of the rest than it takes."""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image

from resnets.data.decode import (
    MAX_PIXELS,
    SIDEWAYS,
    content_of,
    image_errors,
    load,
    magic,
    open_image,
    opened,
    orientation_of,
    to_color,
    too_large,
)
from resnets.data.jpeg import JPEG_MAGIC, SequentialJpeg, divisors
from resnets.data.raw_pixels import RAW_MAGIC, raw_pixels
from resnets.specs.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import UInt8

    from resnets.data.decode import Source

Color = Literal["rgb", "gray"]

# Rows from below, columns from the right, then rows and columns exchanged: how a stored image becomes upright.
_TURNS = {
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}


class Window(NamedTuple):
    """Which pixels: half-open, in whole pixels of the upright image at 1 / divisor of its size."""

    divisor: int
    left: int
    top: int
    right: int
    bottom: int


class EncodedImage(ABC):
    """An image of which only the header is known yet."""

    width: int
    """Of the upright image, in pixels."""
    height: int
    """Of the upright image, in pixels."""
    divisors: tuple[int, ...] = (1,)
    """By what the sides may be divided in decoding, the largest first; the results are rounded up."""

    @abstractmethod
    def pixels(self, window: Window) -> UInt8[np.ndarray, "h w *rgb"]:
        """Decode, once, and return the pixels of a window: RGB, or (h, w) of a gray image; they may be read-only.

        Raises:
            ImageError: the file is cut off or damaged.
        """


@contextlib.contextmanager
def open_encoded(source: Source, *, color: Color, max_pixels: int = MAX_PIXELS) -> Iterator[EncodedImage]:
    """Open the image in `source`; `color` is what its pixels are converted to.

    Raises:
        ImageError: the file cannot be read, or has more than `max_pixels`; the message is the reason.
    """
    with opened(source) as file:
        start = magic(file)
        if start == RAW_MAGIC:
            yield _RawImage(raw_pixels(content_of(file), max_pixels=max_pixels), color)
        elif start.startswith(JPEG_MAGIC) and (jpeg := SequentialJpeg.parse(content_of(file))) is not None:
            yield _FastImage(jpeg, color, max_pixels)
        else:
            yield _PillowImage(file, color, max_pixels)


class _RawImage(EncodedImage):
    def __init__(self, pixels: UInt8[np.ndarray, "h w 3"], color: Color) -> None:
        self.height, self.width, _ = pixels.shape
        self._pixels = pixels
        self._color: Color = color

    def pixels(self, window: Window) -> UInt8[np.ndarray, "h w *rgb"]:
        return _in_color(self._pixels[window.top : window.bottom, window.left : window.right], self._color)


class _FastImage(EncodedImage):
    def __init__(self, jpeg: SequentialJpeg, color: Color, max_pixels: int) -> None:
        if jpeg.width * jpeg.height > max_pixels:
            raise ImageError(too_large(f"{jpeg.width} x {jpeg.height}", max_pixels))
        self._jpeg = jpeg
        self._color: Color = color
        self._max_pixels = max_pixels
        self._orientation = _jpeg_orientation(jpeg, max_pixels)
        self.width, self.height = jpeg.width, jpeg.height
        if self._orientation in SIDEWAYS:
            self.width, self.height = jpeg.height, jpeg.width
        self.divisors = divisors(jpeg.width, jpeg.height)

    def pixels(self, window: Window) -> UInt8[np.ndarray, "h w *rgb"]:
        from_below, from_right, exchanged = _TURNS.get(self._orientation, (False, False, False))
        divisor, left, top, right, bottom = window
        if exchanged:
            left, top, right, bottom = top, left, bottom, right
        width, height = -(-self._jpeg.width // divisor), -(-self._jpeg.height // divisor)
        if from_below:
            top, bottom = height - bottom, height - top
        if from_right:
            left, right = width - right, width - left
        try:
            rows = self._jpeg.rows(bottom, divisor)
        except ImageError:  # Pillow has the last word: it reads some files that are only odd, such as in their profile
            return _PillowImage(io.BytesIO(self._jpeg.content), self._color, self._max_pixels).pixels(window)
        part = _in_color(rows[top:bottom, left:right], self._color)
        part = part[:: -1 if from_below else 1, :: -1 if from_right else 1]
        return part.swapaxes(0, 1) if exchanged else part


class _PillowImage(EncodedImage):
    def __init__(self, file: io.BufferedIOBase, color: Color, max_pixels: int) -> None:
        self._file = file
        self._color: Color = color
        self._max_pixels = max_pixels
        with image_errors(file, max_pixels):
            self._image = open_image(file, max_pixels)
            self._is_jpeg = self._image.format in ("JPEG", "MPO")
            if self._is_jpeg:
                self.divisors = divisors(*self._image.size)
                self.width, self.height = self._image.size
                if orientation_of(self._image) in SIDEWAYS:
                    self.width, self.height = self.height, self.width
            else:  # others may tell their orientation behind the pixels
                self._image = load(self._image, color)
                self.width, self.height = self._image.size

    def pixels(self, window: Window) -> UInt8[np.ndarray, "h w *rgb"]:
        if self._is_jpeg:
            with image_errors(self._file, self._max_pixels):
                if window.divisor > 1:
                    self._image.draft(None, (self._image.width // window.divisor, self._image.height // window.divisor))
                self._image = load(self._image, self._color)
        return np.asarray(self._image.crop(window[1:]))


def _jpeg_orientation(jpeg: SequentialJpeg, max_pixels: int) -> int:
    if not jpeg.has_application_data:
        return 1
    file = io.BytesIO(jpeg.content)
    with image_errors(file, max_pixels):
        return orientation_of(open_image(file, max_pixels))


def _in_color(pixels: UInt8[np.ndarray, "h w c"], color: Color) -> UInt8[np.ndarray, "h w *rgb"]:
    stored: Color = "gray" if pixels.shape[2] == 1 else "rgb"
    pixels = pixels[:, :, 0] if stored == "gray" else pixels
    return pixels if stored == color else np.asarray(to_color(Image.fromarray(pixels), color))
