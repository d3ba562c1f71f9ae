"""A comparison on a terminal of 80 columns: errors seed by seed, the cost of both nets, and the sentence."""

from __future__ import annotations

import statistics
import textwrap
from typing import TYPE_CHECKING

from resnets.specs.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from resnets.metrics.paired import PairedDifference
    from resnets.studies.comparison import Comparison

WIDTH = 80


def print_comparison(comparison: Comparison) -> None:
    """Print what `resnets compare` has found."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in _opening(comparison):
        console.print(line, markup=False)
    console.print()
    _print_table(console, _error_table(comparison))
    for line in _notes(comparison):
        console.print(line, style="dim", markup=False)
    console.print()
    for index, sentence in enumerate(comparison.sentences):
        console.print(_filled(sentence), style="" if index else "bold", markup=False)
    console.print()
    _print_table(console, _cost_table(comparison))
    ratios = (comparison.speed_ratio, comparison.time_ratio)
    if len(comparison.seeds) > 1 and any(ratio is not None for ratio in ratios):
        console.print("speed and time: medians; B / A over the pairs, which ran one after the other.", style="dim")
    console.print(f"\ncurves  {visible(comparison.picture)}\nruns    {visible(comparison.folder)}", markup=False)


def _print_table(console: Console, table: Table) -> None:
    """Print a table without the blanks at the ends of its lines."""
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(visible(text), WIDTH, initial_indent=indent, subsequent_indent=indent)


def _opening(comparison: Comparison) -> list[str]:
    from resnets.studies.differing import warnings

    lines = [_filled(f"{side.upper()}  {spec.recipe}") for side, spec in comparison.specs.items()]
    if comparison.differing:
        count = len(comparison.differing)
        lines.append(f"They differ in {'one field' if count == 1 else f'{count} fields'}:")
    lines += [_filled(line, "   ") for line in comparison.differing]
    lines += [_filled(f"warning: {line}") for line in warnings(comparison.differing)]
    return lines


def _error_table(comparison: Comparison) -> Table:
    """Return the errors of each seed, their means and spreads, and the interval of the differences."""
    from rich.table import Table

    trained, tested = comparison.trained, comparison.tested
    first = comparison.outcomes["a"][0]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("error in %", no_wrap=True)
    for heading in (f"{first.split} A", f"{first.split} B", "B - A"):
        table.add_column(heading, justify="right", no_wrap=True)
    if trained is not None:
        for heading in ("  training A", "training B", "B - A"):
            table.add_column(heading, justify="right", no_wrap=True)
    pairs = [tested] if trained is None else [tested, trained]
    kinds = ["top1_error", "train_error"][: len(pairs)]
    columns = [
        [[getattr(outcome, kind) for outcome in comparison.outcomes[side]] for side in ("a", "b")] for kind in kinds
    ]
    for index, seed in enumerate(comparison.seeds):
        cells = [f"seed {seed}"]
        for (a, b), pair in zip(columns, pairs, strict=True):
            cells += [f"{a[index]:.2f}", f"{b[index]:.2f}", f"{pair.differences[index]:+.2f}"]
        table.add_row(*cells)
    if len(comparison.seeds) > 1:
        table.add_row()
        means, spreads = ["mean"], ["standard deviation"]
        for (a, b), pair in zip(columns, pairs, strict=True):
            means += [f"{statistics.fmean(a):.2f}", f"{statistics.fmean(b):.2f}", f"{pair.mean:+.2f}"]
            spreads += [f"{statistics.stdev(a):.2f}", f"{statistics.stdev(b):.2f}", f"{pair.spread or 0:.2f}"]
        table.add_row(*(f"[bold]{cell}[/]" for cell in means))
        table.add_row(*spreads)
        for label, end in (("95 % interval from", 0), ("to", 1)):
            cells = [label]
            for pair in pairs:
                cells += ["", "", _end(pair, end)]
            table.add_row(*cells)
    return table


def _end(pair: PairedDifference, end: int) -> str:
    return "-" if pair.interval is None else f"{pair.interval[end]:+.2f}"


def _notes(comparison: Comparison) -> list[str]:
    outcomes = [outcome for side in comparison.outcomes.values() for outcome in side]
    counts = sorted({outcome.images for outcome in outcomes})
    images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    about = f"{outcomes[0].split}: final weights on {images} images"
    if comparison.trained is not None:
        about += "; training: over the last tenth of the run"
    lines = [f"{about}."]
    shortened = [(side, spec) for side, spec in comparison.specs.items() if spec.steps < spec.full_steps]
    if shortened:
        lengths = dict.fromkeys(f"{spec.steps:,} of the recipe's {spec.full_steps:,} steps" for _, spec in shortened)
        sides = " and ".join(side.upper() for side, _ in shortened)
        lines.append(f"{sides} shortened to {' and '.join(lengths)}; whole runs may differ in another way.")
    if reused := sum(outcome.reused for outcome in outcomes):
        lines.append(
            f"{reused} of {len(outcomes)} runs were finished elsewhere before: taken from there, left out of speed and "
            "time (--json has their folders; --no-reuse trains them)."
        )
    if skipped := sum(outcome.skipped for outcome in outcomes):
        lines.append(f"{skipped} times an image could not be read; it is in no score (--json has them run by run).")
    return [_filled(line) for line in lines]


def _cost_table(comparison: Comparison) -> Table:
    from rich.markup import escape
    from rich.table import Table

    a, b = comparison.costs["a"], comparison.costs["b"]
    _, height, width = a.input_shape
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cost", no_wrap=True)
    for heading in ("A", "B", "B / A"):
        table.add_column(heading, justify="right", overflow="fold", max_width=24)
    table.add_row("net", escape(visible(a.model)), escape(visible(b.model)), "")
    table.add_row("parameters", f"{a.parameters:,}", f"{b.parameters:,}", _ratio(a.parameters, b.parameters))
    size = f"{height} x {width}" if a.input_shape == b.input_shape else "its own input"
    table.add_row(
        f"multiply-adds, {size}",
        f"{a.multiply_adds:,}",
        f"{b.multiply_adds:,}",
        _ratio(a.multiply_adds, b.multiply_adds),
    )
    rates = [comparison.images_per_second(side) for side in ("a", "b")]
    table.add_row("training images a second", *(_figure(rate) for rate in rates), _figure(comparison.speed_ratio, 2))
    times = [comparison.seconds(side) for side in ("a", "b")]
    table.add_row("wall time of a run", *(_duration(seconds) for seconds in times), _figure(comparison.time_ratio, 2))
    return table


def _ratio(a: int, b: int) -> str:
    return f"{b / a:.2f}" if a else "-"


def _figure(value: float | None, decimals: int = 0) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not timed"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
