"""Error curves of runs, read from their logs and drawn in the manner of Fig. 1 and 6 (He et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from resnets.artifacts.run_log import read_run_log
from resnets.specs.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from resnets.artifacts.run_log import RunLog

Kind = Literal["train", "validation", "test"]

# Okabe and Ito's colours, which stay apart for every kind of colour vision; the light yellow is left out.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = 3
"""Kinds of lines, solid and dashed, that tell nets of one colour apart: together, twenty-one."""
_LONG_RUN_STEPS = 20_000
_INK = "#333333"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The error of one net on one split over a run."""

    label: str
    """Name of the net; the curves of one net share it, and with it their colour."""
    kind: Kind
    """Split the error is measured on."""
    steps: tuple[int, ...]
    """Optimiser steps done at each point, increasing."""
    errors: tuple[float, ...]
    """Top-1 error at each point, in percent."""


def curves_from_metrics(run_directory: Path, label: str) -> list[Curve]:
    """Return the curves that `run_directory/metrics.jsonl` holds, training error first.

    Raises:
        RunError: the file is missing, or holds no errors.
    """
    path = run_directory / "metrics.jsonl"
    curves = curves_of_log(read_run_log(path), label)
    if not curves:
        raise RunError(f"{path} holds no errors yet; the run has not come to its first lines.")
    return curves


def curves_of_log(log: RunLog, label: str) -> list[Curve]:
    """Return the curves of a log that has been read, training error first; none where it holds no errors."""
    points: dict[Kind, list[tuple[int, float]]] = {
        "train": [(point.step, point.top1_error) for point in log.training if point.top1_error is not None]
    }
    for kind in ("validation", "test"):
        points[kind] = [(entry.step, entry.top1_error) for entry in log.evaluations if entry.split == kind]
    return [
        Curve(label=label, kind=kind, steps=tuple(steps), errors=tuple(errors))
        for kind, of_kind in points.items()
        if of_kind
        for steps, errors in [zip(*of_kind, strict=True)]
    ]


