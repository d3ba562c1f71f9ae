"""Error curves as text: dots of Braille characters, or letters where the terminal's encoding lacks them."""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from resnets.report.curves import colors, line_ends, smoothed, spread, top_of_axis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resnets.report.curves import Curve

# The xterm colours nearest to `curves.COLORS`; black is left to the terminal's own foreground.
_ANSI = ("38;5;208", "38;5;33", "38;5;36", "38;5;175", "38;5;214", "38;5;117", "39")
_BRAILLE_BLANK = 0x2800
# Bits of the eight dots of a Braille character, by row and column.
_BRAILLE_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_SMOOTHING_POINTS = 5


def plot_in_terminal(
    curves: Sequence[Curve],
    width: int = 80,
    height: int = 18,
    *,
    color: bool | None = None,
    unicode: bool | None = None,
) -> str:
    """Return the error of each net over the run as text: test error solid, training error dotted.

    Args:
        curves: what to plot, at least one curve; training errors are averaged over five points.
        width: characters of a line, at least 40.
        height: lines, at least 8, the key included.
        color: colour with ANSI sequences; None asks stdout and NO_COLOR.
        unicode: use characters outside ASCII; None asks stdout's encoding.

    Raises:
        ValueError: there are no curves, or the size is too small.
    """
    if not curves:
        raise ValueError("there are no curves to plot.")
    if width < 40 or height < 8:
        raise ValueError(f"the plot is {width} x {height} characters; it needs at least 40 x 8.")
    color = _stdout_has_color() if color is None else color
    unicode = _stdout_can_show("⣿┤─") if unicode is None else unicode
    ends = {label: f"{label} {error:.2f} %" for label, error in line_ends(curves).items()}
    left, right = 6, 1 + max(map(len, ends.values()))
    top, last_step = top_of_axis(curves), max(curve.steps[-1] for curve in curves)
    # Below the canvas: the x axis, its numbers, the key.
    canvas = _Canvas(rows=height - 3, columns=width - left - right, unicode=unicode)
    for curve in sorted(curves, key=lambda curve: curve.kind != "train"):
        errors = smoothed(curve.errors, _SMOOTHING_POINTS) if curve.kind == "train" else curve.errors
        canvas.draw(
            np.asarray(curve.steps) / last_step,
            np.asarray(errors) / top,
            pen=colors(curves)[curve.label],
            dotted=curve.kind == "train",
        )
    lines = canvas.lines(color)
    names = _names(curves, ends, canvas.rows, top, color)
    scale = _y_scale(canvas.rows, top, "┤" if unicode else "|")
    body = [number + line + names.get(row, "") for row, (number, line) in enumerate(zip(scale, lines, strict=True))]
    return "\n".join([*body, *_x_axis(canvas.columns, left, last_step, unicode), _key(curves, color, unicode)])


@dataclass(slots=True)
class _Canvas:
    """Dots that become characters; (0, 0) is the top left dot."""

    rows: int
    columns: int
    unicode: bool
    _dots: np.ndarray = field(init=False)
    _pens: np.ndarray = field(init=False)
    """The last pen that touched each character, -1 for none."""
    _solid: np.ndarray = field(init=False)
    """Whether that was a solid line."""

    def __post_init__(self) -> None:
        """Make everything blank."""
        tall, wide = self._dots_a_character
        self._dots = np.zeros((self.rows * tall, self.columns * wide), bool)
        self._pens = np.full((self.rows, self.columns), -1)
        self._solid = np.zeros((self.rows, self.columns), bool)

    @property
    def _dots_a_character(self) -> tuple[int, int]:
        return (4, 2) if self.unicode else (1, 1)

    def draw(self, x: np.ndarray, y: np.ndarray, *, pen: int, dotted: bool) -> None:
        """Draw a line through points of the unit square, y upwards; what lies above it is left out."""
        tall, wide = self._dots_a_character
        dot_rows, dot_columns = self._dots.shape
        at = np.arange(dot_columns)
        heights = np.interp(at / (dot_columns - 1), x, y, left=np.nan)
        rows = np.round((1 - heights) * (dot_rows - 1))
        for column in at[np.isfinite(rows)]:
            if dotted and column % (2 * wide) >= wide:
                continue
            row = int(rows[column])
            before = rows[column - 1] if column and np.isfinite(rows[column - 1]) and not dotted else row
            # From the middle between this dot and the one before, so that a steep line has no gaps.
            start, stop = sorted((row, int((row + before) / 2)))
            for dot in range(max(start, 0), min(stop, dot_rows - 1) + 1):
                self._dots[dot, column] = True
                cell = dot // tall, column // wide
                self._pens[cell], self._solid[cell] = pen, not dotted

    def lines(self, color: bool) -> Iterator[str]:
        """Yield the rows as text."""
        for row in range(self.rows):
            pens = self._pens[row]
            yield "".join(
                _painted("".join(self._character(row, column) for column in columns), pen, color)
                for pen, columns in itertools.groupby(range(self.columns), key=lambda column: int(pens[column]))
            )

    def _character(self, row: int, column: int) -> str:
        pen = int(self._pens[row, column])
        if pen < 0:
            return " "
        if not self.unicode:
            return _letter(pen, solid=bool(self._solid[row, column]))
        dots = self._dots[4 * row : 4 * row + 4, 2 * column : 2 * column + 2]
        return chr(_BRAILLE_BLANK + int((dots * _BRAILLE_DOTS).sum()))


