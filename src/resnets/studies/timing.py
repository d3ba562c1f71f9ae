"""Times that can be compared: several pieces of work that take turns, round after round, and what their times say.

What a machine does meanwhile (another program, its clock, its temperature) meets all of them alike, and a ratio is
taken within each round, where it cancels out. Figures are medians; the spread is the quartiles over the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Run = Callable[[int], object]
"""Does the work for the n-th time (n = 0, 1, ...). A float that it returns is its seconds, as it measured them itself;
whatever else it returns is ignored."""

Rounds = list[tuple[float, ...]]
"""The seconds of every call, round by round."""


class LostError(Exception):
    """A piece of work cannot go on; the others can. The message is the reason."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several values, and how far they lie apart."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""
    smallest: float
    largest: float


def spread(values: Iterable[float]) -> Spread:
    """Return median, quartiles and extremes of one or more values."""
    ordered = sorted(values)
    quarter, half, three_quarters = (percentile(ordered, share) for share in (25.0, 50.0, 75.0))
    return Spread(half, quarter, three_quarters, ordered[0], ordered[-1])


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value below which `percent` of the values lie, between two of them in proportion.

    >>> percentile([1.0, 2.0, 4.0], 50.0), percentile([1.0, 2.0, 4.0], 75.0)
    (2.0, 3.0)
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def rates(rounds: Sequence[tuple[float, ...]], units: int) -> list[float]:
    """Return units a second in each round, for work whose calls do `units` each."""
    return [units / statistics.fmean(calls) for calls in rounds]


def paired_ratio(ours: Sequence[float], reference: Sequence[float]) -> Spread:
    """Return how many times the reference's rates ours are, from the ratio of each round.

    Raises:
        ValueError: they are not of the same rounds.
    """
    return spread(one / other for one, other in zip(ours, reference, strict=True))


def interleaved(
    runs: Mapping[str, Run],
    *,
    rounds: int,
    warm_up: int = 1,
    calls: int = 1,
    seconds: float = 0.0,
    unmeasured: int = 0,
    rest: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] = lambda number: None,
    on_lost: Callable[[str, LostError], None] | None = None,
) -> dict[str, Rounds]:
    """Let all of `runs` take their turn in every round, and return the seconds of their calls.

    Each round is in another random order, the same orders each time that this is called, so that none always has the
    caches, or the heat, that the same other one has left. Turns that only rotate would leave each its predecessor.

    Args:
        runs: the work, by name. A call is given how often it was called before.
        rounds: rounds that count.
        warm_up: rounds before them, of a single call each, which import, allocate, compile and fill caches.
        calls: calls a turn, at least.
        seconds: a turn goes on until its calls have taken this long together.
        unmeasured: calls at the beginning of each turn that do not count, where a pause leaves its trace.
        rest: done before each turn, such as to wait until the threads of the one before have gone to sleep.
        clock: seconds.
        on_round: told the number of each round as it begins; those of the warm-up are below 0.
        on_lost: told which one raised `LostError`; it is left out from there on, and of the result. None raises it.

    Returns:
        Under each name, the seconds of the calls of each round that counts.
    """
    measured: dict[str, Rounds] = {name: [] for name in runs}
    done = dict.fromkeys(runs, 0)
    random = np.random.default_rng(0)
    for number in range(-warm_up, rounds):
        on_round(number)
        names = list(measured)
        for place in random.permutation(len(names)).tolist():
            name = names[place]
            rest()
            turn: list[float] = []
            left = unmeasured if number >= 0 else 0
            try:
                while not turn or (number >= 0 and (len(turn) < calls or sum(turn) < seconds)):
                    took = _timed(runs[name], done[name], clock)
                    done[name] += 1
                    if left:
                        left -= 1
                    else:
                        turn.append(took)
            except LostError as error:
                if on_lost is None:
                    raise
                del measured[name]
                on_lost(name, error)
                continue
            if number >= 0:
                measured[name].append(tuple(turn))
    return measured


def _timed(run: Run, number: int, clock: Callable[[], float]) -> float:
    started = clock()
    own = run(number)
    return own if isinstance(own, float) else clock() - started
