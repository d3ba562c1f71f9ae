"""Figures of how training went: errors in the manner of Figs. 1, 4 and 6, learning rate, speed, waiting time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from resnets.report.chart import Axis, Chart, Line, decades_axis, draw, linear_axis
from resnets.report.curves import (
    bottom_of_axis,
    curves_of_log,
    line_ends,
    smoothed,
    smoothing_window,
    steps_a_unit,
    top_of_axis,
)
from resnets.report.figure import Figure, KeyEntry, Table
from resnets.report.text import NOTHING, count, percent
from resnets.specs.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from resnets.artifacts.run_log import TrainingPoint
    from resnets.report.curves import Curve
    from resnets.report.run_record import RunRecord

SMOOTHING_POINTS = 5
"""Lines of the log that each training error of the curves is averaged over."""
_MOST_ENDS = 32
"""Lines of a chart whose ends all have a label."""
_MOST_ROWS = 200
"""Rows of the numbers behind a figure; the log itself has all."""


def error_figure(runs: Sequence[RunRecord], colors: Mapping[str, int]) -> Figure | None:
    """Return the errors over the runs: training thin and dashed, test bold; None where no log holds an error.

    Args:
        runs: whose logs are drawn.
        colors: of each run by its name, from 0; of several runs, one more is the number at its lines and in the key.
    """
    curves = [curve for run in runs for curve in curves_of_log(run.log, run.name)]
    if not curves:
        return None
    ends, unit = line_ends(curves), steps_a_unit(curves)
    tested = [kind for kind in ("test", "validation") if any(curve.kind == kind for curve in curves)]
    lines = tuple(_error_line(curve, curves, colors, ends, unit) for curve in curves)
    summary = "; ".join(f"{label} ends at {error:.2f} %" for label, error in ends.items())
    chart = Chart(
        identifier="figure-errors",
        title="Error over the iterations",
        description=f"Lines of {' and '.join(['training', *tested])} error. {summary}.",
        x=_iterations(max(curve.steps[-1] for curve in curves), unit),
        y=linear_axis("error (%)", bottom_of_axis(curves), top_of_axis(curves)),
        lines=lines,
    )
    trained = [curve for curve in curves if curve.kind == "train"]
    key = net_keys({label: colors[label] for label in ends}, numbered=len(colors) > 1)
    key += [KeyEntry(kind="bold", text=f"{' or '.join(tested)} error")] if tested else []
    window = f"mean of {smoothing_window(trained, SMOOTHING_POINTS)}" if trained else ""
    key += [KeyEntry(kind="thin", text=f"training error, {window}")] if trained else []
    leaves_out = any(error > chart.y.high for line in lines for error in line.y)
    late = " The scale leaves out the steep fall of the first steps." if leaves_out else ""
    return Figure(
        identifier=chart.identifier,
        title=chart.title,
        caption=f"Training error is measured on augmented images while the net still changes.{late}",
        svg=draw(chart),
        key=tuple(key),
        table=_error_table(runs),
        shows_title=False,
    )


def net_keys(colors: Mapping[str, int], *, numbered: bool) -> list[KeyEntry]:
    """Return the entry of each net in a chart's key, with the number that stands at its lines if they have one."""
    return [
        KeyEntry(kind="net", text=f"{color + 1}: {name}" if numbered else name, color=color)
        for name, color in colors.items()
    ]


def _error_line(
    curve: Curve, curves: Sequence[Curve], colors: Mapping[str, int], ends: dict[str, float], unit: int
) -> Line:
    training, color = curve.kind == "train", colors[curve.label]
    shown = [other.kind for other in curves if other.label == curve.label]
    labelled = curve.kind == next(kind for kind in ("test", "validation", "train") if kind in shown)
    number = f"{color + 1}" if len(colors) > 1 else ""
    if labelled:
        end = f"{number}: {ends[curve.label]:.2f}" if number else f"{ends[curve.label]:.2f}"
    else:
        # The other lines of a net have its number, as long as there is room for them all.
        end = number if len(curves) <= _MOST_ENDS else ""
    return Line(
        x=[step / unit for step in curve.steps],
        y=smoothed(curve.errors, SMOOTHING_POINTS) if training else curve.errors,
        color=color,
        kind="thin" if training else "bold",
        end=end,
    )


def _iterations(last: int, unit: int) -> Axis:
    if unit > 1:
        return linear_axis("iterations (\N{MULTIPLICATION SIGN}10\N{SUPERSCRIPT FOUR})", 0.0, last / unit, most=8)
    return linear_axis("iterations", 0.0, float(last), most=5, whole=True)