def _letter(pen: int, *, solid: bool) -> str:
    """Return the ASCII mark of a net: a capital for its test error, the small letter for training."""
    return "ABCDEFG"[pen] if solid else "abcdefg"[pen]


def _painted(text: str, pen: int, color: bool) -> str:
    return f"\x1b[{_ANSI[pen]}m{text}\x1b[0m" if color and pen >= 0 else text


def _names(curves: Sequence[Curve], ends: dict[str, str], rows: int, top: float, color: bool) -> dict[int, str]:
    """Return the text at the end of each row that has one: the net whose line ends there."""
    last = line_ends(curves)
    from_below = spread([min(error, top) / top * (rows - 1) for error in last.values()], gap=1.0, top=float(rows - 1))
    return {
        rows - 1 - int(height + 0.5): " " + _painted(ends[label], colors(curves)[label], color)
        for label, height in zip(last, from_below, strict=True)
    }


def _y_scale(rows: int, top: float, mark: str) -> list[str]:
    """Return the left margin of each row, six characters, with a number at every third row or rarer."""
    steps = (0.2, 0.5, 1, 2, 5, 10, 20, 25, 50)
    step = next((step for step in steps if step / top * (rows - 1) >= 3), top)
    margins = [" " * 5 + mark.replace("┤", "│")] * rows
    for index in range(int(top / step + 1e-9) + 1):
        value = index * step
        row = round((1 - value / top) * (rows - 1))
        margins[row] = f"{value:g}".rjust(4) + " " + mark
    return margins


def _x_axis(columns: int, left: int, last_step: int, unicode: bool) -> list[str]:
    """Return the axis and the numbers below it, five at most."""
    count = max(1, min(4, columns // 14))
    line, corner, tick = ("─", "└", "┴") if unicode else ("-", "+", "+")
    axis, numbers = [line] * columns, [" "] * (left + columns + 12)
    for index in range(count + 1):
        at = round(index / count * (columns - 1))
        axis[at] = tick if index else line
        text = f"{round(last_step * index / count):,}"
        start = left + at - len(text) // 2
        numbers[start : start + len(text)] = text
    text = "".join(numbers).rstrip()
    return [" " * (left - 1) + corner + "".join(axis), f"{text}  iterations"[: left + columns + 14]]


def _key(curves: Sequence[Curve], color: bool, unicode: bool) -> str:
    tested = " / ".join(sorted({curve.kind for curve in curves} - {"train"}, reverse=True))
    has_training = any(curve.kind == "train" for curve in curves)
    if unicode:
        parts = [f"⠤⠤⠤ {tested} error"] * bool(tested) + ["⠄⠄⠄ training error"] * has_training
        return "error in %   " + "   ".join(parts)
    letters = [
        _painted(f"{_letter(pen, solid=True)}/{_letter(pen, solid=False)} {label}", pen, color)
        for label, pen in colors(curves).items()
    ]
    return f"error in %, {tested or 'no test'} / training:  " + "   ".join(letters)


def _stdout_has_color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", None)


def _stdout_can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
