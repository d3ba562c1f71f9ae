"""The first rows of a JPEG, at full size or a fraction of it, faster than Pillow decodes the whole image.

A photograph is stored from top to bottom, and to undo its compression takes most of the time to read it. Here, decoding
ends below the last row that is asked for: the header is given to the decoder with a smaller height. Only the usual kind
of file is read: sequential Huffman coding in one scan, 8 bits, gray or with three components, complete to its end
marker. `SequentialJpeg.parse` decides from the file alone; all others are left to Pillow. Pixels are those of Pillow,
bit by bit: both decode with libjpeg-turbo in its accurate mode.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

try:
    import simplejpeg
except ImportError:  # it has no wheel for this platform
    simplejpeg = None

from resnets.specs.errors import ImageError

if TYPE_CHECKING:
    from jaxtyping import UInt8

DIVISORS = (8, 4, 2, 1)
"""A JPEG can be decoded at 1 / divisor of its width and height, each rounded up."""

SMALLEST_DIVIDED_PX = 64
"""Shorter side below which a JPEG is always decoded in full."""

JPEG_MAGIC = b"\xff\xd8\xff"

_BASELINE, _EXTENDED = 0xC0, 0xC1
_TABLES_AMONG_FRAMES = frozenset({0xC4, 0xC8, 0xCC})
_START_OF_SCAN = 0xDA
_APPLICATION_0, _APPLICATION_1, _APPLICATION_2, _APPLICATION_13, _APPLICATION_14 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE
_END_OF_IMAGE = b"\xff\xd9"
# In a scan, a zero or the number of a restart follows 255, or another 255.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SEARCHED_AT_ONCE = 1 << 17
"""Bytes of a scan: its comparisons stay in a core's own cache."""
# Of the first component; the others have one sample where it has these: 4:4:4, 4:2:2, 4:4:0, 4:2:0 and 4:1:1.
_SAMPLINGS = frozenset({0x11, 0x21, 0x12, 0x22, 0x41})
_ROWS_A_BLOCK = 16
"""Most rows that are coded together at these samplings."""
_LARGEST_SIDE = 65_500
"""Of libjpeg, in pixels. A larger height would be refused, and would not be where decoding ends further up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SequentialJpeg:
    """A JPEG of the kind that is decoded here, before it is."""

    content: bytes
    width: int
    """As stored, before any rotation, in pixels."""
    height: int
    components: int
    """1: gray, 3: colours."""
    height_at: int
    """Where the header says the height, in two bytes."""
    has_application_data: bool
    """Whether there is EXIF data and the like, in which Pillow may find a rotation, or a reason to refuse the file."""

    @classmethod
    def parse(cls, content: bytes) -> SequentialJpeg | None:
        """Return the header of a complete file of this kind; None for every other content, and without the decoder."""
        if simplejpeg is None or not content.startswith(JPEG_MAGIC):
            return None
        frame_at, has_application_data = 0, False
        place = 2
        while place + 4 <= len(content) and content[place] == 0xFF:
            marker = content[place + 1]
            if marker == 0xFF:  # fill bytes may precede a marker
                place += 1
                continue
            if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:  # has no length, and no place in a header
                return None
            end = place + 2 + int.from_bytes(content[place + 2 : place + 4])
            if marker == _START_OF_SCAN:
                if not frame_at or not _is_whole_scan(content[place + 4 : end], content[frame_at + 9]):
                    return None
                if _marker_after_scan(content, end) != _END_OF_IMAGE:
                    return None
                height, width = struct.unpack_from(">HH", content, frame_at + 5)
                return cls(
                    content=content,
                    width=width,
                    height=height,
                    components=content[frame_at + 9],
                    height_at=frame_at + 5,
                    has_application_data=has_application_data,
                )
            if 0xC0 <= marker <= 0xCF and marker not in _TABLES_AMONG_FRAMES:
                if frame_at or marker not in (_BASELINE, _EXTENDED) or not _is_usual_frame(content[place + 4 : end]):
                    return None
                frame_at = place
            if _is_odd_application(marker, content[place + 4 : min(end, place + 20)]):
                return None
            has_application_data |= _is_read_by_pillow(marker, content[place + 4 : min(end, place + 20)])
            place = end
        return None

    def rows(self, end: int, divisor: int) -> UInt8[np.ndarray, "rows width c"]:
        """Return at least the rows before `end` of the image at 1 / divisor of its size: gray or RGB, as it is stored.

        Damage is treated as Pillow treats it: an error where decoding cannot begin; behind that, the decoder goes on
        with other pixels.

        Raises:
            ImageError: the file is damaged.
        """
        assert simplejpeg is not None
        # The chroma of a row is interpolated from the block below, so that one is decoded too.
        blocks = -(-end * divisor // _ROWS_A_BLOCK) + 1
        height = min(self.height, blocks * _ROWS_A_BLOCK)
        content = self.content
        if height < self.height:
            content = b"".join(
                (content[: self.height_at], height.to_bytes(2), memoryview(content)[self.height_at + 2 :])
            )
        try:
            return simplejpeg.decode_jpeg(
                content,
                colorspace="GRAY" if self.components == 1 else "RGB",
                min_height=0 if divisor == 1 else -(-height // divisor),
                min_width=0 if divisor == 1 else -(-self.width // divisor),
                # What follows the last row is a warning. In this mode, an error that follows a warning is lost; here
                # none can: the scan has no markers that could be read as anything else.
                strict=False,
            )
        except ValueError as error:
            raise ImageError(f"it is damaged ({error})") from error


def divisors(width: int, height: int) -> tuple[int, ...]:
    """Return by what the sides of a JPEG can be divided, the largest first.

    >>> divisors(4000, 3000)
    (8, 4, 2, 1)
    >>> divisors(40, 30)
    (1,)
    """
    return DIVISORS if min(width, height) >= SMALLEST_DIVIDED_PX else (1,)


def _marker_after_scan(content: bytes, begin: int) -> bytes | None:
    """Return the first marker from `begin` on that cannot be in a scan, in two bytes; None if there is none.

    Where it may begin is found by NumPy: four times as fast as the expression, and other threads go on meanwhile.
    """
    data = np.frombuffer(content, np.uint8)
    last = len(content) - 1
    for start in range(begin, last, _SEARCHED_AT_ONCE):
        end = min(start + _SEARCHED_AT_ONCE, last)
        may_begin = data[start:end] == 0xFF
        may_begin &= data[start + 1 : end + 1] != 0
        if may_begin.any():
            found = _MARKER_AFTER_SCAN.search(content, start + int(may_begin.argmax()))
            return None if found is None else found[0]
    return None


def _is_usual_frame(frame: bytes) -> bool:
    """Return whether the decoder reads this kind of frame: 8 bits, a size, one or three components, usual sampling."""
    if (
        len(frame) < 6
        or frame[0] != 8
        or not all(0 < side <= _LARGEST_SIDE for side in struct.unpack(">HH", frame[1:5]))
    ):
        return False
    samplings = frame[7::3]
    if len(frame) != 6 + 3 * frame[5]:
        return False
    return len(samplings) == 1 or (len(samplings) == 3 and samplings[0] in _SAMPLINGS and samplings[1:] == b"\x11\x11")


def _is_odd_application(marker: int, data: bytes) -> bool:
    """Return whether these bytes make the decoder warn, which it cannot be told to ignore, or make Pillow refuse."""
    if marker == _APPLICATION_0 and data.startswith(b"JFIF"):
        return len(data) < 7 or data[4:6] != b"\0\1"  # the version of JFIF
    if marker == _APPLICATION_2 and data.startswith(b"ICC_PROFILE\0"):
        return len(data) < 14  # which part of how many
    return marker == _APPLICATION_14 and data.startswith(b"Adobe") and data[11:12] not in (b"\0", b"\1")  # the colours


def _is_read_by_pillow(marker: int, data: bytes) -> bool:
    """Return whether Pillow looks into this application data: EXIF and XMP, several images in one, Photoshop's."""
    return (
        marker == _APPLICATION_1
        or (marker == _APPLICATION_2 and data.startswith(b"MPF\0"))
        or (marker == _APPLICATION_13 and data.startswith(b"Photoshop"))
    )


def _is_whole_scan(scan: bytes, components: int) -> bool:
    """Return whether the scan has all components and all of their coefficients."""
    return len(scan) == 4 + 2 * components and scan[0] == components and scan[-3:] == b"\x00\x3f\x00"
