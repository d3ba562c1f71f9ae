"""Outcomes as text for a terminal of any width: run, ours, paper, difference, verdict; below it what stands behind."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

from resnets.paper.core.experiment import BUDGETS
from resnets.paper.core.outcome import data_text, test_text
from resnets.paper.core.verdict import rule_text
from resnets.specs.errors import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.experiment import Row
    from resnets.paper.core.listing import State
    from resnets.paper.core.outcome import Outcome, RowOutcome

HEADINGS = ("run", "ours", "paper", "difference", "verdict")
_GAP = "  "
_LEGEND = (
    "[x] done at its largest budget, [/] partly, [ ] open, [!] a row fails. Columns: rows filled / rows that can be filled "
    "at a budget; on call, or +N: computed when asked for; a dash: not in this package yet.",
    "next: resnets reproduce NAME --budget check|cpu|gpu|full",
)


def outcome_text(outcome: Outcome, width: int) -> str:
    """Return an outcome as lines of at most `width` letters, where words allow."""
    experiment = outcome.experiment
    rows = _shown(outcome)
    lines = [experiment.title, *_wrapped(experiment.claim, width), ""]
    lines += _table(rows, width)
    lines += _seeds(rows, width)
    if runs := list(_runs(outcome.runs(), width)):
        lines += ["", "runs", *runs]
    lines += _section("how it is judged", _rules(rows), width)
    lines += _section("not run", _reasons([one for one in rows if one.ours is None]), width)
    lines += _section("remarks", _reasons([one for one in rows if one.ours is not None]), width)
    lines += _section("notes", [*experiment.notes, *outcome.notes], width)
    lines += _section("pictures", map(str, outcome.pictures), width)
    larger = [
        f"--budget {budget}: {experiment.cost[budget]}"
        for budget in BUDGETS[BUDGETS.index(outcome.budget) + 1 :]
        if budget in experiment.cost
    ]
    lines += _section("more", larger, width)
    return "\n".join([*lines, "", *_wrapped(_summary(outcome), width)])


def _shown(outcome: Outcome) -> list[RowOutcome]:
    """Return the rows, without the empty ones of the full budget where something smaller was asked for."""
    rows = outcome.rows
    if outcome.budget in ("cpu", "gpu") and any(one.row.budget == outcome.budget for one in rows):
        rows = [one for one in rows if one.row.budget != "full" or one.ours is not None]
    return list(rows)


def listing_text(states: Sequence[State], width: int) -> str:
    """Return the list of all experiments: how much of each is done, for every budget."""
    name_width = max(len(state.name) for state in states)
    cells = [[state.cell(budget) for budget in BUDGETS] for state in states]
    widths = [max(map(len, column)) for column in zip(BUDGETS, *cells, strict=True)]
    indent = 4 + name_width + 2 + sum(widths) + 2 * len(widths)
    heading = " " * (6 + name_width) + _GAP.join(f"{b:<{w}}" for b, w in zip(BUDGETS, widths, strict=True))
    lines = [heading.rstrip()]
    for state, row in zip(states, cells, strict=True):
        filled = _GAP.join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True))
        start = f"[{state.mark}] {state.name:<{name_width}}{_GAP}{filled}{_GAP}"
        title = textwrap.wrap(state.title, max(20, width - indent)) or [""]
        lines += [start + title[0], *(" " * len(start) + more for more in title[1:])]
    for text in _LEGEND:
        lines += ["", *_wrapped(text, width)]
    return "\n".join(line.rstrip() for line in lines)


def number(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """Return a number with so many decimals; a real minus, and no sign on what rounds to zero.

    >>> number(-0.004, 2, sign=True)
    '0.00'
    """
    if value is None:
        return ""
    text = f"{value:+,.{decimals}f}" if sign else f"{value:,.{decimals}f}"
    return text.lstrip("+-") if not text.strip("+-0.,") else text


def _table(rows: Sequence[RowOutcome], width: int) -> Iterator[str]:
    cells = [_cells(outcome) for outcome in rows]
    numbers = [max(len(HEADINGS[place]), *(len(row[place]) for row in cells)) for place in range(1, 5)]
    label = max(len(HEADINGS[0]), *(2 + len(row[0]) for row in cells))
    label = max(16, min(label, width - sum(numbers) - len(_GAP) * 4))

    def line(first: str, others: Sequence[str]) -> str:
        parts = [f"{first:<{label}}", *(f"{text:>{size}}" for text, size in zip(others[:3], numbers, strict=False))]
        return _GAP.join([*parts, others[3]]).rstrip()

    yield line(HEADINGS[0], HEADINGS[1:])
    grouped = itertools.groupby(
        zip(rows, cells, strict=True), key=lambda pair: (pair[0].row.meaning, pair[0].row.source)
    )
    for (meaning, source), group in grouped:
        yield from _wrapped(f"{meaning} ({source})", width)
        for _, (first, *others) in group:
            head, *more = textwrap.wrap(first, label - 2) or [""]
            yield line(f"  {head}", others)
            yield from (f"    {text}" for text in more)


def _cells(outcome: RowOutcome) -> tuple[str, str, str, str, str]:
    row = outcome.row
    paper = row.printed or (_paper_number(row) if row.paper is not None else "-")
    if outcome.ours is None:
        return row.run, "not run", paper, "", "-"
    # fp32 is what the paper has; anything else is said where the number stands.
    remarks = [outcome.precision, f"tested in {outcome.tested_in}" if outcome.tested_in else ""]
    remarks = [remark for remark in remarks if remark not in ("", "fp32", "tested in fp32")]
    run = f"{row.run} ({'; '.join(remarks)})" if remarks else row.run
    spread = f" ± {number(outcome.spread, row.decimals)}" if outcome.spread is not None else ""
    ours = number(outcome.ours, row.decimals)
    if spread and getattr(row.ours, "over_seeds", "mean") == "best":
        ours += f" ({number(outcome.mean, row.decimals)}{spread})"
    else:
        ours += spread
    return run, ours, paper, number(outcome.delta, row.decimals, sign=True), outcome.verdict


def _paper_number(row: Row) -> str:
    # The digits that the paper prints, no more: 3.6, not 3.600.
    return f"{row.paper:,.15g}"


def _runs(named: Sequence[tuple[str, FoundRun]], width: int) -> Iterator[str]:
    """Yield what some runs have in common, then a line a run with its seed, its time and its folder."""
    groups: dict[str, list[tuple[str, FoundRun]]] = {}
    for name, run in named:
        spec = run.spec
        share = "" if spec.steps == spec.full_steps else f" (of {spec.full_steps:,}: shortened)"
        facts = (
            f"{spec.steps:,} iterations{share} of {spec.global_batch} images, {spec.precision}, {data_text(run)}; "
            f"{test_text(run)}; {run.device}"
        )
        groups.setdefault(facts, []).append((name, run))
    longest = max((len(name) for name, _ in named), default=0)
    for facts, runs in groups.items():
        yield from _hanging(facts, width)
        for name, run in sorted(runs, key=lambda entry: (entry[0], entry[1].spec.seed)):
            time = duration(run.seconds)
            yield f"    {name:<{longest}}  seed {run.spec.seed}  {time:>10}  {run.path}"


def duration(seconds: float | None) -> str:
    """Return a time in the units a person uses.

    >>> duration(8130)
    '2 h 16 min'
    """
    if seconds is None:
        return "time unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _seeds(rows: Sequence[RowOutcome], width: int) -> Iterator[str]:
    """Yield the numbers of the single seeds, for the rows that have several."""
    several = [outcome for outcome in rows if len(outcome.seeds) > 1]
    for seeds, group in itertools.groupby(several, key=lambda outcome: [one.seed for one in outcome.seeds]):
        yield from ("", f"seeds {', '.join(map(str, seeds))}")
        for meaning, inner in itertools.groupby(group, key=lambda outcome: outcome.row.meaning):
            yield from _hanging(meaning, width)
            for outcome in inner:
                values = "  ".join(number(one.value, outcome.row.decimals) for one in outcome.seeds)
                yield from _hanging(f"{outcome.row.run}: {values}", width, indent=4)


def _rules(rows: Sequence[RowOutcome]) -> Iterator[str]:
    """Yield each rule once, after what it is about: a kind of number where all of that kind share it, else rows."""
    filled = [outcome.row for outcome in rows if outcome.ours is not None]
    rules_of: dict[str, set[str]] = {}
    for row in filled:
        rules_of.setdefault(row.meaning, set()).add(rule_text(row.rule))
    about: dict[str, dict[str, None]] = {}
    for row in filled:
        text = rule_text(row.rule)
        name = row.meaning if len(rules_of[row.meaning]) == 1 else f"{row.run} ({row.meaning})"
        about.setdefault(text, {})[name] = None
    for text, names in about.items():
        yield f"{'; '.join(names)}: {text}"


def _reasons(rows: Sequence[RowOutcome]) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for outcome in rows:
        if outcome.reason:
            by_reason.setdefault(outcome.reason, []).append(outcome.row.run)
    for reason, names in by_reason.items():
        yield f"{_listed(list(dict.fromkeys(names)))}: {reason}"


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _summary(outcome: Outcome) -> str:
    counts = outcome.counts()
    words = {"PASS": "passed", "FAIL": "FAILED", "REPORT": "reported", "not run": "not run"}
    if hidden := len(outcome.rows) - len(_shown(outcome)):
        counts["not run"] -= hidden
    parts = [f"{count} {words[kind]}" for kind, count in counts.items() if count]
    if hidden:
        parts.append(f"{hidden} of the paper's own runs not shown (--budget check lists them)")
    trained = f", {counted(outcome.trained, 'run')} trained" if outcome.trained else ""
    return f"{', '.join(parts)}; budget {outcome.budget}, {duration(outcome.seconds)}{trained}"


def _section(title: str, entries: Iterator[str] | Sequence[str] | map[str], width: int) -> list[str]:
    lines = [line for entry in entries for line in _hanging(entry, width)]
    return ["", title, *lines] if lines else []


def _hanging(text: str, width: int, indent: int = 2) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
