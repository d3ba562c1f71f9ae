"""Whether the pixel data of a JPEG stops before its picture does.

Decoders do not refuse every such file. Where the end-of-image marker follows too early, the rest of the picture is
filled with mid-gray; where a half-copied file ends in zeros, these are decoded as if they were pixels.
"""

from __future__ import annotations

import hashlib
import io
import warnings

from PIL import Image

_END = b"\xff\xd9"
_START_OF_SCAN = 0xDA
# Bytes that mean something as entropy-coded data, without a marker in them; and with those that begin it anew, which a
# decoder that stands at the end of a restart interval waits for.
_FILLING = hashlib.shake_128(b"more pixels").digest(2048).replace(b"\xff", b"\x5a")
_RESTARTS = b"".join(bytes((0xFF, 0xD0 + number)) + _FILLING[:64] for number in range(8))
_MID_GRAY = range(127, 130)
_MOST_COLOR = 32
"""Of 255, that a filled corner takes from its neighbours, since colours are interpolated in decoding."""


def has_end(data: bytes) -> bool:
    """Return whether a JPEG has an end-of-image marker behind the beginning of its pixels."""
    # From the end, where it is: from the beginning, every byte of the pixels would be looked at.
    return data.rfind(_END, _start_of_pixels(data)) >= 0


def has_gray_corner(image: Image.Image) -> bool:
    """Return whether a corner of an RGB image, as it was decoded, has the gray with which a decoder fills what lacks."""
    right, bottom = image.width - 1, image.height - 1
    corners = [image.crop((x, y, x + 1, y + 1)) for x in (0, right) for y in (0, bottom)]
    return any(
        corner.convert("L").getpixel((0, 0)) in _MID_GRAY
        and all(abs(value - 128) <= _MOST_COLOR for value in corner.tobytes())
        for corner in corners
    )


def stops_early(data: bytes) -> bool:
    """Return whether a decodable JPEG lacks pixel data at its end; decodes it up to three times.

    More data in front of the end marker changes no pixel of a complete picture, for a decoder stops at the last
    block; it does change one that lacks blocks.
    """
    end = data.rfind(_END, _start_of_pixels(data))
    body = (data[:end] if end >= 0 else data.rstrip(b"\0")).rstrip(b"\xff")
    as_it_is = _pixels(body + _END)
    return as_it_is is not None and any(_pixels(body + more + _END) != as_it_is for more in (_FILLING, _RESTARTS))


def _start_of_pixels(data: bytes) -> int:
    """Return the offset behind the header of the first scan, or 2 where there is none."""
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        if marker == _START_OF_SCAN:
            return offset
    return 2


def _pixels(data: bytes) -> bytes | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return image.tobytes()
    except Exception:  # damaged bytes raise almost anything
        return None
