"""What a comparison says: errors seed by seed, their paired difference, what a net costs, and one plain sentence."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.metrics.paired import PairedDifference, paired_difference, pairs_to_detect
from resnets.specs import io
from resnets.studies.differing import differing_fields, warnings
from resnets.studies.sentence import sentences

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.specs.run import TrainSpec
    from resnets.studies.model_cost import ModelCost
    from resnets.studies.outcome import Outcome

CONFIDENCE = 0.95
POWER = 0.8
METHOD = (
    "Student's t interval of the mean of the paired differences, one pair a seed: mean -+ t(n - 1) * s / sqrt(n). It is "
    "about seeds (weights, order and augmentation), on the same test images."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two recipes, the same seeds for both; "a" and "b" are the sides."""

    folder: Path
    """Holds a run directory for each side and seed."""
    specs: dict[str, TrainSpec]
    seeds: tuple[int, ...]
    outcomes: dict[str, tuple[Outcome, ...]]
    """Of each side, in the order of the seeds."""
    costs: dict[str, ModelCost]
    """Of each side's net."""
    picture: Path | None = None
    """The curves."""

    @property
    def differing(self) -> list[str]:
        """One line a field in which the specs differ."""
        return differing_fields(self.specs["a"], self.specs["b"])

    @property
    def tested(self) -> PairedDifference:
        """Differences in the error of the final weights, B minus A, in points of percent."""
        errors = ([outcome.top1_error for outcome in self.outcomes[side]] for side in ("a", "b"))
        return paired_difference(*errors, confidence=CONFIDENCE)

    @property
    def trained(self) -> PairedDifference | None:
        """Differences in the training error at the end; None where a log does not have it."""
        errors = [[outcome.train_error for outcome in self.outcomes[side]] for side in ("a", "b")]
        known = [[error for error in side if error is not None] for side in errors]
        if [len(side) for side in known] != [len(side) for side in errors]:
            return None
        return paired_difference(*known, confidence=CONFIDENCE)

    @property
    def seeds_for_half(self) -> int | None:
        """Seeds that would tell half of the difference from 0 with probability 0.8, were the spread what it is here.

        None where there is no spread or no difference, and above 10,000.
        """
        tested = self.tested
        return pairs_to_detect(tested.mean / 2, tested.spread or 0.0, power=POWER, confidence=CONFIDENCE)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What can be said of the difference, and what could be said with more seeds."""
        return sentences(self.tested, self.seeds_for_half)

    def document(self) -> dict[str, Any]:
        """Return everything as plain JSON values; errors are percentages, differences are B minus A in points."""
        first = self.outcomes["a"][0]
        return {
            "a": self._side("a"),
            "b": self._side("b"),
            "differing": self.differing,
            "warnings": warnings(self.differing),
            "dataset": type(self.specs["a"].dataset).__name__,
            "split": first.split,
            "images": first.images,
            "seeds": [
                {
                    "seed": seed,
                    **{
                        side: {
                            "run": str(outcome.path),
                            "top1_error": outcome.top1_error,
                            "train_error": outcome.train_error,
                            "images": outcome.images,
                            "skipped": outcome.skipped,
                            "images_per_second": outcome.images_per_second,
                            "seconds": outcome.seconds,
                            "reused": outcome.reused,
                        }
                        for side, outcome in (("a", a), ("b", b))
                    },
                    "difference": difference,
                }
                for seed, a, b, difference in zip(
                    self.seeds, self.outcomes["a"], self.outcomes["b"], self.tested.differences, strict=True
                )
            ],
            "test_error": _paired(self.tested),
            "train_error": None if self.trained is None else _paired(self.trained),
            "seeds_for_half": self.seeds_for_half,
            "speed_ratio": self.speed_ratio,
            "time_ratio": self.time_ratio,
            "method": METHOD,
            "sentence": " ".join(self.sentences),
            "folder": str(self.folder),
            "picture": None if self.picture is None else str(self.picture),
        }

    def _side(self, side: str) -> dict[str, Any]:
        errors = [outcome.top1_error for outcome in self.outcomes[side]]
        training = [outcome.train_error for outcome in self.outcomes[side] if outcome.train_error is not None]
        return {
            "recipe": self.specs[side].recipe,
            "model": self.costs[side].model,
            "steps": self.specs[side].steps,
            "full_steps": self.specs[side].full_steps,
            "top1_error": mean_and_spread(errors),
            "train_error": mean_and_spread(training),
            "parameters": self.costs[side].parameters,
            "multiply_adds": self.costs[side].multiply_adds,
            "input": list(self.costs[side].input_shape),
            "images_per_second": self.images_per_second(side),
            "seconds": self.seconds(side),
            "spec": io.to_json(self.specs[side]),
        }

    @property
    def labels(self) -> dict[str, str]:
        """What each side is called: its recipe, and its value of the one field in which two runs of a recipe differ."""
        names = {side: spec.recipe for side, spec in self.specs.items()}
        if names["a"] == names["b"] and len(self.differing) == 1:
            path, _, values = self.differing[0].partition(": ")
            a, _, b = values.partition(" -> ")
            return {"a": f"{names['a']}, {path} {a}", "b": f"{names['b']}, {path} {b}"}
        return names

    @property
    def speed_ratio(self) -> float | None:
        """Training speed of B by that of A: the median over the pairs, which were trained one after the other."""
        return _median_ratio(
            [(a.images_per_second, b.images_per_second) for a, b in zip(*self.outcomes.values(), strict=True)]
        )

    @property
    def time_ratio(self) -> float | None:
        """Wall time of B's runs by that of A's: the median over the pairs that were timed from start to end."""
        return _median_ratio([(a.seconds, b.seconds) for a, b in zip(*self.outcomes.values(), strict=True)])

    def images_per_second(self, side: str) -> float | None:
        """Return the median training speed of the runs of a side."""
        rates = [outcome.images_per_second for outcome in self.outcomes[side] if outcome.images_per_second]
        return round(statistics.median(rates), 1) if rates else None

    def seconds(self, side: str) -> float | None:
        """Return the median wall time of the runs of a side, of those that were timed from start to end."""
        seconds = [outcome.seconds for outcome in self.outcomes[side] if outcome.seconds is not None]
        return round(statistics.median(seconds), 1) if seconds else None


def _median_ratio(pairs: list[tuple[float | None, float | None]]) -> float | None:
    ratios = [b / a for a, b in pairs if a and b]
    return round(statistics.median(ratios), 4) if ratios else None


def mean_and_spread(values: list[float]) -> dict[str, float | None]:
    """Return the mean and the standard deviation (n - 1) of some values; None where there are too few."""
    return {
        "mean": statistics.fmean(values) if values else None,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
    }


def _paired(difference: PairedDifference) -> dict[str, Any]:
    lower = None
    if difference.is_told_apart:
        lower = "a" if difference.mean > 0 else "b"
    return {
        "difference": difference.mean,
        "spread": difference.spread,
        "interval": None if difference.interval is None else list(difference.interval),
        "confidence": difference.confidence,
        "lower": lower,
    }
