"""How far a classifier's probabilities can be believed: expected calibration error, reliability bins, likelihood.

The expected calibration error (Naeini et al. 2015; Guo et al. 2017) sorts images by the probability of their
predicted class into bins of equal width, and averages |accuracy - mean probability| over the bins, each weighted by
its share of the images. It depends on the number of bins, which is therefore stated with it.

numpy only. Shapes: n images, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnets.specs.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""Probabilities below count as this in the likelihood: float32 rounds to 0 what a softmax never is."""

# float16 probabilities of a thousand classes add up to 1 within this.
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityBin:
    """Images whose predicted class has a probability in (lower, upper]; figures in percent."""

    lower: float
    upper: float
    images: int
    confidence: float | None
    """Mean probability of the predicted class; None without images."""
    accuracy: float | None
    """Share of the images whose predicted class is right; None without images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How the probabilities of the predicted classes compare with how often they are right."""

    images: int
    expected_calibration_error: float
    """Mean of |accuracy - confidence| over the images, by their bin; percentage points."""
    maximum_calibration_error: float
    """The largest |accuracy - confidence| of a bin; percentage points."""
    confidence: float
    """Mean probability of the predicted class, in percent. Above `accuracy`, the net is overconfident."""
    accuracy: float
    """100 - top-1 error."""
    negative_log_likelihood: float
    """Mean of -log probability of the label, in nats: the cross entropy."""
    bins: tuple[ReliabilityBin, ...]
    """From low to high probability, all of one width."""


def calibration(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], *, bins: int = 15
) -> Calibration:
    """Return how well calibrated probabilities are.

    Args:
        probabilities: of each class, for each image; rows add up to 1.
        labels: index of each image's class.
        bins: number of bins of equal width; 15 is what most papers use.

    Raises:
        DataError: there are no images, or the arrays are not probabilities and labels of one another.
        ValueError: there is no bin.

    >>> certain = calibration(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]), bins=2)
    >>> certain.expected_calibration_error, certain.accuracy, certain.confidence
    (50.0, 50.0, 100.0)
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; it is at least 1.")
    check_probabilities(probabilities, labels)
    confidences = probabilities.max(axis=1).astype(np.float64)
    hits = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    # Bins are open below and closed above, so that the edge 1, which is common, belongs to the last one.
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    found = []
    for index in range(bins):
        members = places == index
        count = int(members.sum())
        found.append(
            ReliabilityBin(
                lower=float(100 * edges[index]),
                upper=float(100 * edges[index + 1]),
                images=count,
                confidence=float(100 * confidences[members].mean()) if count else None,
                accuracy=float(100 * hits[members].mean()) if count else None,
            )
        )
    gaps = [(one.images, abs(one.accuracy - one.confidence)) for one in found if one.accuracy is not None]  # pyright: ignore[reportOperatorIssue]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return Calibration(
        images=len(labels),
        expected_calibration_error=sum(count * gap for count, gap in gaps) / len(labels),
        maximum_calibration_error=max(gap for _, gap in gaps),
        confidence=float(100 * confidences.mean()),
        accuracy=float(100 * hits.mean()),
        negative_log_likelihood=float(-np.log(np.maximum(own, SMALLEST_PROBABILITY)).mean()),
        bins=tuple(found),
    )


def check_probabilities(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> None:
    """Refuse what are not the probabilities and labels of the same images.

    Raises:
        DataError: shapes differ, there are no images, a value is not in 0..1, a row does not add up to 1, or a label
            is not a column. NaN, which stands for images that could not be read, is refused with the rest.
    """
    if (
        probabilities.ndim != 2
        or labels.shape != probabilities.shape[:1]
        or not np.issubdtype(labels.dtype, np.integer)
    ):
        raise DataError(
            f"Probabilities have shape {probabilities.shape} and labels shape {labels.shape} and type {labels.dtype}; "
            "give (images, classes) and a whole number for each image."
        )
    count, classes = probabilities.shape
    if not count:
        raise DataError("There are no images: no probabilities to judge.")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    # Comparisons with NaN are false, so they are asked in the affirmative.
    fine = (probabilities >= 0).all(axis=1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)
    if not fine.all():
        row = int(np.flatnonzero(~fine)[0])
        raise DataError(
            f"Row {row} is no list of probabilities (its sum is {sums[row]:.6g}); every row is 0..1 and adds up to 1. "
            "Leave out images that could not be read, and give softmax scores, not logits."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"Labels go from {labels.min()} to {labels.max()}, and there are {classes} classes.")