def _error_table(runs: Sequence[RunRecord]) -> Table:
    """Return the errors at each evaluation, with the training error of the last line of the log up to there."""
    several = len(runs) > 1
    rows = []
    for run in runs:
        points = [point for point in run.log.training if point.top1_error is not None]
        entries = list(run.log.evaluations)
        for entry in entries or points:
            before = [point for point in points if point.step <= entry.step]
            training = percent(before[-1].top1_error) if before else NOTHING
            tested = percent(entry.top1_error) if entries else NOTHING
            top5 = percent(getattr(entry, "top5_error", None))
            rows.append((*([run.name] if several else []), count(entry.step), training, tested, top5))
    splits = {entry.split for run in runs for entry in run.log.evaluations}
    tested = f"{splits.pop()} error %" if len(splits) == 1 else "error %"
    headers = (*(["run"] if several else []), "step", "training error %", tested, "top-5 error %")
    return Table(caption="Errors at each evaluation", headers=headers, rows=tuple(rows))


def course_figures(run: RunRecord, prefix: str) -> list[Figure]:
    """Return the learning rate, the speed and the share of time spent waiting over one run.

    Args:
        run: the run.
        prefix: of the figures' identifiers.
    """
    rates = [point.lr for point in run.log.training if point.lr]
    figures = [
        _course(
            run,
            f"{prefix}-lr",
            "Learning rate",
            "",
            lambda point: point.lr or None,
            lambda values: decades_axis("learning rate", values),
            lambda value: f"{value:.6g}",
            kind="steps",
        )
        if rates and max(rates) / min(rates) > 1.5
        else None,
        _course(
            run,
            f"{prefix}-speed",
            "Throughput",
            _speed(run),
            _speed_at,
            lambda values: linear_axis("images per second", 0.0, 1.08 * max(values), most=5),
            lambda value: f"{value:,.1f}",
        ),
        _course(
            run,
            f"{prefix}-waiting",
            "Waiting for images",
            _waiting(run),
            _waiting_at,
            lambda values: linear_axis("share of the time (%)", 0.0, max(5.0, 1.08 * max(values)), most=5),
            lambda value: f"{value:.1f}",
        ),
    ]
    return [figure for figure in figures if figure is not None]


def _course(
    run: RunRecord,
    identifier: str,
    title: str,
    caption: str,
    value_of: Callable[[TrainingPoint], float | None],
    axis: Callable[[Sequence[float]], Axis],
    written: Callable[[float], str],
    kind: str = "bold",
) -> Figure | None:
    found = [(point.step, value) for point in run.log.training if (value := value_of(point)) is not None]
    if not found:
        return None
    steps, values = zip(*found, strict=True)
    unit = steps_a_unit(curves_of_log(run.log, run.name)) if curves_of_log(run.log, run.name) else 1
    chart = Chart(
        identifier=identifier,
        title=title,
        description=f"From {written(values[0])} at step {steps[0]:,} to {written(values[-1])} at step {steps[-1]:,}; "
        f"lowest {written(min(values))}, highest {written(max(values))}.",
        x=_iterations(run.steps_done, unit),
        y=axis(values),
        lines=(
            Line(x=[step / unit for step in steps], y=values, color=1, kind="steps" if kind == "steps" else "bold"),
        ),
    )
    # Counted from the end, so that the last line is among them.
    every = math.ceil(len(found) / _MOST_ROWS)
    shown = found[(len(found) - 1) % every :: every]
    table = Table(
        caption=title if every == 1 else f"{title}, one of {every} lines of the log",
        headers=("step", chart.y.title),
        rows=tuple((count(step), written(value)) for step, value in shown),
    )
    return Figure(identifier=identifier, title=title, caption=caption, svg=draw(chart), table=table, size="small")


def _speed_at(point: TrainingPoint) -> float | None:
    # A first line may come before any rate was measured, and holds 0.
    return point.images_per_second or None


def _waiting_at(point: TrainingPoint) -> float | None:
    if point.waiting_share is None or point.images_per_second == 0:
        return None
    return 100 * point.waiting_share


def _speed(run: RunRecord) -> str:
    speeds = [speed for point in run.log.training if (speed := _speed_at(point)) is not None]
    return (
        f"Median {np.median(speeds):,.0f} images a second over {counted(len(speeds), 'line')} of the log."
        if speeds
        else ""
    )


def _waiting(run: RunRecord) -> str:
    shares = [share for point in run.log.training if (share := _waiting_at(point)) is not None]
    return f"Median {np.median(shares):.1f} % of the time." if shares else ""
