"""Images that are stored as their pixels: NumPy's `.npy` format, of uint8 (height, width, 3) alone.

Such a file is as large as its image is, and a crop of it is read without decoding the rest. The header is checked here
and never evaluated: NumPy's own reader also knows formats that run code.
"""

import re

import numpy as np
from jaxtyping import UInt8

from resnets.specs.errors import ImageError

RAW_MAGIC = b"\x93NUMPY"

_VERSION = b"\x01\x00"
_START = 10
_SHAPE = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \(([1-9]\d{0,8}), ([1-9]\d{0,8}), 3\), \} *\n"
)
LARGEST_HEADER = 1024
"""What NumPy writes has 118 bytes."""


def raw_shape(start: bytes, *, size: int, max_pixels: int) -> tuple[int, int, int]:
    """Return height, width and the place of the first pixel, from the first bytes of a `.npy` file of `size` bytes.

    Raises:
        ImageError: it holds anything but one RGB image, has too many pixels, or is shorter or longer than it says.
    """
    end = _START + int.from_bytes(start[8:_START], "little")
    found = _SHAPE.fullmatch(start[_START:end]) if start[6:8] == _VERSION and end <= LARGEST_HEADER else None
    if found is None:
        raise ImageError("it is an array that is no image: raw images are uint8 (height, width, 3), .npy version 1.0")
    height, width = int(found[1]), int(found[2])
    if height * width > max_pixels:
        limit = f"{max_pixels / 1e6:.0f} million pixels"
        raise ImageError(f"it is too large: {width} x {height} is above the limit of {limit}")
    expected = end + height * width * 3
    if size < expected:
        raise ImageError(f"it is cut off: the file ends before the image does ({size} of {expected} bytes)")
    if size > expected:
        raise ImageError(f"it is damaged ({size - expected} bytes follow the image)")
    return height, width, end


def raw_pixels(content: bytes, *, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels in the content of a `.npy` file; they are not copied, and cannot be written to.

    Raises:
        ImageError: as `raw_shape`.
    """
    height, width, start = raw_shape(content[:LARGEST_HEADER], size=len(content), max_pixels=max_pixels)
    return np.frombuffer(content, np.uint8, offset=start).reshape(height, width, 3)
