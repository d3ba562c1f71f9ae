"""Two recipes over the same seeds as one picture: every run thin, the mean bold, and the differences at the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from resnets.report.curves import COLORS, Curve, bottom_of_axis, smoothed, smoothing_window, spread, top_of_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from resnets.metrics.paired import PairedDifference

_INK, _FRAME, _GRID = "#333333", "#999999", "#E4E4E4"
_TRAINING = (0, (4, 2))
_LONG_RUN_STEPS = 20_000


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of curves of one label and kind, at the steps that all of them have.

    Raises:
        ValueError: there are none, or no step is common to all.

    >>> runs = [Curve(label="net", kind="test", steps=(1, 2), errors=errors) for errors in ((4.0, 2.0), (6.0, 3.0))]
    >>> mean_curve(runs).errors
    (5.0, 2.5)
    """
    if not curves:
        raise ValueError("there are no curves.")
    points = [dict(zip(curve.steps, curve.errors, strict=True)) for curve in curves]
    steps = tuple(sorted(set.intersection(*map(set, points))))
    if not steps:
        raise ValueError("the curves have no step in common.")
    errors = tuple(float(np.mean([run[step] for run in points])) for step in steps)
    return Curve(label=curves[0].label, kind=curves[0].kind, steps=steps, errors=errors)


