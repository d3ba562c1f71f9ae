"""A paired difference in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnets.metrics.paired import PairedDifference


def sentences(difference: PairedDifference, seeds_for_half: int | None) -> tuple[str, ...]:
    """Return what can be said of the difference between the errors of B and A, and what more seeds would tell.

    Args:
        difference: B minus A, in points of percent.
        seeds_for_half: seeds that would tell half of it from 0 four times in five; None where that is not known.
    """
    return (_what_is_told(difference), *_what_more_seeds_tell(difference, seeds_for_half))


def _what_is_told(difference: PairedDifference) -> str:
    seeds = _seeds(difference.pairs)
    if difference.interval is None:
        errs = _errs(difference.mean, _decimals(difference.mean))
        if difference.pairs == 1:
            return f"{errs} with one seed: one seed shows no spread, so there is no interval and this may be chance."
        if difference.mean == 0:
            return f"{errs} with each of {seeds}: no difference was seen, and without a spread there is no interval."
        return (
            f"{errs} with each of {seeds}: without a spread there is no interval; more seeds would show whether this is "
            "chance."
        )
    decimals = _decimals(difference.mean, *difference.interval)
    errs = _errs(difference.mean, decimals)
    share = f"{100 * difference.confidence:g} %"
    if difference.is_told_apart:
        near, far = sorted(map(abs, difference.interval))
        return (
            f"{errs} ({share} interval {near:.{decimals}f} to {far:.{decimals}f}, {seeds}): a difference of this size is "
            "unlikely to be chance."
        )
    low, high = difference.interval
    return (
        f"No difference can be told from {seeds}: {errs}, and the {share} interval goes from {_points(low, decimals)} to "
        f"{_points(high, decimals)}."
    )


def _what_more_seeds_tell(difference: PairedDifference, seeds_for_half: int | None) -> tuple[str, ...]:
    if difference.pairs == 1 or not difference.spread or not difference.mean:
        return ()
    if seeds_for_half is None:
        return ("A difference of half this size would take more than 10,000 seeds to be told from 0.",)
    if seeds_for_half <= difference.pairs:
        return (f"Were the spread the same, {_seeds(difference.pairs)} are enough for half of this difference too.",)
    return (
        f"Were the spread the same, about {seeds_for_half:,} seeds would tell half of this difference from 0, four times "
        "in five.",
    )


def _errs(mean: float, decimals: int) -> str:
    if mean == 0:
        return "A and B err equally"
    return f"B errs {abs(mean):.{decimals}f} points {'less' if mean < 0 else 'more'} than A"


def _points(value: float, decimals: int) -> str:
    if value == 0:
        return "0"
    return f"{abs(value):.{decimals}f} {'less' if value < 0 else 'more'}"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _decimals(*values: float) -> int:
    """Return the decimals with which no value but 0 is shown as 0: one, or two where the first value is below 1."""
    least = 1 if abs(values[0]) >= 1 else 2
    return next((count for count in range(least, 6) if all(round(value, count) or not value for value in values)), 6)
