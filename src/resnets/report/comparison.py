"""Several runs side by side: their errors, and the fields of their specs that differ."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from resnets.report.figure import Table
from resnets.report.prose import net_name, sizes
from resnets.report.text import NOTHING, count, listed, percent, points, printable
from resnets.specs import io
from resnets.specs.data import ImageFolder
from resnets.specs.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.artifacts.run_log import Evaluation
    from resnets.report.run_record import RunRecord

_ROUNDING = 1e-9
"""Means closer than this are equal: they come from counts by a division."""
_SHOWN_OTHERWISE = frozenset(
    {
        *("image_px", "resize_px", "color", "mean", "std", "mean_image", "statistics_images", "interpolation"),
        "shuffle_shards",
    }
)
"""Fields of a dataset that do not decide which of its images are tested."""
_HELD_OUT = frozenset({"validation_images", "validation_fraction", "split_seed"})
"""Fields that decide which images are for validation; test images they leave as they are."""


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
        comparable = run is not runs[0] and same_images(runs[0], run)
        rows.append(
            (
                run.name,
                net_name(run.spec.model),
                count(parameters) if parameters is not None else NOTHING,
                _length(run),
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


def _length(run: RunRecord) -> str:
    if run.finished:
        return count(run.steps_done)
    diverged = "" if run.diverged_at is None else ", diverged"
    return f"{count(run.steps_done)} of {count(run.spec.steps)}{diverged}"


def same_images(first: RunRecord, other: RunRecord) -> bool:
    """Return whether the errors that two runs are judged by are over the same images, as far as their files tell.

    Two runs on folders whose images differ, but perhaps in splits that were not tested, count as tested on the same.
    """
    ours, theirs = error_of(first), error_of(other)
    if ours is None or theirs is None or ours.split != theirs.split:
        return False
    ignored = _SHOWN_OTHERWISE | (_HELD_OUT if ours.split == "test" else frozenset())
    one, another = (
        {name: value for name, value in io.to_json(run.spec.dataset).items() if name not in ignored}
        for run in (first, other)
    )
    if one != another:
        return False
    if not _fingerprints_differ(first, other):
        return True
    # A folder has one fingerprint for all its splits. Another share held out for validation, or a training image that
    # was removed, gives another one and leaves the test images as they are; their number is all that is left to check.
    known_sizes = {size for end in (ours, theirs) if (size := _split_size(end)) is not None}
    return ours.split == "test" and isinstance(first.spec.dataset, ImageFolder) and len(known_sizes) < 2


def _fingerprints_differ(first: RunRecord, other: RunRecord) -> bool:
    """Return whether two runs are known to have been given different images: a spec does not name its folder.

    A run whose files leave no fingerprint differs from none.
    """
    return bool(first.fingerprint and other.fingerprint) and first.fingerprint != other.fingerprint


def _split_size(tested: Evaluation) -> int | None:
    """Return the number of images of the split, readable or not; None where the log does not say."""
    return None if tested.images is None else tested.images + tested.skipped


def verdict(runs: Sequence[RunRecord]) -> str:
    """Return what the errors say: which runs have the lowest, and by how much; of several seeds, on mean and spread.

    Runs whose specs are equal but for the seed count as one net with their mean. Where it cannot be told whether the
    test images of folders are the same, a sentence says so.
    """
    tested = [run for run in runs if error_of(run) is not None]
    if not tested:
        return "No run has an error yet, so there is nothing to compare."
    untested = [run.name for run in runs if error_of(run) is None]
    unfinished = [run.name for run in tested if not run.finished and run.diverged_at is None]
    diverged = [f"{run.name} at step {count(run.diverged_at)}" for run in runs if run.diverged_at is not None]
    rest = f" Not finished: {listed(unfinished)}." if unfinished else ""
    rest += f" Diverged: {listed(diverged)}." if diverged else ""
    rest += f" Without an error so far: {listed(untested)}." if untested else ""
    if len(tested) == 1:
        (group,) = _groups(tested)
        return f"Only {group.name} has an error so far, {group.mean:.2f} % ({group.split}): nothing to compare it with."
    pairs = list(combinations(tested, 2))
    # Every pair: two runs may each agree with a third that has no fingerprint, and not with one another.
    if not all(same_images(first, other) for first, other in pairs):
        what = "images" if len({group.split for group in _groups(tested)}) == 1 else "split"
        return f"The runs were not tested on the same {what}, so their errors do not compare.{rest}"
    if any(_fingerprints_differ(first, other) for first, other in pairs):
        rest = (
            " The runs differ in the images of at least one split: if that is the test split, which cannot be told, "
            f"their errors do not compare.{rest}"
        )
    groups = _groups(tested)
    if len(groups) == 1:
        (group,) = groups
        assert group.spread is not None
        return (
            f"The specs differ in the seed alone: {group.split} error {group.mean:.2f} % on average, "
            f"{min(group.errors):.2f} to {max(group.errors):.2f} %, standard deviation {group.spread:.2f} points.{rest}"
        )
    return f"{_lowest(groups)}{rest}"


def _lowest(groups: Sequence[_Group]) -> str:
    """Return which of at least two groups has the lowest mean error, and how far it is from the next."""
    best, second = sorted(groups, key=lambda group: group.mean)[:2]
    single = [len(group.runs) == 1 for group in (best, second)]
    gap = second.mean - best.mean
    if gap < _ROUNDING:
        average = "" if all(single) else " on average"
        return f"{best.name} and {second.name} have the same {best.split} error{average}, {best.mean:.2f} %."
    other = second.name if all(single) else f"{second.name} with {second.shown}"
    sentence = (
        f"{best.name} {'has' if single[0] else 'have'} the lowest {best.split} error, {best.shown}, {gap:.2f} points below "
        f"{other}."
    )
    if not any(single):
        return sentence
    runs = "One run each" if all(single) else "One run has no spread"
    return f"{sentence} {runs}: a difference between seeds can be as large."


def seeds_table(runs: Sequence[RunRecord]) -> Table | None:
    """Return mean and spread of the runs that are equal but for the seed; None where no two of several nets are."""
    groups = _groups([run for run in runs if error_of(run) is not None])
    if len(groups) < 2 or all(len(group.runs) == 1 for group in groups):
        return None
    rows = tuple(
        (
            listed([run.name for run in group.runs]),
            group.split,
            count(len(group.runs)),
            percent(group.mean),
            percent(group.spread),
            percent(min(group.errors)),
            percent(max(group.errors)),
        )
        for group in groups
    )
    headers = ("runs", "split", "seeds", "mean error %", "standard deviation", "lowest %", "highest %")
    caption = "Means over runs that are equal but for the seed"
    return Table(caption=caption, headers=headers, rows=rows, text_columns=frozenset({0, 1}))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Runs whose specs differ in the seed alone, tested on the same images as far as is known; or one."""

    runs: tuple[RunRecord, ...]
    split: str
    errors: tuple[float, ...]

    @property
    def name(self) -> str:
        first, others = self.runs[0].name, len(self.runs) - 1
        return f"{first} and {counted(others, 'other seed')}" if others else first

    @property
    def mean(self) -> float:
        return statistics.fmean(self.errors)

    @property
    def spread(self) -> float | None:
        return statistics.stdev(self.errors) if len(self.errors) > 1 else None

    @property
    def shown(self) -> str:
        if self.spread is None:
            return f"{self.mean:.2f} %"
        return f"{self.mean:.2f} % on average (standard deviation {self.spread:.2f} points)"


