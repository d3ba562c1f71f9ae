"""Line and bar charts as SVG that fits any width: text stays text of one size, colours come from the page.

Everything is placed in percent of the plot, which the page's style sheet surrounds with room for the labels. Only
the lines are drawn in units of their own and stretched, with strokes that keep their width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from resnets.report.curves import COLORS, line_classes, spread
from resnets.report.text import MINUS

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNITS = 1000
"""Side of the square in which lines are drawn before it is stretched."""
_RAISED = str.maketrans(
    "-0123456789",
    "\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ZERO}\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT THREE}"
    "\N{SUPERSCRIPT FOUR}\N{SUPERSCRIPT FIVE}\N{SUPERSCRIPT SIX}\N{SUPERSCRIPT SEVEN}\N{SUPERSCRIPT EIGHT}"
    "\N{SUPERSCRIPT NINE}",
)
_MOST_POINTS = 1500
"""Points of a line; a phone's screen is not wider."""
_SHORT_END, _ERROR_END = 2, 6
"""Letters of a net's number, and of an error: what the room beside a plot is made for."""
_LETTER = 0.035
"""Width of a letter of a label, as a share of the plot's width on a phone, where it is largest."""
_EARLY_END = 0.93
"""A line that ends before this share of the width has its label there, not beside the plot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Values along one side of a plot."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    """Values and what is written there."""
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 at the low end to 1 at the high one; a little beyond for those outside."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((value - low) / (high - low), -0.5), 1.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a chart."""

    x: Sequence[float]
    y: Sequence[float]
    color: int
    """Number of the net from 0: an index into `curves.COLORS`, which the page has for light and dark; from there on, the
    colours come again with other dashes."""
    kind: Literal["bold", "thin", "steps"] = "bold"
    """Bold; thin and dashed, as the paper draws training errors; or bold with constant values between the points."""
    end: str = ""
    """Written beside the end of the line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar of a chart, from `left` to `right` on the x axis and from `bottom` to `top` on the y axis."""

    left: float
    right: float
    bottom: float
    top: float
    name: str = "bar"
    """Class in the style sheet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """What a chart shows, and what it is called where it cannot be seen."""

    identifier: str
    """Of the figure in the page; letters, digits and hyphens."""
    title: str
    description: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = field(default=())
    diagonal: bool = False
    """Draw a line from corner to corner: where x and y are equal."""
    label_gap: float = 0.06
    """Least distance of two labels beside the plot, as a share of its height."""


def draw(chart: Chart) -> Markup:
    """Return the chart as an SVG element."""
    names = Markup('<title id="{0}-title">{1}</title><desc id="{0}-desc">{2}</desc>').format(
        chart.identifier, chart.title, chart.description
    )
    parts = [names, *_grid(chart), *map(lambda bar: _bar(chart, bar), chart.bars)]
    # Thin lines first, so that the bold ones lie on top.
    lines = sorted(chart.lines, key=lambda line: line.kind != "thin")
    paths = Markup("").join(_path(chart, line) for line in lines if len(line.x))
    if chart.diagonal:
        paths += Markup('<path class="diagonal" d="M0 {0}L{0} 0"/>').format(_UNITS)
    inner = Markup('<svg viewBox="0 0 {0} {0}" preserveAspectRatio="none" width="100%" height="100%">{1}</svg>')
    # The axis lies on the feet of the bars.
    axis = Markup('<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>')
    parts += [axis, inner.format(_UNITS, paths), *_ends(chart)]
    opening = Markup('<svg class="chart{2}" role="img" aria-labelledby="{0}-title {0}-desc">{1}</svg>')
    return opening.format(chart.identifier, Markup("").join(parts), _room(chart))


def _room(chart: Chart) -> str:
    """Return the classes that give the labels at the ends of lines the room they need beside the plot, and in height."""
    longest = max((len(line.end) for line in chart.lines), default=0)
    if not longest:
        return ""
    beside = "short-ends" if longest <= _SHORT_END else "with-ends" if longest <= _ERROR_END else "long-ends"
    return f" {beside}{' tall' if _is_tall(chart) else ''}"


def _is_tall(chart: Chart) -> bool:
    """Return whether more labels stand above one another than a plot of the usual height has room for."""
    return max(map(len, _columns(chart)), default=0) * chart.label_gap > 1


def _columns(chart: Chart) -> list[list[Line]]:
    """Return the lines that have a label, those together whose labels would overlap at one height, from left to right."""
    labelled = sorted(
        (line for line in chart.lines if line.end and len(line.x)), key=lambda line: _label_at(chart, line)
    )
    columns: list[list[Line]] = []
    for line in labelled:
        before = columns[-1][-1] if columns else None
        if before is None or _label_at(chart, line) - _label_at(chart, before) > _LETTER * (len(before.end) + 1):
            columns.append([])
        columns[-1].append(line)
    return columns


def _label_at(chart: Chart, line: Line) -> float:
    """Return the share of the width at which a line's label stands: where it ends, or beside the plot."""
    end = chart.x.share(float(line.x[-1]))
    return end if end < _EARLY_END else 1.0


