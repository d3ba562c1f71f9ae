"""A benchmark on a terminal of 80 columns: a line a system, what is not there, and what must be known to read it."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, Any

from resnets.specs.errors import counted
from resnets.specs.visible import in_line
from resnets.studies.bench import joined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resnets.studies.bench import Benchmark, Row
    from resnets.studies.timing import Spread

WIDTH = 80


def print_benchmarks(found: Sequence[Benchmark], columns: Sequence[tuple[str, Callable[[Row], str]]] = ()) -> None:
    """Print what `resnets bench` has measured; `columns` are headings and cells beside rates and ratios."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for one in found:
        console.print(_filled(one.what), style="bold", markup=False)
        console.print()
        with console.capture() as captured:
            console.print(_table(one, columns))
        for line in captured.get().splitlines():
            print(line.rstrip())
        print()
    for line in _about(joined(found)):
        console.print(_filled(line), style="dim", markup=False)


def milliseconds(place: int) -> Callable[[Row], str]:
    """Return the cell of the median (0) or the 90th percentile (1) of a call."""
    return lambda row: "" if row.call_ms is None else figure(row.call_ms[place])


def fact(name: str, form: str = "{}", empty: str = "-") -> Callable[[Row], str]:
    """Return the cell of a fact; `empty` where a row has it as None, nothing where it has it not."""

    def cell(row: Row) -> str:
        if name not in row.facts:
            return ""
        value: Any = row.facts[name]
        return empty if value is None else form.format(value)

    return cell


def figure(value: float) -> str:
    """Return a number with three significant digits, or all those before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(found: Benchmark, columns: Sequence[tuple[str, Callable[[Row], str]]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("system")
    for heading in ("images/s", "middle half", "ratio", "middle half", *(heading for heading, _ in columns)):
        table.add_column(heading, justify="right", no_wrap=True)
    measured = [row for row in found.rows if row.images_per_second is not None]
    notes = [row.note for row in measured if row.note]
    for number, (_, group) in enumerate(itertools.groupby(measured, key=lambda row: row.against)):
        if number:
            table.add_row()
        for row in group:
            mark = f" [{1 + list(dict.fromkeys(notes)).index(row.note)}]" if row.note else ""
            name = escape(in_line(row.system) + mark)
            is_reference = row.system == row.against
            cells = [name, *_rate_and_spread(row.images_per_second), *_ratio(row, is_reference)]
            table.add_row(*cells, *(escape(cell(row)) for _, cell in columns), style="dim" if is_reference else "")
    return table


def _rate_and_spread(rate: Spread | None) -> tuple[str, str]:
    return ("", "") if rate is None else (figure(rate.median), f"{figure(rate.low)}-{figure(rate.high)}")


def _ratio(row: Row, is_reference: bool) -> tuple[str, str]:
    if is_reference:
        return "1", ""
    if row.ratio is None:
        return "-", ""
    return f"{row.ratio.median:.2f}", f"{row.ratio.low:.2f}-{row.ratio.high:.2f}"


def _about(found: Benchmark) -> list[str]:
    lines: list[str] = []
    notes = dict.fromkeys(row.note for row in found.rows if row.note and row.images_per_second is not None)
    lines += [f"[{number}] {note}" for number, note in enumerate(notes, start=1)]
    for row in found.rows:
        if row.images_per_second is None:
            lines.append(f"{row.system}: {row.reason}" + (f"; {row.hint}" if row.hint else ""))
    rounds = "one round" if found.rounds == 1 else f"{found.rounds} rounds in turns"
    lines.append(
        f"Medians of {rounds}, and between what half of the rounds lie. A ratio is taken within each round, to the "
        "first line above it."
    )
    lines += found.notes
    hardware, versions = found.hardware, found.document()["versions"]
    where = hardware["gpu"] or f"{hardware['processor']}, {counted(hardware['cores'], 'core')}"
    shown = [f"{name} {version}" for name, version in versions.items() if name not in ("resnets", "scikit-learn")]
    lines.append(f"{where}; threads {hardware['threads']}; {', '.join(shown)}")
    return lines


def _filled(text: str) -> str:
    return textwrap.fill(in_line(text), WIDTH, subsequent_indent="  ")
