"""The strength of each layer's responses, drawn as Fig. 7 does: in the order of the layers, and by magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.analysis.responses import CLOSED_FORM_TOLERANCE, sorted_by_magnitude, summarize
from resnets.report.chart import Chart, Line, draw, linear_axis
from resnets.report.figure import Figure, Table
from resnets.report.run_figures import net_keys
from resnets.report.text import NOTHING, count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.report.examination import Examination

_Net = tuple[str, int, "Examination"]
"""Name of a run, the index of its colour, and what was found out about it."""
_LABEL_GAP = 0.1
"""Least distance of two labels beside these plots, which are lower than others, as a share of their height."""


def response_figures(nets: Sequence[_Net], *, numbered: bool) -> list[Figure]:
    """Return both halves of Fig. 7 for the nets that have responses, each in the colour of its error curve.

    Args:
        nets: those with responses.
        numbered: write the number of each net, its colour plus one, at its line and in the key.
    """
    in_order = [(name, color, [one.std for one in found.responses]) for name, color, found in nets]
    by_size = [(name, color, sorted_by_magnitude(found.responses)) for name, color, found in nets]
    headers = ("number", "layer", "standard deviation", "by BatchNorm's own values")
    return [
        _figure(
            "figure-responses",
            "In the order of the layers",
            "layer",
            in_order,
            _table(nets, "Standard deviation of each layer's responses", headers, sorted_by_size=False),
            numbered,
        ),
        _figure(
            "figure-responses-sorted",
            "By magnitude",
            "layer, sorted by magnitude",
            by_size,
            _table(nets, "Standard deviations by magnitude", ("rank", *headers[1:]), sorted_by_size=True),
            numbered,
        ),
    ]


def _table(nets: Sequence[_Net], caption: str, headers: tuple[str, ...], *, sorted_by_size: bool) -> Table:
    several = len(nets) > 1
    rows = tuple(
        (
            *([name] if several else []),
            str(number),
            one.layer.convolution,
            f"{one.std:.4f}",
            f"{one.closed_form:.4f}",
        )
        for name, _, found in nets
        for number, one in enumerate(
            sorted(found.responses, key=lambda one: -one.std) if sorted_by_size else found.responses, 1
        )
    )
    return Table(
        caption=caption,
        headers=(*(["run"] if several else []), *headers),
        rows=rows,
        text_columns=frozenset({0, 2}) if several else frozenset({1}),
    )


def _figure(
    identifier: str,
    title: str,
    axis: str,
    values: Sequence[tuple[str, int, Sequence[float]]],
    table: Table,
    numbered: bool,
) -> Figure:
    most, top = max(len(one) for _, _, one in values), max(max(one) for _, _, one in values)
    ranges = "; ".join(f"{name}: {min(one):.2f} to {max(one):.2f}" for name, _, one in values)
    chart = Chart(
        identifier=identifier,
        title=title,
        description=f"Standard deviation of the responses of each 3x3 layer. {ranges}.",
        x=linear_axis(axis, 1.0, float(max(most, 2)), most=6, whole=True),
        y=linear_axis("standard deviation", 0.0, 1.05 * top if top > 0 else 1.0, most=5),
        lines=tuple(
            Line(x=range(1, len(one) + 1), y=one, color=color, end=f"{color + 1}" if numbered else "")
            for _, color, one in values
        ),
        label_gap=_LABEL_GAP,
    )
    return Figure(
        identifier=identifier,
        title=title,
        caption="",
        svg=draw(chart),
        key=tuple(net_keys({name: color for name, color, _ in values}, numbered=numbered)),
        table=table,
        size="small",
    )


def response_sentence(nets: Sequence[_Net]) -> str:
    """Return what was measured, over what, and whether the closed form agrees."""
    images = sorted({found.response_images for _, _, found in nets})
    splits = sorted({found.response_split for _, _, found in nets})
    worst = max(summarize(found.responses).largest_deviation for _, _, found in nets)
    beyond = f", above the {CLOSED_FORM_TOLERANCE:g} % that is usual" if worst > CLOSED_FORM_TOLERANCE else ""
    return (
        "Standard deviation of the output of each 3x3 layer after BatchNorm, before the ReLU or the addition, as in "
        f"Fig. 7. Over {' or '.join(map(count, images))} images of the {' or '.join(splits)} split, not augmented, with "
        f"BatchNorm's statistics averaged anew over them. The largest difference from what BatchNorm's gamma and beta predict is {worst:.2g} %{beyond}."
    )


def response_table(nets: Sequence[_Net]) -> Table:
    """Return mean, median and largest response of each net."""
    rows = []
    for name, _, found in nets:
        summary = summarize(found.responses)
        ends = NOTHING if summary.mean_of_block_ends is None else f"{summary.mean_of_block_ends:.3f}"
        figures = (f"{summary.mean:.3f}", f"{summary.median:.3f}", f"{summary.largest:.3f}", ends)
        rows.append((name, count(summary.layers), *figures))
    headers = ("run", "3x3 layers", "mean", "median", "largest", "mean of the blocks' last layers")
    return Table(caption="Responses in short", headers=headers, rows=tuple(rows))
