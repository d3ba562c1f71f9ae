"""What came of an experiment: every row with ours, the paper's number and a verdict, and the runs behind them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnets.paper.core.verdict import Verdict, judge, rule_text

if TYPE_CHECKING:
    from pathlib import Path

    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.experiment import Budget, Experiment, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedValue:
    """The number of one seed."""

    seed: int
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RowOutcome:
    """One row, filled or not."""

    row: Row
    ours: float | None = None
    """None where it was not run."""
    reason: str = ""
    """Why there is no number, or why the one there is was not judged."""
    seeds: tuple[SeedValue, ...] = ()
    """The numbers behind ours; empty for what is computed."""
    verdict: Verdict = "REPORT"
    runs: tuple[FoundRun, ...] = ()
    """Finished runs that were read."""
    tested_in: str = ""
    """The precisions of the tests that were read, `bf16, fp32` where they differ; empty where these are the runs' own."""

    @property
    def precision(self) -> str:
        """Return the arithmetic of the runs that were read, `bf16, fp32` where they differ; empty without runs."""
        return ", ".join(sorted({run.spec.precision for run in self.runs}))

    @property
    def delta(self) -> float | None:
        """Return ours minus the paper's."""
        return None if self.ours is None or self.row.paper is None else self.ours - self.row.paper

    @property
    def mean(self) -> float | None:
        """Return the mean over the seeds."""
        return statistics.fmean(one.value for one in self.seeds) if self.seeds else None

    @property
    def spread(self) -> float | None:
        """Return the standard deviation over the seeds (n - 1), None of a single one."""
        return statistics.stdev(one.value for one in self.seeds) if len(self.seeds) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values; a row that was not run has `ours` null and a `reason`."""
        row = self.row
        value: dict[str, Any] = {
            "run": row.run,
            "meaning": row.meaning,
            "source": row.source,
            "ours": _finite(self.ours),
            "paper": row.paper,
            "delta": _finite(self.delta),
            "verdict": self.verdict,
            "rule": rule_text(row.rule),
            "budget": row.budget,
        }
        if row.printed:
            value["printed"] = row.printed
        if self.reason:
            value["reason"] = self.reason
        elif value["ours"] is None:
            value["reason"] = f"ours is {self.ours}, which JSON cannot hold"
        if self.seeds:
            value |= {
                "seeds": [{"seed": one.seed, "value": _finite(one.value)} for one in self.seeds],
                "mean": _finite(self.mean),
                "spread": _finite(self.spread),
                "best": _finite(min(one.value for one in self.seeds)),
                "precision": self.precision,
                "run_directories": [str(run.path) for run in self.runs],
            }
        if self.tested_in:
            value["test_precision"] = self.tested_in
        return value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def filled(row: Row, seeds: list[SeedValue], planned: int, runs: list[FoundRun], reason: str) -> RowOutcome:
    """Return a row with the numbers of its seeds; with fewer seeds than planned it is not judged."""
    mean = statistics.fmean(one.value for one in seeds)
    best = getattr(row.ours, "over_seeds", "mean") == "best"
    ours = min(one.value for one in seeds) if best else mean
    verdict = judge(row.rule, ours, row.paper)
    if len(seeds) < planned:
        verdict, reason = "REPORT", f"{len(seeds)} of {planned} seeds" + (f"; {reason}" if reason else "")
    return RowOutcome(
        row=row,
        ours=ours,
        seeds=tuple(seeds),
        verdict=verdict,
        reason=reason if len(seeds) < planned else "",
        runs=tuple(runs),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """An experiment at one budget."""

    name: str
    experiment: Experiment
    budget: Budget
    rows: tuple[RowOutcome, ...]
    pictures: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    """What this outcome adds to the notes of the experiment: shortened runs, pictures that were not drawn."""
    seconds: float = 0.0
    """Time that this call took, training included."""
    trained: int = 0
    """Runs that this call trained."""

    def runs(self) -> list[tuple[str, FoundRun]]:
        """Return every run that was read, once, with the name of its net."""
        named: dict[Path, tuple[str, FoundRun]] = {}
        for outcome in self.rows:
            planned = getattr(outcome.row.ours, "runs", ())
            for index, run in enumerate(outcome.runs):
                name = planned[index % len(planned)].name
                named.setdefault(run.path, (name, run))
        return list(named.values())

    def counts(self) -> dict[str, int]:
        """Return how many rows passed, failed, were reported, and were not run."""
        run = [outcome for outcome in self.rows if outcome.ours is not None]
        verdicts = {verdict: sum(row.verdict == verdict for row in run) for verdict in ("PASS", "FAIL", "REPORT")}
        return verdicts | {"not run": len(self.rows) - len(run)}

    def to_json(self) -> dict[str, Any]:
        """Return the document that `resnets reproduce --json` prints."""
        return {
            "experiment": self.name,
            "title": self.experiment.title,
            "claim": self.experiment.claim,
            "budget": self.budget,
            "rows": [row.to_json() for row in self.rows],
            "counts": self.counts(),
            "runs": [_run_json(name, run) for name, run in self.runs()],
            "pictures": [str(path) for path in self.pictures],
            "notes": [*self.experiment.notes, *self.notes],
            "cost": dict(self.experiment.cost),
            "trained": self.trained,
            "seconds": round(self.seconds, 1),
        }


def _run_json(name: str, run: FoundRun) -> dict[str, Any]:
    return {
        "name": name,
        "directory": str(run.path),
        "seed": run.spec.seed,
        "iterations": run.spec.steps,
        "full_iterations": run.spec.full_steps,
        "batch": run.spec.global_batch,
        "precision": run.spec.precision,
        "data": data_text(run),
        "test": test_text(run),
        "top1_error": None if run.log.final is None else run.log.final.top1_error,
        "device": run.device,
        "training_seconds": None if run.seconds is None else round(run.seconds, 1),
    }


def data_text(run: FoundRun) -> str:
    """Return what a run was trained on, in words."""
    from resnets.specs.data import Cifar, Digits

    match run.spec.dataset:
        case Cifar(num_classes=classes, image_px=pixels, validation_images=held_out):
            smaller = "" if pixels == 32 else f" mean-pooled to {pixels} x {pixels}"
            return f"CIFAR-{classes}{smaller}" + (f", {50_000 - held_out:,} training images" if held_out else "")
        case Digits():
            return "digits 8 x 8"
        case _:
            return "folder of images"


def test_text(run: FoundRun) -> str:
    """Return what the final weights were tested on, in words."""
    final = run.log.final
    if final is None or final.images is None:
        return "no test"
    return f"{final.split} split, {final.images:,} images, single view"
