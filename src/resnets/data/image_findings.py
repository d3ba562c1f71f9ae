"""What is odd about single images: size, aspect, colour, extension, orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from resnets.data.findings import Finding
from resnets.data.image_probe import ANIMATED, BLANK, BROKEN, RAW, SEE_THROUGH, format_of_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TURNS = {
    2: "mirrored",
    3: "upside down",
    4: "upside down and mirrored",
    5: "on its side and mirrored",
    6: "on its side",
    7: "on its side and mirrored",
    8: "on its side",
}
_UNUSUAL_MODES = {
    "CMYK": "CMYK, the colours of print",
    "YCbCr": "YCbCr",
    "LAB": "Lab",
    "HSV": "HSV",
    "1": "black and white, 1 bit a pixel",
    "P": "a palette of at most 256 colours",
    "I": "gray of 16 bits",
}


def image_findings(paths: Sequence[str], records: np.ndarray, *, min_px: int, max_aspect: float) -> Iterator[Finding]:
    """Yield what is odd about each image that can be read.

    Args:
        paths: of the images, in reports.
        records: of `image_probe.RECORD`, in the same order.
        min_px: shorter side below which an image is tiny.
        max_aspect: longer side : shorter side above which it is extreme.
    """
    sound = (records["flags"] & BROKEN) == 0
    width, height = records["width"].astype(np.int64), records["height"].astype(np.int64)
    shorter, longer = np.minimum(width, height), np.maximum(width, height)

    def where(condition: np.ndarray) -> list[int]:
        return np.flatnonzero(sound & condition).tolist()

    def finding(kind: str, index: int, detail: str) -> Finding:
        return Finding(kind=kind, paths=(paths[index],), detail=detail)

    for index in where(shorter < min_px):
        yield finding("tiny", index, f"{width[index]} x {height[index]} pixels")
    for index in where(longer > max_aspect * shorter):
        ratio = longer[index] / shorter[index]
        yield finding("extreme-aspect", index, f"{width[index]} x {height[index]} pixels, {ratio:.0f} to 1")
    for index in where((records["flags"] & BLANK) != 0):
        yield finding("blank", index, f"{width[index]} x {height[index]} pixels of one colour")
    for index in where(records["orientation"] > 1):
        turn = int(records["orientation"][index])
        yield finding("rotated", index, f"stored {_TURNS[turn]} (orientation {turn})")
    for index in where((records["flags"] & ANIMATED) != 0):
        yield finding("animated", index, f"a {records['format'][index].decode()} of several frames")
    yield from _color_modes(paths, records, sound)
    yield from _extensions(paths, records, sound)


def _color_modes(paths: Sequence[str], records: np.ndarray, sound: np.ndarray) -> Iterator[Finding]:
    for mode in np.unique(records["mode"][sound]):
        name = mode.decode()
        unusual = "gray of 16 bits" if name.startswith("I;16") else _UNUSUAL_MODES.get(name)
        # A GIF has a palette by its nature.
        of_mode = sound & (records["mode"] == mode) & ~((records["format"] == b"GIF") & (mode == b"P"))
        see_through = (records["flags"] & SEE_THROUGH) != 0
        for index in np.flatnonzero(of_mode if unusual else of_mode & see_through).tolist():
            parts = [unusual] if unusual else []
            parts += ["transparency"] if see_through[index] else []
            yield Finding(kind="color-mode", paths=(paths[index],), detail=f"{' with '.join(parts)} ({name})")


def _extensions(paths: Sequence[str], records: np.ndarray, sound: np.ndarray) -> Iterator[Finding]:
    formats = {name: {"MPO": "JPEG", "DIB": "BMP"}.get(name.decode(), name.decode()) for name in set(records["format"])}
    expected: dict[str, str | None] = {}
    for index in np.flatnonzero(sound).tolist():
        path = paths[index]
        extension = path[path.rfind(".") :]
        if extension not in expected:
            expected[extension] = format_of_name(f"x{extension}")
        named, found = expected[extension], formats[records["format"][index]]
        if named is not None and found != RAW and {"DIB": "BMP"}.get(named, named) != found:
            yield Finding(
                kind="wrong-extension", paths=(path,), detail=f"its content is {found}, its name says {named}"
            )
