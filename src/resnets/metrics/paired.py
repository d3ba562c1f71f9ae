"""Two treatments measured in pairs: the mean difference, its t interval, and the pairs that a smaller one would take.

A pair shares what is left to chance (here the seed), so that the difference within a pair varies less than either
value. The interval is Student's: mean -+ t(n - 1) * s / sqrt(n), with s the standard deviation of the n differences.
It takes the differences to be independent and roughly normal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDING = 1e-9
"""Differences closer than this, relative to the values, are equal: they come from counts by a division."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """What n pairs say about the difference between two treatments, second minus first."""

    differences: tuple[float, ...]
    """Of each pair."""
    mean: float
    """Of the differences."""
    spread: float | None
    """Standard deviation of the differences (n - 1 in the denominator), exactly 0 where all are equal; None for one
    pair."""
    interval: tuple[float, float] | None
    """Ends of the interval of the mean; None for one pair and where the spread is 0: neither says how far chance
    goes."""
    confidence: float
    """Share of such intervals that hold the true mean, 0 to 1."""

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @property
    def is_told_apart(self) -> bool:
        """Whether the interval leaves out 0; False where there is none."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def paired_difference(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> PairedDifference:
    """Return what the pairs (first[i], second[i]) say about second - first.

    Raises:
        ValueError: there are no pairs, or not as many values on both sides, or one is not finite.

    >>> result = paired_difference([3.0, 4.0, 5.0], [2.0, 2.5, 4.5])
    >>> result.mean, result.spread, [round(end, 4) for end in result.interval]
    (-1.0, 0.5, [-2.2421, 0.2421])
    >>> paired_difference([3.0, 4.0], [2.0, 3.0]).interval is None
    True
    """
    if not first or len(first) != len(second):
        raise ValueError(
            f"there are {len(first)} and {len(second)} values; pairs need as many on both sides, at least 1."
        )
    if not all(map(math.isfinite, (*first, *second))):
        raise ValueError("a value is not finite.")
    differences = tuple(after - before for before, after in zip(first, second, strict=True))
    pairs, size = len(differences), max(1.0, *map(abs, (*first, *second)))
    mean = math.fsum(differences) / pairs
    interval = None
    if pairs == 1:
        spread = None
    elif max(differences) - min(differences) <= _ROUNDING * size:
        spread = 0.0
    else:
        spread = math.sqrt(math.fsum((difference - mean) ** 2 for difference in differences) / (pairs - 1))
        half = _quantile(pairs - 1, confidence) * spread / math.sqrt(pairs)
        interval = (mean - half, mean + half)
    if abs(mean) <= _ROUNDING * size:
        mean = 0.0
    return PairedDifference(differences=differences, mean=mean, spread=spread, interval=interval, confidence=confidence)


def pairs_to_detect(
    difference: float, spread: float, *, power: float = 0.8, confidence: float = 0.95, most: int = 10_000
) -> int | None:
    """Return how many pairs it takes until the interval leaves out 0 with probability `power`.

    The chance is that of the two-sided paired t test, from the noncentral t distribution, if the true mean is
    `difference` and the differences are normal with standard deviation `spread`.

    Returns:
        The smallest such number, at least 2; None above `most`, and where `difference` or `spread` is 0.

    >>> pairs_to_detect(0.5, 1.0)
    34
    """
    if difference == 0 or spread <= 0:
        return None
    low, high = 2, most
    if _power(high, abs(difference) / spread, confidence) < power:
        return None
    while low < high:
        middle = (low + high) // 2
        if _power(middle, abs(difference) / spread, confidence) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def _quantile(degrees: int, confidence: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def _power(pairs: int, effect: float, confidence: float) -> float:
    """Return the chance that the interval of `pairs` pairs leaves out 0; `effect` is mean / standard deviation.

    The noncentral t distribution as a mean over 4,000 quantiles of the standard deviation that the sample may have,
    within about 1e-5: library functions for its tails give NaN for some of the arguments that occur.
    """
    from scipy.special import gammaincinv, ndtr

    degrees = pairs - 1
    shift, edge = effect * math.sqrt(pairs), _quantile(degrees, confidence)
    ranks = (np.arange(4_000) + 0.5) / 4_000
    spreads = np.sqrt(2 * gammaincinv(degrees / 2, ranks) / degrees)
    return float(np.mean(ndtr(shift - edge * spreads) + ndtr(-shift - edge * spreads)))