def nice_ticks(low: float, high: float, most: int = 6, *, whole: bool = False) -> list[float]:
    """Return at most `most` round values, evenly spaced, between two values, these included.

    Args:
        low: where the values begin.
        high: where they end.
        most: at least 3.
        whole: take whole numbers only.

    >>> nice_ticks(0.0, 20.0)
    [0.0, 5.0, 10.0, 15.0, 20.0]
    >>> nice_ticks(0.0, 6400.0, most=5)
    [0.0, 2000.0, 4000.0, 6000.0]
    """
    if not high > low:
        return [low]
    magnitude = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = factor * magnitude
        if whole and step % 1:
            continue
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [index * step for index in range(first, last + 1)]
    return [low, high]


def linear_axis(title: str, low: float, high: float, *, most: int = 6, whole: bool = False) -> Axis:
    """Return an axis with at most `most` round values, or round whole numbers."""
    if not high > low:
        high = low + 1
    ticks = tuple((value, _tick(value)) for value in nice_ticks(low, high, most, whole=whole))
    return Axis(title=title, low=low, high=high, ticks=ticks)


def decades_axis(title: str, values: Sequence[float]) -> Axis:
    """Return a logarithmic axis with a tick a power of ten that holds `values`, at most six powers down from the top."""
    top = max(values)
    bottom = max(min(value for value in values if value > 0), top * 1e-6)
    first, last = math.floor(math.log10(bottom) + 1e-9), math.ceil(math.log10(top) - 1e-9)
    if last == first:
        first -= 1
    ticks = tuple((10.0**power, _power(power)) for power in range(first, last + 1))
    # Room above and below, so that no line runs along the frame.
    return Axis(title=title, low=10.0**first / 1.6, high=10.0**last * 1.6, ticks=ticks, logarithmic=True)


def _tick(value: float) -> str:
    return f"{value:,.10g}".replace("-", MINUS)


def _power(power: int) -> str:
    """Return a power of ten as a number, or where that has many zeros with its exponent."""
    return f"{10.0**power:g}" if abs(power) <= 4 else f"10{str(power).translate(_RAISED)}"


def _grid(chart: Chart) -> list[Markup]:
    """Return lines across and numbers along both axes, and their titles."""
    parts = []
    across = Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>')
    number = Markup('<text class="tick-y" x="0" y="{}" dx="-8" dy="0.32em">{}</text>')
    for value, text in chart.y.ticks:
        at = _percent(1 - chart.y.share(value))
        parts += [across.format(at), number.format(at, text)]
    mark = Markup('<text class="tick-x" x="{}" y="100%" dy="1.5em">{}</text>')
    parts += [mark.format(_percent(chart.x.share(value)), text) for value, text in chart.x.ticks]
    parts.append(Markup('<text class="title-x" x="100%" y="100%" dy="2.9em">{}</text>').format(chart.x.title))
    parts.append(Markup('<text class="title-y" x="0" y="0" dx="-36" dy="-0.9em">{}</text>').format(chart.y.title))
    return parts


def _path(chart: Chart, line: Line) -> Markup:
    x, y = _thinned(line.x), _thinned(line.y)
    corners = [
        (chart.x.share(one) * _UNITS, (1 - chart.y.share(other)) * _UNITS) for one, other in zip(x, y, strict=True)
    ]
    words = [f"M{corners[0][0]:.5g} {corners[0][1]:.5g}"]
    for across, up in corners[1:]:
        words.append(f"H{across:.5g}V{up:.5g}" if line.kind == "steps" else f"L{across:.5g} {up:.5g}")
    if len(corners) == 1:
        words.append("h0")  # with round ends, a dot
    return Markup('<path class="line {} {}" d="{}"/>').format(line.kind, line_classes(line.color), "".join(words))


def _thinned(values: Sequence[float]) -> list[float]:
    """Return at most some 1,500 of the values, evenly spaced, the last one among them."""
    every = math.ceil(len(values) / _MOST_POINTS)
    kept = [float(value) for value in values[::every]]
    return kept if (len(values) - 1) % every == 0 else [*kept, float(values[-1])]


def _bar(chart: Chart, bar: Bar) -> Markup:
    left, right = chart.x.share(bar.left), chart.x.share(bar.right)
    bottom, top = sorted((chart.y.share(bar.bottom), chart.y.share(bar.top)))
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        bar.name, _percent(left), _percent(1 - top), _percent(right - left), _percent(top - bottom)
    )


def _ends(chart: Chart) -> list[Markup]:
    """Return a dot at the end of each line that has a label, and the labels, moved apart where they would overlap."""
    gap = chart.label_gap / 2 if _is_tall(chart) else chart.label_gap
    dots, labels = [], []
    for column in _columns(chart):
        heights = [min(max(chart.y.share(float(line.y[-1])), 0.0), 1.0) for line in column]
        for line, height, moved in zip(column, heights, spread(heights, gap=gap, top=1.0), strict=True):
            color = line.color % len(COLORS)
            if 0 <= chart.y.share(float(line.y[-1])) <= 1:
                dot = Markup('<circle class="c{}" cx="{}" cy="{}" r="3.5"/>')
                dots.append(dot.format(color, _percent(chart.x.share(float(line.x[-1]))), _percent(1 - height)))
            text = Markup('<text class="end c{}" x="{}" y="{}" dx="9" dy="0.32em">{}</text>')
            labels.append(text.format(color, _percent(_label_at(chart, line)), _percent(1 - moved), line.end))
    return [*dots, *labels]


def _percent(share: float) -> str:
    return f"{round(100 * share, 3):g}%"
