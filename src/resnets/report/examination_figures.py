"""Figures and tables of an examination: confusions, errors of the classes, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnets.report.chart import Bar, Chart, draw, linear_axis
from resnets.report.figure import Figure, KeyEntry, Table
from resnets.report.text import NOTHING, count, percent, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.report.examination import Examination

CONFUSION_CLASSES = 20
"""Up to so many classes, the whole matrix is shown."""
SHOWN_CLASSES = 20
"""Of more classes, those with the highest error are shown."""
SHADES = 8
"""Steps of the heat map's colour; the style sheet has a class for each."""
_CLASS_NAME = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatCell:
    """One cell of the confusion matrix."""

    text: str
    shade: int
    """0 is none; others grow with the share of the row's images."""
    right: bool
    """Whether it is on the diagonal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """The confusion matrix of few classes."""

    classes: tuple[str, ...]
    rows: tuple[tuple[HeatCell, ...], ...]
    highest: float
    """Share of a row, in percent, that the darkest shade stands for."""

    @property
    def is_upright(self) -> bool:
        """Whether the names above the columns are so short that they need not be turned."""
        return max(map(len, self.classes)) <= 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One class in the table of errors."""

    name: str
    images: str
    error: str
    share: float
    """Length of the bar in percent of the longest one's room."""
    taken_for: str
    false_alarms: str


def shown_classes(examination: Examination) -> tuple[str, ...]:
    """Return the classes' names as the page shows them."""
    return tuple(printable(name, _CLASS_NAME) for name in examination.classes)