def _groups(tested: Sequence[RunRecord]) -> list[_Group]:
    """Return the runs that have an error, together where the specs differ in the seed alone, in their order."""
    found: list[list[RunRecord]] = []
    for run in tested:
        for group in found:
            if _is_another_seed(run, group):
                group.append(run)
                break
        else:
            found.append([run])
    groups = []
    for group in found:
        ends = [end for run in group if (end := error_of(run)) is not None]
        errors = tuple(end.top1_error for end in ends)
        groups.append(_Group(runs=tuple(group), split=ends[0].split, errors=errors))
    return groups


def _is_another_seed(run: RunRecord, group: Sequence[RunRecord]) -> bool:
    """Return whether the spec of a run differs from those of a group in the seed alone, and it has come as far."""
    first = group[0]
    # A seed that is there already is a repetition, which says nothing about seeds.
    if run.spec.seed in {other.spec.seed for other in group} or _seedless(run) != _seedless(first):
        return False
    as_far = run.finished == first.finished and (run.finished or run.steps_done == first.steps_done)
    return as_far and all(same_images(other, run) for other in group)


def _seedless(run: RunRecord) -> dict[str, Any]:
    """Return the fields of the spec that decide the result, all but the seed."""
    return {name: value for name, value in io.to_json(run.spec).items() if name not in ("seed", "recipe")}


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