def smoothed(errors: Sequence[float], points: int) -> list[float]:
    """Return the mean of each error and up to `points` - 1 before it.

    >>> smoothed([4, 2, 0, 0], points=2)
    [4.0, 3.0, 1.0, 0.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(errors)])
    last = np.arange(1, len(sums))
    first = np.maximum(last - points, 0)
    return ((sums[last] - sums[first]) / (last - first)).tolist()


def colors(curves: Sequence[Curve]) -> dict[str, int]:
    """Return for each net, in order of appearance, the index of its colour in `COLORS`."""
    labels = dict.fromkeys(curve.label for curve in curves)
    return {label: index % len(COLORS) for index, label in enumerate(labels)}


def line_classes(index: int) -> str:
    """Return the classes in the page's style sheet of the line of a net: its colour, and a dash once all are taken.

    >>> line_classes(2), line_classes(9)
    ('c2', 'c2 d1')
    """
    dash = index // len(COLORS) % DASHES
    return f"c{index % len(COLORS)}{f' d{dash}' if dash else ''}"


def smoothing_window(curves: Sequence[Curve], points: int) -> str:
    """Return over what the training errors are averaged: in iterations, unless these are not the same for all curves.

    Args:
        curves: training errors, at least one curve.
        points: lines of the log that each is averaged over.

    >>> fine, coarse = (Curve(label="net", kind="train", steps=(a, 2 * a), errors=(9.0, 8.0)) for a in (10, 20))
    >>> smoothing_window([fine], 5), smoothing_window([fine, coarse], 5)
    ('50 iterations', '5 lines of the log')
    """
    windows = {round(curve.steps[-1] / len(curve.steps) * points) for curve in curves}
    return f"{windows.pop():,} iterations" if len(windows) == 1 else f"{points} lines of the log"


def top_of_axis(curves: Sequence[Curve]) -> float:
    """Return an upper end for the error axis, in percent, that leaves out the steep fall of the first steps."""
    last = max(curve.steps[-1] for curve in curves)
    late = [
        error
        for curve in curves
        for step, error in zip(curve.steps, curve.errors, strict=True)
        if step >= 0.15 * last or step == curve.steps[-1]
    ]
    highest = 1.05 * max(late)
    return next((top for top in (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0) if highest <= top), 100.0)


def bottom_of_axis(curves: Sequence[Curve]) -> float:
    """Return a lower end for the error axis, in percent: 0, unless that would leave half of the picture empty.

    >>> bottom_of_axis([Curve(label="net", kind="test", steps=(1, 2), errors=(90.0, 71.0))])
    60.0
    >>> bottom_of_axis([Curve(label="net", kind="test", steps=(1, 2), errors=(90.0, 31.0))])
    0.0
    """
    lowest = min(error for curve in curves for error in curve.errors)
    return 20.0 * (0.97 * lowest // 20) if lowest > 0.5 * top_of_axis(curves) else 0.0


def draw_error_curves(curves: Sequence[Curve], path: Path, *, title: str = "", smoothing_points: int = 5) -> None:
    """Draw the error of each net over the run: one colour a net, training thin and dashed, test bold.

    Args:
        curves: what to draw, at least one curve.
        path: the picture; its suffix decides the format (.png, .svg, .pdf).
        title: printed above.
        smoothing_points: points of the log that each training error is averaged over; the picture states it.

    Raises:
        ValueError: there are no curves, or matplotlib does not know the suffix.
        OSError: the file cannot be written.
    """
    if not curves:
        raise ValueError("there are no curves to draw.")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same curves are the same SVG file.
    with mpl.rc_context({"svg.hashsalt": "resnets", "font.size": 10, "font.family": "sans-serif"}):
        figure = Figure(figsize=(7, 4.2), layout="constrained", facecolor="white")
        axes = figure.subplots()
        _draw_lines(axes, curves, smoothing_points)
        _draw_axes(axes, curves, title)
        _draw_labels(axes, curves)
        _draw_key(axes, curves, smoothing_points)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=160, metadata=metadata)


def steps_a_unit(curves: Sequence[Curve]) -> int:
    """Return how many steps one unit of the x axis stands for: 10,000 for long runs, as in the paper."""
    return 10_000 if max(curve.steps[-1] for curve in curves) >= _LONG_RUN_STEPS else 1


def _draw_lines(axes: Axes, curves: Sequence[Curve], smoothing_points: int) -> None:
    unit, color_of = steps_a_unit(curves), colors(curves)
    # Training curves first, so that the bold ones lie on top.
    for curve in sorted(curves, key=lambda curve: curve.kind != "train"):
        training = curve.kind == "train"
        axes.plot(
            np.asarray(curve.steps) / unit,
            smoothed(curve.errors, smoothing_points) if training else curve.errors,
            color=COLORS[color_of[curve.label]],
            linewidth=1.1 if training else 2.2,
            linestyle=(0, (4, 2)) if training else "solid",
            alpha=0.85 if training else 1.0,
            solid_capstyle="round",
            solid_joinstyle="round",
        )


def _draw_axes(axes: Axes, curves: Sequence[Curve], title: str) -> None:
    unit = steps_a_unit(curves)
    axes.set_xlim(0, max(curve.steps[-1] for curve in curves) / unit)
    axes.set_ylim(bottom_of_axis(curves), top_of_axis(curves))
    axes.set_xlabel("iterations (1e4)" if unit > 1 else "iterations", color=_INK)
    axes.set_ylabel("error (%)", color=_INK)
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(color="#999999", labelcolor=_INK)
    if unit == 1:
        axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_labels(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write each net's name and last error at the end of its bold line, moved apart where they would overlap."""
    ends = line_ends(curves)
    bottom, top = axes.get_ylim()
    heights = spread([min(error, top) for error in ends.values()], gap=0.065 * (top - bottom), top=top)
    for (label, error), height in zip(ends.items(), heights, strict=True):
        axes.annotate(
            f"{label}  {error:.2f} %",
            xy=(1, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=COLORS[colors(curves)[label]],
            fontweight="bold",
            annotation_clip=False,
        )


def line_ends(curves: Sequence[Curve]) -> dict[str, float]:
    """Return the last error of each net: on the test split where there is one, else validation, else training."""
    importance = ("train", "validation", "test")
    ordered = sorted(curves, key=lambda curve: importance.index(curve.kind))
    last = {curve.label: curve.errors[-1] for curve in ordered}
    return {label: last[label] for label in colors(curves)}


def spread(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Return heights at least `gap` apart, in the same order, between 0 and `top`, moved as little as possible.

    >>> spread([5.0, 4.5, 0.0], gap=1.5, top=10.0)
    [5.5, 4.0, 0.0]
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    # Without the gaps, the task is to make the sequence increase: neighbours out of order take their mean.
    groups: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        mean, count = heights[index] - rank * gap, 1
        while groups and groups[-1][0] > mean:
            before, size = groups.pop()
            mean, count = (mean * count + before * size) / (count + size), count + size
        groups.append((mean, count))
    highest = top - gap * (len(heights) - 1)
    bases = [max(0.0, min(mean, highest)) for mean, count in groups for _ in range(count)]
    moved = list(heights)
    for rank, (index, base) in enumerate(zip(order, bases, strict=True)):
        moved[index] = base + rank * gap
    return moved


def _draw_key(axes: Axes, curves: Sequence[Curve], smoothing_points: int) -> None:
    from matplotlib.lines import Line2D

    kinds = {curve.kind for curve in curves}
    lines = []
    trained = [curve for curve in curves if curve.kind == "train"]
    if trained:
        window = f", mean of {smoothing_window(trained, smoothing_points)}" if smoothing_points > 1 else ""
        lines.append(Line2D([], [], color=_INK, linewidth=1.1, linestyle=(0, (4, 2)), label=f"training{window}"))
    tested = " / ".join(sorted(kinds - {"train"}, reverse=True))
    if tested:
        lines.append(Line2D([], [], color=_INK, linewidth=2.2, label=tested))
    axes.legend(handles=lines, loc="best", frameon=False, labelcolor=_INK, fontsize=9)