def heat_map(examination: Examination) -> HeatMap | None:
    """Return the confusion matrix; None of more classes than fit on a page."""
    matrix = examination.confusion
    if len(matrix) > CONFUSION_CLASSES:
        return None
    totals = matrix.sum(axis=1)
    shares = [[100 * cell / total if total else 0.0 for cell in row] for row, total in zip(matrix, totals, strict=True)]
    wrong = [share for row, cells in enumerate(shares) for column, share in enumerate(cells) if row != column]
    highest = max(wrong, default=0.0)
    rows = []
    for row, cells in enumerate(matrix.tolist()):
        line = []
        for column, images in enumerate(cells):
            share = shares[row][column]
            # Rounded up: one mistake is never shown as none.
            shade = -int(-SHADES * share // highest) if highest and row != column else 0
            line.append(
                HeatCell(
                    text=count(images) if images or row == column else "·",
                    shade=min(shade, SHADES),
                    right=row == column,
                )
            )
        rows.append(tuple(line))
    return HeatMap(classes=shown_classes(examination), rows=tuple(rows), highest=highest)


def pairs_table(examination: Examination) -> Table | None:
    """Return the pairs of classes that are most often taken for one another; None without a mistake."""
    names = shown_classes(examination)
    rows = tuple(
        (
            names[pair.first],
            names[pair.second],
            count(pair.first_as_second),
            count(pair.second_as_first),
            percent(100 * pair.mistakes / pair.images),
        )
        for pair in examination.pairs
    )
    headers = ("class", "and class", "first as second", "second as first", "% of both")
    return (
        Table(caption="Most confused pairs", headers=headers, rows=rows, text_columns=frozenset({0, 1}))
        if rows
        else None
    )


def class_rows(examination: Examination) -> tuple[ClassRow, ...]:
    """Return the classes by their error, the highest first; of many, only the first ones. Those without images last."""
    names = shown_classes(examination)
    ordered = sorted(examination.class_errors, key=lambda one: (one.error is None, -(one.error or 0.0)))
    longest = max((one.error or 0.0 for one in ordered), default=0.0) or 1.0
    return tuple(
        ClassRow(
            name=names[one.label],
            images=count(one.images),
            error=percent(one.error),
            share=round(100 * (one.error or 0.0) / longest, 2),
            taken_for=NOTHING if one.most_often_taken_for is None else names[one.most_often_taken_for],
            false_alarms=count(one.false_alarms),
        )
        for one in ordered[:SHOWN_CLASSES]
    )


def reliability_figure(examination: Examination, prefix: str) -> Figure:
    """Return how often the net is right against how sure it is, as Guo et al. (2017) draw it."""
    found = examination.calibration
    filled = [(one, one.accuracy, one.confidence) for one in found.bins if one.accuracy is not None]
    bars: list[Bar] = []
    for one, accuracy, confidence in filled:
        assert confidence is not None
        bars.append(Bar(left=one.lower, right=one.upper, bottom=0.0, top=accuracy, name="accuracy"))
        bars.append(Bar(left=one.lower, right=one.upper, bottom=accuracy, top=confidence, name="miss"))
    direction = "over" if found.confidence > found.accuracy else "under"
    chart = Chart(
        identifier=f"{prefix}-reliability",
        title="Reliability",
        description=f"Share of right predictions by the probability of the predicted class, in {len(found.bins)} bins. "
        f"Expected calibration error {found.expected_calibration_error:.2f} points.",
        x=linear_axis("probability of the prediction (%)", 0.0, 100.0),
        y=linear_axis("right (%)", 0.0, 100.0),
        bars=tuple(bars),
        diagonal=True,
    )
    table = Table(
        caption="Reliability by bin",
        headers=("probability %", "images", "mean probability %", "right %"),
        rows=tuple(
            (f"{one.lower:.1f} to {one.upper:.1f}", count(one.images), percent(one.confidence), percent(one.accuracy))
            for one in found.bins
        ),
    )
    return Figure(
        identifier=chart.identifier,
        title=chart.title,
        caption=f"Expected calibration error {found.expected_calibration_error:.2f} points ({len(found.bins)} bins). "
        f"The net is right for {found.accuracy:.2f} % of the images and {found.confidence:.2f} % confident on average: "
        f"{direction}confident by {abs(found.confidence - found.accuracy):.2f} points.",
        svg=draw(chart),
        key=(
            KeyEntry(kind="bar", text="right"),
            KeyEntry(kind="gap", text="gap to the mean probability"),
            KeyEntry(kind="diagonal", text="perfectly calibrated"),
        ),
        table=table,
        size="small",
    )


def confidence_figure(examination: Examination, prefix: str) -> Figure:
    """Return how many images the net predicts with which probability, in the bins of the reliability."""
    bins = examination.calibration.bins
    most = max(one.images for one in bins)
    last = bins[-1]
    chart = Chart(
        identifier=f"{prefix}-confidence",
        title="Probabilities",
        description=f"Images by the probability of the predicted class, in {len(bins)} bins; {count(last.images)} of "
        f"{count(examination.calibration.images)} are above {last.lower:.1f} %.",
        x=linear_axis("probability of the prediction (%)", 0.0, 100.0),
        y=linear_axis("images", 0.0, 1.05 * most, most=5, whole=True),
        bars=tuple(
            Bar(left=one.lower, right=one.upper, bottom=0.0, top=float(one.images), name="accuracy")
            for one in bins
            if one.images
        ),
    )
    return Figure(
        identifier=chart.identifier,
        title=chart.title,
        caption=f"Images in each bin: {count(last.images)} of {count(examination.calibration.images)} are predicted with "
        f"more than {last.lower:.1f} %.",
        svg=draw(chart),
        table=Table(
            caption="Images by probability",
            headers=("probability %", "images"),
            rows=tuple((f"{one.lower:.1f} to {one.upper:.1f}", count(one.images)) for one in bins),
        ),
        size="small",
    )


def class_comparison(examinations: Sequence[tuple[str, Examination]]) -> Table | None:
    """Return the error of each class a column a run; None unless the same images of few classes were tested."""
    first = examinations[0][1]
    tested = {(one.classes, one.split, one.fingerprint) for _, one in examinations}
    if len(examinations) < 2 or len(tested) > 1 or len(first.classes) > CONFUSION_CLASSES:
        return None
    names = shown_classes(first)
    rows = tuple(
        (name, *(percent(one.class_errors[index].error) for _, one in examinations)) for index, name in enumerate(names)
    )
    return Table(caption="Error of each class, %", headers=("class", *(name for name, _ in examinations)), rows=rows)
