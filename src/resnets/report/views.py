"""From runs and examinations to what the page shows: numbers, comparison, contents, and where each stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.report.comparison import (
    differences_table,
    error_of,
    last_training_error,
    results_table,
    seeds_table,
    verdict,
)
from resnets.report.examination import overlap
from resnets.report.examination_figures import class_comparison
from resnets.report.figure import Table
from resnets.report.response_figures import response_figures, response_sentence, response_table
from resnets.report.run_figures import error_figure
from resnets.report.run_view import run_view
from resnets.report.text import LONGEST_NOTE, count, listed, percent, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from resnets.report.examination import Examination
    from resnets.report.part import RunPart
    from resnets.report.run_record import RunRecord

_LONGEST_COMMAND = 10_000
"""Characters of a command, which names every run of the page; one that is cut is of no use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A number in large type."""

    name: str
    value: str
    unit: str
    about: str


def page_view(parts: Sequence[RunPart], title: str | None, generator: str) -> dict[str, Any]:
    """Return what `report.html.jinja` is filled with."""
    records = [part.record for part in parts]
    several = len(parts) > 1
    runs = [run_view(part, f"run-{index}", several) for index, part in enumerate(parts, 1)]
    # One mapping for all charts: a run without curves has a colour too.
    colors = {record.name: color for color, record in enumerate(records)}
    errors = error_figure(records, colors)
    comparison = _comparison(parts) if several else None
    responses = _responses(parts, colors)
    missing = _missing(parts)
    names = [record.name for record in records]
    default = listed(names) if len(names) <= 2 else f"{len(names)} runs compared"
    return {
        "title": printable(title, 200) if title else default,
        "over": "Training runs" if several else "Training run",
        "lead": [] if several else runs[0]["sentences"],
        "notes": [] if several else runs[0]["notes"],
        "facts": [] if several else _facts(records[0], parts[0].examination),
        "contents": _contents(runs, errors is not None, comparison, responses, missing),
        "comparison": comparison,
        "errors": errors,
        "responses": responses,
        "missing": missing,
        "untested": any(part.missing is not None for part in parts),
        "runs": runs,
        "several": several,
        "generator": generator,
        "footer": f"Made by {generator} from the files of the {'runs' if several else 'run'}: config.json, metrics.jsonl, "
        "env.json and, where its images were at hand, the weights. Errors are top-1 errors in percent of all images.",
    }


def _responses(parts: Sequence[RunPart], colors: Mapping[str, int]) -> dict[str, Any] | None:
    nets = [
        (part.record.name, colors[part.record.name], part.examination)
        for part in parts
        if part.examination is not None and part.examination.responses
    ]
    if not nets:
        return None
    return {
        "sentence": response_sentence(nets),
        "figures": response_figures(nets, numbered=len(parts) > 1),
        "table": response_table(nets),
    }


def _missing(parts: Sequence[RunPart]) -> list[dict[str, str]]:
    """Return what each run lacks, and once, after the last run that it is about, the command that adds it."""
    several = len(parts) > 1
    found = []
    for part in parts:
        name = f"{part.record.name}: " if several else ""
        if part.missing is not None:
            found.append((f"{name}{part.missing.reason}", part.missing.command))
        elif part.examination is not None and not part.examination.responses:
            found.append((f"{name}No layer responses. {part.examination.without_responses}", ""))
    later = [{command for _, command in found[index + 1 :]} for index in range(len(found))]
    return [
        {
            "text": printable(text, LONGEST_NOTE),
            "command": printable(command, _LONGEST_COMMAND) if command not in after else "",
        }
        for (text, command), after in zip(found, later, strict=True)
    ]


def _contents(
    runs: list[dict[str, Any]],
    errors: bool,
    comparison: dict[str, Any] | None,
    responses: dict[str, Any] | None,
    missing: list[dict[str, str]],
) -> list[dict[str, str]]:
    entries = [("comparison", "Comparison")] if comparison else []
    entries += [("errors", "Error curves")] if errors else []
    if comparison:
        entries += [("tested-together", "Tested side by side")] if comparison["tested"] else []
        entries += [("responses", "Layer responses")] if responses else []
        entries += [(run["anchor"], run["name"]) for run in runs]
    else:
        (run,) = runs
        anchor = run["anchor"]
        if run["examination"]:
            entries += [(f"{anchor}-tested", "Classes"), (f"{anchor}-confusion", "Confusions")]
            entries += [(f"{anchor}-calibration", "Calibration")]
            entries += [(f"{anchor}-mistakes", "Most confident mistakes")] if run["examination"]["cards"] else []
        entries += [("responses", "Layer responses")] if responses else []
        entries += [(f"{anchor}-course", "Course of the training")] if run["course"] else []
        entries += [(f"{anchor}-environment", "Environment")]
    entries += [("missing", "Not in this report")] if missing else []
    return [{"identifier": identifier, "text": text} for identifier, text in entries]


def _facts(run: RunRecord, examination: Examination | None) -> list[Fact]:
    """Return the numbers that a single run is judged by, as its log has them."""
    facts = []
    if end := error_of(run):
        which = "final weights" if run.log.final else f"step {count(end.step)}"
        over = f", {count(end.images)} images" if end.images is not None else ""
        about = f"{which}{over}, {count(end.skipped)} skipped"
        facts.append(Fact(name=f"{end.split} error", value=percent(end.top1_error), unit="%", about=about))
    if (best := run.log.best) and (end is None or best.top1_error < end.top1_error):
        about = f"at step {count(best.step)}; chosen by the {best.split} split itself"
        facts.append(Fact(name="lowest on the way", value=percent(best.top1_error), unit="%", about=about))
    if (training := last_training_error(run)) is not None:
        about = "augmented images, last line of the log"
        facts.append(Fact(name="training error", value=percent(training), unit="%", about=about))
    top5 = next((entry.top5_error for entry in reversed(run.log.evaluations) if entry.top5_error is not None), None)
    if top5 is not None and run.log.evaluations:
        about = f"at step {count(run.log.evaluations[-1].step)}"
        facts.append(Fact(name="top-5 error", value=percent(top5), unit="%", about=about))
    if examination:
        found = examination.calibration
        about = f"expected, {len(found.bins)} bins"
        name = "calibration error"
        facts.append(Fact(name=name, value=percent(found.expected_calibration_error), unit="points", about=about))
    return facts


def _comparison(parts: Sequence[RunPart]) -> dict[str, Any]:
    records = [part.record for part in parts]
    tested = [(part.record.name, part.examination) for part in parts if part.examination is not None]
    tables: list[Table] = []
    sentence = ""
    if len(tested) > 1:
        shares = overlap([one for _, one in tested])
        by_class = class_comparison(tested)
        tables = [table for table in (by_class, _overlap_table(tested, shares) if shares else None) if table]
        sentence = f"The nets of {listed([name for name, _ in tested])}, tested again for this report."
    return {
        "verdict": verdict(records),
        "results": results_table(records),
        "seeds": seeds_table(records),
        "differences": differences_table(records),
        "tested": tables,
        "tested_sentence": sentence,
    }


def _overlap_table(tested: Sequence[tuple[str, Examination]], shares: Sequence[tuple[int, int, int, int]]) -> Table:
    first = tested[0][0]
    rows = tuple((name, *map(count, numbers)) for (name, _), numbers in zip(tested[1:], shares, strict=True))
    headers = ("run", "both right", f"only {first} right", "only this run right", "both wrong")
    return Table(caption=f"Images that {first} and another run get right", headers=headers, rows=rows)
