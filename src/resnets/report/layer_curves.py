"""A value of every layer of several nets, as in Fig. 7 (He et al. 2015): in the order of the layers, and sorted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnets.report.curves import COLORS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

_INK, _FRAME, _GRID = "#333333", "#999999", "#E4E4E4"
_PLAIN = (0, (4, 1.6))


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerValues:
    """One net: a value for each of its layers."""

    label: str
    """Name of the net."""
    values: tuple[float, ...]
    """In the order of the layers, at least one."""
    group: str
    """Nets of a group have one colour: the depth, so that a plain and a residual net stand side by side."""
    dashed: bool = False
    """Plain nets are dashed."""


def draw_layer_values(
    nets: Sequence[LayerValues], path: Path, *, title: str = "", quantity: str = "standard deviation"
) -> None:
    """Draw the values over the number of the layer, and below sorted from the largest; both halves share their axes.

    Args:
        nets: at least one.
        path: the picture; its suffix decides the format (.png, .svg, .pdf).
        title: printed above.
        quantity: what the values are.

    Raises:
        ValueError: there are no nets, or matplotlib does not know the suffix.
        OSError: the file cannot be written.
    """
    if not nets:
        raise ValueError("there are no nets to draw.")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same values are the same SVG file.
    with mpl.rc_context({"svg.hashsalt": "resnets", "font.size": 10, "font.family": "sans-serif"}):
        figure = Figure(figsize=(7, 6.2), layout="constrained", facecolor="white")
        upper, lower = figure.subplots(2, 1, sharex=True, sharey=True)
        for axes, ordered in ((upper, False), (lower, True)):
            _draw_lines(axes, nets, ordered=ordered)
            _frame(axes, quantity)
        upper.set_title("in the order of the layers", loc="right", fontsize=9, color=_INK)
        lower.set_title("sorted by magnitude", loc="right", fontsize=9, color=_INK)
        lower.set_xlabel("layer", color=_INK)
        most = max(len(net.values) for net in nets)
        lower.set_xlim(0, most + 1)
        lower.set_ylim(0, 1.12 * max(max(net.values) for net in nets))
        _draw_key(upper, nets)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=_INK)
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)


def _color(nets: Sequence[LayerValues], net: LayerValues) -> str:
    groups = list(dict.fromkeys(one.group for one in nets))
    return COLORS[groups.index(net.group) % len(COLORS)]


def _draw_lines(axes: Axes, nets: Sequence[LayerValues], *, ordered: bool) -> None:
    # Dashed ones last: where two lines coincide, the solid one shows through the gaps.
    for net in sorted(nets, key=lambda net: net.dashed):
        values = sorted(net.values, reverse=True) if ordered else net.values
        axes.plot(
            range(1, len(values) + 1),
            values,
            color=_color(nets, net),
            linestyle=_PLAIN if net.dashed else "solid",
            linewidth=1.5,
            marker="o" if len(values) < 30 and not ordered else None,
            markersize=2.6,
            solid_joinstyle="round",
        )


def _frame(axes: Axes, quantity: str) -> None:
    axes.set_ylabel(quantity, color=_INK)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FRAME)
    axes.tick_params(color=_FRAME, labelcolor=_INK)


def _draw_key(axes: Axes, nets: Sequence[LayerValues]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D(
            [],
            [],
            color=_color(nets, net),
            linestyle=_PLAIN if net.dashed else "solid",
            linewidth=1.8,
            label=f"{net.label}   mean {sum(net.values) / len(net.values):.2f}",
        )
        for net in nets
    ]
    axes.legend(handles=lines, loc="best", frameon=False, labelcolor=_INK, fontsize=9, handlelength=2.6, ncols=2)
