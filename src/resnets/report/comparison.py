"""Several runs side by side: their errors, and the fields of their specs that differ."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from resnets.report.figure import Table
from resnets.report.prose import net_name, sizes
from resnets.report.text import NOTHING, count, percent, points, printable
from resnets.specs import io

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.artifacts.run_log import Evaluation
    from resnets.report.run_record import RunRecord


def error_of(run: RunRecord) -> Evaluation | None:
    """Return the error to judge a run by: that of its final weights, else the last one on the way."""
    return run.log.final or (run.log.evaluations[-1] if run.log.evaluations else None)


def last_training_error(run: RunRecord) -> float | None:
    """Return the training error of the last line of the log that has one, in percent."""
    return next((point.top1_error for point in reversed(run.log.training) if point.top1_error is not None), None)


def results_table(runs: Sequence[RunRecord]) -> Table:
    """Return a row a run: net, size, length, errors, and the difference to the first run."""
    ends = [error_of(run) for run in runs]
    first = ends[0]
    rows = []
    for run, end in zip(runs, ends, strict=True):
        parameters, _ = sizes(run.spec)
        comparable = end is not None and first is not None and end.split == first.split and run is not runs[0]
        rows.append(
            (
                run.name,
                net_name(run.spec.model),
                count(parameters) if parameters is not None else NOTHING,
                count(run.steps_done) if run.finished else f"{count(run.steps_done)} of {count(run.spec.steps)}",
                percent(last_training_error(run)),
                percent(end.top1_error if end else None),
                points(end.top1_error - first.top1_error) if comparable and end and first else NOTHING,
                percent(run.log.best.top1_error if run.log.best else None),
                count(end.images) if end and end.images is not None else NOTHING,
            )
        )
    splits = sorted({end.split for end in ends if end})
    tested = f"{splits[0]} error %" if len(splits) == 1 else "error %"
    headers = ("run", "net", "parameters", "steps", "training error %", tested, "to the first", "lowest %", "images")
    return Table(caption="Errors of the runs", headers=headers, rows=tuple(rows), text_columns=frozenset({0, 1}))


def verdict(runs: Sequence[RunRecord]) -> str:
    """Return a sentence on which run has the lowest error, and by how much; of several seeds, on mean and spread."""
    ends = [(end, run) for run in runs if (end := error_of(run)) is not None]
    if len({end.split for end, _ in ends}) != 1 or len(ends) < 2:
        return "The runs were not tested on the same split, so their errors do not compare."
    if len(ends) == len(runs) and _differing(runs) == ["seed"]:
        errors = [end.top1_error for end, _ in ends]
        return (
            f"The runs differ in the seed alone: {ends[0][0].split} error {statistics.fmean(errors):.2f} % on average, "
            f"{min(errors):.2f} to {max(errors):.2f} %, standard deviation {statistics.stdev(errors):.2f} points."
        )
    (best, run), (second, runner_up), *_ = sorted(ends, key=lambda pair: pair[0].top1_error)
    gap = second.top1_error - best.top1_error
    if gap == 0:
        return f"{run.name} and {runner_up.name} have the same {best.split} error, {best.top1_error:.2f} %."
    return (
        f"{run.name} has the lowest {best.split} error, {best.top1_error:.2f} %, {gap:.2f} points below {runner_up.name}. "
        "One run each: a difference between seeds can be as large."
    )


def differences_table(runs: Sequence[RunRecord]) -> Table | None:
    """Return the fields of the specs in which a run differs from the first, a column a run; None where none does."""
    specs = [io.to_json(run.spec) for run in runs]
    paths = _differing(runs)
    rows = tuple((printable(path, 80), *(_shown(spec, path) for spec in specs)) for path in paths)
    headers = ("field", *(run.name for run in runs))
    columns = frozenset(range(len(headers)))
    return Table(caption="Fields that differ", headers=headers, rows=rows, text_columns=columns) if rows else None


def _differing(runs: Sequence[RunRecord]) -> list[str]:
    """Return the paths of the fields in which the spec of a run differs from that of the first."""
    first, *others = [io.to_json(run.spec) for run in runs]
    return list({line.partition(": ")[0]: None for other in others for line in io.differences(first, other)})


def _shown(spec: Any, path: str) -> str:
    """Return the value at a path such as `optimizer.base_lr` as the spec's file has it, or a dash."""
    value = spec
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return NOTHING
        value = value[name]
    return printable(value if isinstance(value, str) else json.dumps(value), 60)
