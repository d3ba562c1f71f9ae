"""What a classifier gets wrong: errors a class, the mistakes it is surest of, the pairs of classes it confuses.

All from probabilities and labels alone, with numpy. The prediction is the most probable class; of several, the one
with the lowest index, as everywhere in this package. How far the probabilities can be believed is in
`metrics/calibration.py`. Shapes: n images, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resnets.metrics.calibration import check_probabilities

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Int64


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """One image whose most probable class is not its label."""

    index: int
    """Row of the image."""
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""
    label_probability: float
    """Of the class that is right."""
    label_rank: int
    """Place of the right class among the most probable ones; 2 is the second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassErrors:
    """How the images of one class fare."""

    label: int
    images: int
    errors: int
    """Images of the class that are taken for another."""
    error: float | None
    """100 * errors / images, the top-1 error within the class; None for a class without images."""
    false_alarms: int
    """Images of other classes that are taken for this one."""
    most_often_taken_for: int | None
    """The class that most of the errors go to; None without errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfusedPair:
    """Two classes that are taken for one another, `first` before `second` in the order of the classes."""

    first: int
    second: int
    first_as_second: int
    """Images of the first that are taken for the second."""
    second_as_first: int
    images: int
    """Images of both classes."""

    @property
    def mistakes(self) -> int:
        """Mistakes in both directions."""
        return self.first_as_second + self.second_as_first


def confusion_matrix(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]
) -> Int64[np.ndarray, "c c"]:
    """Return the number of images by label (row) and prediction (column).

    Raises:
        DataError: as `check_probabilities`; so do all functions here.
    """
    check_probabilities(probabilities, labels)
    counts = np.zeros((probabilities.shape[1],) * 2, np.int64)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    return counts


def most_confident_mistakes(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], *, most: int = 20
) -> list[Mistake]:
    """Return the mistakes with the most probable predictions, the surest first; of equal ones, the first image.

    Wrong labels and images of several things are found here before anywhere else.
    """
    check_probabilities(probabilities, labels)
    rows = np.arange(len(labels))
    predicted = probabilities.argmax(axis=1)
    sure = probabilities[rows, predicted]
    wrong = np.flatnonzero(predicted != labels)
    # Stable, so that equal ones stay in the order of the images.
    order = wrong[np.argsort(-sure[wrong].astype(np.float64), kind="stable")][:most]
    return [
        Mistake(
            index=int(index),
            label=int(labels[index]),
            predicted=int(predicted[index]),
            probability=float(sure[index]),
            label_probability=float(probabilities[index, labels[index]]),
            label_rank=_rank(probabilities[index], int(labels[index])),
        )
        for index in order
    ]


def errors_by_class(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> list[ClassErrors]:
    """Return the errors of every class, in the order of the classes."""
    counts = confusion_matrix(probabilities, labels)
    wrong = counts - np.diag(np.diag(counts))
    results = []
    for label, row in enumerate(wrong):
        images, errors = int(counts[label].sum()), int(row.sum())
        results.append(
            ClassErrors(
                label=label,
                images=images,
                errors=errors,
                error=100 * errors / images if images else None,
                false_alarms=int(wrong[:, label].sum()),
                most_often_taken_for=int(row.argmax()) if errors else None,
            )
        )
    return results


def most_confused_pairs(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], *, most: int = 10
) -> list[ConfusedPair]:
    """Return the pairs of classes with the most mistakes in both directions together, the worst first.

    Pairs without a mistake are left out; of equally many, those of the earlier classes come first.
    """
    counts = confusion_matrix(probabilities, labels)
    both = np.triu(counts + counts.T, k=1)
    firsts, seconds = np.nonzero(both)
    order = np.argsort(-both[firsts, seconds], kind="stable")[:most]
    totals = counts.sum(axis=1)
    return [
        ConfusedPair(
            first=int(first),
            second=int(second),
            first_as_second=int(counts[first, second]),
            second_as_first=int(counts[second, first]),
            images=int(totals[first] + totals[second]),
        )
        for first, second in zip(firsts[order], seconds[order], strict=True)
    ]


def _rank(row: Float[np.ndarray, " c"], label: int) -> int:
    ahead = (row > row[label]) | ((row == row[label]) & (np.arange(len(row)) < label))
    return 1 + int(ahead.sum())