def draw_paired_curves(
    runs: Mapping[str, Sequence[Sequence[Curve]]],
    names: Mapping[str, str],
    difference: PairedDifference,
    path: Path,
    *,
    smoothing_points: int = 5,
) -> None:
    """Draw the test error of every run and its mean, the mean training error, and the difference of each pair.

    Args:
        runs: for both sides, "A" first, the curves of each run.
        names: what each side is called.
        difference: at the end of the runs, second side minus first, in points of percent.
        path: the picture; its suffix decides the format (.png, .svg, .pdf).
        smoothing_points: points of the log that the training error is averaged over; the picture states it.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    tested = {
        side: [curve for run in side_runs for curve in run if curve.kind != "train"] for side, side_runs in runs.items()
    }
    trained = {
        side: [curve for run in side_runs for curve in run if curve.kind == "train"] for side, side_runs in runs.items()
    }
    with mpl.rc_context({"svg.hashsalt": "resnets", "font.size": 10, "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 4.4), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, width_ratios=(3.4, 1))
        _draw_curves(left, tested, trained, smoothing_points)
        _draw_names(left, names)
        _draw_differences(right, difference)
        temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
        try:
            figure.savefig(temporary, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _draw_curves(
    axes: Axes, tested: Mapping[str, list[Curve]], trained: Mapping[str, list[Curve]], smoothing_points: int
) -> None:
    every = [curve for side in (*tested.values(), *trained.values()) for curve in side]
    last = max(curve.steps[-1] for curve in every)
    unit = 10_000 if last >= _LONG_RUN_STEPS else 1
    means: dict[str, Curve] = {}
    for color, side in zip(COLORS, tested, strict=False):
        for curve in tested[side]:
            axes.plot(np.asarray(curve.steps) / unit, curve.errors, color=color, linewidth=0.9, alpha=0.4)
        if trained[side]:
            mean = mean_curve(trained[side])
            errors = smoothed(mean.errors, smoothing_points)
            axes.plot(np.asarray(mean.steps) / unit, errors, color=color, linewidth=1.2, linestyle=_TRAINING)
        if tested[side]:
            means[side] = mean_curve(tested[side])
            steps = np.asarray(means[side].steps) / unit
            axes.plot(steps, means[side].errors, color=color, linewidth=2.6, solid_capstyle="round")
    # What is compared is the end: the first fall may leave the picture at its top.
    shown = [_late(curve, last) for curve in (*means.values(), *([] if means else every))]
    bottom, top = bottom_of_axis(every), top_of_axis(shown)
    axes.set_xlim(0, last / unit)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("iterations (1e4)" if unit > 1 else "iterations", color=_INK)
    axes.set_ylabel("error (%)", color=_INK)
    if unit == 1:
        axes.xaxis.set_major_formatter("{x:,.0f}")
    _draw_frame(axes)
    _draw_ends(axes, means, bottom, top)
    _draw_key(axes, tested, trained, smoothing_points)


def _late(curve: Curve, last: int) -> Curve:
    """Return the curve without the first quarter of the run."""
    points = [(step, error) for step, error in zip(curve.steps, curve.errors, strict=True) if 4 * step > last]
    steps, errors = zip(*(points or [(curve.steps[-1], curve.errors[-1])]), strict=True)
    return Curve(label=curve.label, kind=curve.kind, steps=steps, errors=errors)


def _draw_ends(axes: Axes, means: Mapping[str, Curve], bottom: float, top: float) -> None:
    """Write each side's letter and mean error at the end of its bold line."""
    heights = spread([min(mean.errors[-1], top) for mean in means.values()], gap=0.07 * (top - bottom), top=top)
    for color, (side, mean), height in zip(COLORS, means.items(), heights, strict=False):
        axes.annotate(
            f"{side}  {mean.errors[-1]:.2f} %",
            xy=(1, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontweight="bold",
            annotation_clip=False,
        )


def _draw_key(
    axes: Axes, tested: Mapping[str, list[Curve]], trained: Mapping[str, list[Curve]], smoothing_points: int
) -> None:
    from matplotlib.lines import Line2D

    kind = next((curve.kind for side in tested.values() for curve in side), "test")
    seeds = max(map(len, tested.values()))
    lines = [Line2D([], [], color=_INK, linewidth=2.6, label=f"{kind}, mean of {seeds} seeds" if seeds > 1 else kind)]
    if seeds > 1:
        lines.append(Line2D([], [], color=_INK, linewidth=0.9, alpha=0.5, label=f"{kind}, each seed"))
    every = [curve for side in trained.values() for curve in side]
    if every:
        window = smoothing_window(every, smoothing_points)
        label = f"training, mean over {window}" + (" and seeds" if seeds > 1 else "")
        lines.append(Line2D([], [], color=_INK, linewidth=1.2, linestyle=_TRAINING, label=label))
    axes.legend(
        handles=lines, loc="best", facecolor="white", edgecolor="none", framealpha=0.85, labelcolor=_INK, fontsize=9
    )


def _draw_names(axes: Axes, names: Mapping[str, str]) -> None:
    """Write above the curves which side is what."""
    for row, (color, (side, name)) in enumerate(zip(COLORS, names.items(), strict=False)):
        axes.annotate(
            f"{side}  {_literal(name)}",
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=(0, 8 + 15 * (len(names) - 1 - row)),
            textcoords="offset points",
            color=color,
            fontweight="bold",
            fontsize=11,
        )


def _literal(name: str) -> str:
    shown = name if len(name) <= 60 else f"{name[:57]}..."
    return shown.replace("\\", "\\\\").replace("$", r"\$")


def _draw_differences(axes: Axes, difference: PairedDifference) -> None:
    """Draw the difference of each pair as a dot, and their mean with its interval."""
    axes.axhline(0, color=_FRAME, linewidth=1)
    places = np.linspace(-0.36, -0.08, difference.pairs) if difference.pairs > 1 else np.zeros(1)
    axes.scatter(places, difference.differences, s=26, color="#777777", zorder=3, linewidths=0)
    if difference.interval is not None:
        low, high = difference.interval
        axes.errorbar(
            [0.28], [difference.mean], [[difference.mean - low], [high - difference.mean]],
            color=_INK, marker="D", markersize=6, capsize=6, linewidth=1.8, zorder=3,
        )  # fmt: skip
    reach = max(map(abs, (*difference.differences, *(difference.interval or ()))), default=0.0) or 1.0
    low = min(0.0, *difference.differences, *(difference.interval or ()))
    high = max(0.0, *difference.differences, *(difference.interval or ()))
    axes.set_ylim(low - 0.15 * reach, high + 0.15 * reach)
    axes.set_xlim(-0.5, 0.5)
    ticks = [(-0.22, "each\nseed")] if difference.pairs > 1 else [(0.0, "one seed")]
    if difference.interval is not None:
        ticks.append((0.28, f"mean,\n{100 * difference.confidence:g} %"))
    axes.set_xticks([place for place, _ in ticks], [text for _, text in ticks])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    axes.set_title("B - A, points", fontsize=10, color=_INK, loc="left")
    _draw_frame(axes)
    axes.tick_params(axis="x", length=0)


def _draw_frame(axes: Axes) -> None:
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FRAME)
    axes.tick_params(color=_FRAME, labelcolor=_INK)
