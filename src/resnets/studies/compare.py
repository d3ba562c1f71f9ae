"""Two recipes, the same seeds for both: trained in turn, tested on the same images, compared pair by pair.

Runs with the same seed see the same images in the same order, varied in the same way, so that what is left between
them is the difference of the recipes, and what chance does with it. The runs of a study lie in one folder:

    runs/compare-A-vs-B/
      study.json                     the two specs, and the seconds each run has taken
      a-seed0/ b-seed0/ a-seed1/ ... run directories; those that were finished elsewhere stay where they are
      compare.json compare.png       the result
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from resnets import api
from resnets.artifacts.divergence import kept_in
from resnets.artifacts.found_runs import default_roots, find_runs
from resnets.artifacts.run_directory import RunDirectory, write_json
from resnets.data.open import find_dataset, open_dataset
from resnets.engine.interruption import listen
from resnets.recipes.find import check_data, recipe
from resnets.report.paired_curves import draw_paired_curves
from resnets.specs import io
from resnets.specs.data import Cifar
from resnets.specs.errors import DivergedError, InterruptedRunError, RunError, SpecError, TrainingError, UserError
from resnets.specs.run import Machine, TrainSpec, shorten
from resnets.specs.visible import visible
from resnets.studies.comparison import Comparison
from resnets.studies.differing import differing_fields, warnings
from resnets.studies.model_cost import model_cost
from resnets.studies.outcome import Outcome, read_outcome
from resnets.studies.reuse import diverged_elsewhere, finished_elsewhere
from resnets.studies.study_folder import StudyFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnets.artifacts.found_runs import FoundRun, FoundRuns

SEEDS = 5
# What decides which images are tested, and what counts as right, is the same for both; how they are shown need not be.
_MAY_DIFFER = frozenset(
    {
        *("image_px", "resize_px", "color", "mean", "std", "mean_image", "statistics_images", "interpolation"),
        "validation_images",  # of CIFAR, whose test images they leave as they are
    }
)


def compare(
    a: TrainSpec | str,
    b: TrainSpec | str,
    *,
    seeds: int = SEEDS,
    first_seed: int = 0,
    data: str | Path | None = None,
    data_root: str | Path | None = None,
    run: str | Path | None = None,
    reuse: bool = True,
    machine: Machine | None = None,
    command: str = "call resnets.compare again with the same arguments",
    quiet: bool = False,
) -> Comparison:
    """Train both recipes once a seed, and return what the runs say about the difference between them.

    Runs that are finished are not trained again; so the same call goes on after an interruption, and a call with more
    seeds adds to the study. That is so for runs of the very same spec in `runs` and `results` too, other studies among
    them; not for images of a folder, weights to start from or code of your own, which a spec does not tell all about.

    Args:
        a: a spec, or the name of a recipe.
        b: what it is compared with.
        seeds: runs of each; both have the same seeds.
        first_seed: the seeds are this one and those after it; what the specs have as seed does not matter.
        data: "digits", "cifar10", "cifar100" or a folder of images, for both; None takes the specs'.
        data_root: where CIFAR is.
        run: folder of the study; None is runs/compare-A-vs-B, with a suffix where the specs are no recipes as they
            are.
        reuse: take finished runs from elsewhere; False trains every run in the folder of the study.
        machine: device, workers, threads and other facts that do not change the result.
        command: what to type to go on after an interruption.
        quiet: show no progress.

    Raises:
        UserError: the specs cannot be compared, or the folder holds something else; nothing was written.
        DivergedError: the loss of a run became no finite number, in this call or in an earlier one.
        TrainingError: a run cannot go on.
        InterruptedRunError: Ctrl-C or SIGTERM; what was trained is saved.
    """
    specs = {"a": _seedless(a), "b": _seedless(b)}
    _check(specs, seeds, first_seed, data)
    folder = StudyFolder(Path(run) if run is not None else default_folder(specs["a"], specs["b"], data), specs)
    folder.check_same()
    fingerprint = _fingerprint(specs, data, data_root)
    study = _Study(
        folder=folder,
        fingerprint=fingerprint,
        elsewhere=find_runs(default_roots() if reuse else ()),
        data=data,
        data_root=data_root,
        machine=machine or Machine(keep_checkpoints=1),
        command=command,
        quiet=quiet,
    )
    differing = differing_fields(specs["a"], specs["b"])
    for line in (*_opening(specs, differing), *(f"warning: {text}" for text in warnings(differing))):
        study.say(line)
    order = list(runs_in_order(first_seed, seeds))
    outcomes: dict[tuple[str, int], Outcome] = {}
    with listen() as interruption:
        try:
            for number, (side, seed) in enumerate(order, start=1):
                study.say(f"\nrun {number} of {len(order)}: {side.upper()} {specs[side].recipe}, seed {seed}")
                outcomes[side, seed] = study.train(side, seed)
            return study.result(outcomes, range(first_seed, first_seed + seeds))
        except InterruptedRunError as error:
            # A run says where it was stopped, and what to type; between two runs nobody does.
            stopped = "Stopped between two runs." if interruption.requested else str(error).partition(" To go on:")[0]
            finished = f"{len(outcomes)} of {len(order)} runs are finished"
            raise InterruptedRunError(f"{stopped} {finished}. To go on: {command}", error.exit_code) from None


def _opening(specs: dict[str, TrainSpec], differing: list[str]) -> Iterator[str]:
    for side, spec in specs.items():
        yield f"{side.upper()}  {spec.recipe}"
    for line in differing:
        yield f"   {line}"


def runs_in_order(first_seed: int, seeds: int) -> Iterator[tuple[str, int]]:
    """Yield side and seed of each run: both sides of a seed, then the next, the sides in turn first.

    A study that is left early is balanced to one run, and a machine that slows down slows both sides.

    >>> list(runs_in_order(0, 2))
    [('a', 0), ('b', 0), ('b', 1), ('a', 1)]
    """
    for index in range(seeds):
        yield from ((side, first_seed + index) for side in ("ba" if index % 2 else "ab"))


def default_folder(a: TrainSpec, b: TrainSpec, data: str | Path | None = None) -> Path:
    """Return runs/compare-A-vs-B: with the steps if both are shortened, and a hash if fields were changed besides."""
    parts = ["compare", _file_name(a.recipe), "vs", _file_name(b.recipe)]
    if data is not None:
        parts.append(_file_name(Path(data).name or "data"))
    if a.steps == b.steps and (a.steps, b.steps) != (a.full_steps, b.full_steps):
        parts.append(f"{a.steps}steps")
    if not (_is_as_written(a) and _is_as_written(b)):
        parts.append(io.spec_hash(a)[:4] + io.spec_hash(b)[:4])
    return Path("runs") / "-".join(parts)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", ".", text).strip(".") or "x"


def _is_as_written(spec: TrainSpec) -> bool:
    """Return whether a spec is the recipe it names, shortened or not."""
    try:
        written = _seedless(spec.recipe)
        return io.spec_hash(spec) in (io.spec_hash(written), io.spec_hash(shorten(written, spec.steps)))
    except SpecError:
        return False


def _seedless(spec: TrainSpec | str) -> TrainSpec:
    """Return the spec with seed 0: a study decides the seeds."""
    if isinstance(spec, str):
        name, spec = spec, recipe(spec)
        spec = dataclasses.replace(spec, recipe=spec.recipe or name)
    return dataclasses.replace(spec, recipe=spec.recipe or "(no name)", seed=0)


def _check(specs: dict[str, TrainSpec], seeds: int, first_seed: int, data: str | Path | None) -> None:
    """Refuse what makes no comparison.

    Raises:
        UserError: saying what.
    """
    if seeds < 1:
        raise UserError(
            f"--seeds is {seeds}; it is at least 1 (default {SEEDS}; from 3 on there is an interval of use)."
        )
    for seed in (first_seed, first_seed + seeds - 1):
        dataclasses.replace(specs["a"], seed=seed)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("A comparison runs in one process; start it without torchrun.")
    datasets = [find_dataset(data, None, spec.dataset)[0] for spec in specs.values()]
    for spec, dataset in zip(specs.values(), datasets, strict=True):
        check_data(spec, dataset, str(data))
    names = [
        f"{type(dataset).__name__}{dataset.num_classes if isinstance(dataset, Cifar) else ''}" for dataset in datasets
    ]
    if names[0] != names[1]:
        raise UserError(
            f"A is trained on {names[0]} and B on {names[1]}: errors on different images do not compare. Give both the "
            "same with --data."
        )
    ours, theirs = (
        {name: value for name, value in io.to_json(dataset).items() if name not in _MAY_DIFFER} for dataset in datasets
    )
    if changes := io.differences(ours, theirs, "dataset"):
        raise UserError(
            f"A and B divide the images differently ({'; '.join(changes)}): errors on different images do not compare. "
            "Give both the same."
        )


def _fingerprint(specs: dict[str, TrainSpec], data: str | Path | None, data_root: str | Path | None) -> str:
    """Return the digest of the images that both sides share.

    Raises:
        DataError: they are not there, or damaged.
    """
    return open_dataset(*find_dataset(data, data_root, specs["a"].dataset)).fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Study:
    """What every run of a study shares."""

    folder: StudyFolder
    fingerprint: str
    """Digest of the images that all runs are trained and tested on."""
    elsewhere: FoundRuns
    """Runs that may be finished already."""
    data: str | Path | None
    data_root: str | Path | None
    machine: Machine
    command: str
    quiet: bool

    def say(self, text: str) -> None:
        if not self.quiet:
            print(visible(text), file=sys.stderr, flush=True)

    def train(self, side: str, seed: int) -> Outcome:
        """Return how the run ended, after training what is missing of it.

        Raises:
            UserError: the run is damaged, or of another spec.
            DivergedError: it has diverged, now or before.
            TrainingError: it cannot go on.
        """
        run = self.folder.run(side, seed)
        cannot = (
            f"{side.upper()} cannot be trained with seed {seed}, so there is nothing to compare with the other side:"
        )
        spec = dataclasses.replace(self.folder.specs[side], seed=seed)
        if not run.exists() and (found := self._finished_elsewhere(spec)) is not None:
            self.folder.begin()
            self.say(f"trained before: {found.path} is the same run; it is taken from there, without its speed")
            return read_outcome(found.path, found.spec.model, label=side.upper(), seconds=None, reused=True)
        if (diverged := self._diverged(spec, run)) is not None:
            raise DivergedError(f"{cannot} {diverged}")
        try:
            with self.folder.timed(side, seed):
                trained = api.train(
                    spec,
                    data=self.data,
                    data_root=self.data_root,
                    run=run,
                    machine=self.machine,
                    command=self.command,
                    quiet=self.quiet,
                )
        except DivergedError as error:
            raise DivergedError(f"{cannot} {error} {kept_in(run)}") from error
        except TrainingError as error:
            raise TrainingError(f"{cannot} {error}") from error
        if trained.was_finished:
            self.say(f"already trained: {run}")
        return read_outcome(run, trained.spec.model, label=side.upper(), seconds=self.folder.seconds(side, seed))

    def _finished_elsewhere(self, spec: TrainSpec) -> FoundRun | None:
        return finished_elsewhere(self._on_data(spec), self.elsewhere, self.folder.path, self.fingerprint)

    def _diverged(self, spec: TrainSpec, run: Path) -> str | None:
        """Return what is to be said of a run that diverged before, here or elsewhere; None where none has."""
        divergence, spec = RunDirectory(run).divergence(), self._on_data(spec)
        if divergence is None and not run.exists():
            found = diverged_elsewhere(spec, self.elsewhere, self.folder.path)
            divergence, run = (None, run) if found is None else (found.log.diverged, found.path)
        if divergence is None or divergence.conditions.get("fingerprint") != self.fingerprint:
            return None  # on other images it may not diverge
        return f"{divergence.message(RunDirectory(run).saved_spec() or spec)} {kept_in(run)}"

    def _on_data(self, spec: TrainSpec) -> TrainSpec:
        return dataclasses.replace(spec, dataset=find_dataset(self.data, None, spec.dataset)[0])

    def result(self, outcomes: dict[tuple[str, int], Outcome], seeds: range) -> Comparison:
        """Return the comparison, after writing it and its picture into the folder.

        Raises:
            RunError: the runs were not tested on the same images, or the folder cannot be written.
        """
        per_side = {side: tuple(outcomes[side, seed] for seed in seeds) for side in ("a", "b")}
        first = per_side["a"][0]
        for outcome in (*per_side["a"], *per_side["b"]):
            if (outcome.fingerprint, outcome.split) != (first.fingerprint, first.split):
                raise RunError(
                    f"{outcome.path} was trained on other images than {first.path} (the data have changed in between): "
                    "their errors do not compare. Delete the one that is wrong, or choose another --run."
                )
        comparison = Comparison(
            folder=self.folder.path,
            specs=dict(self.folder.specs),
            seeds=tuple(seeds),
            outcomes=per_side,
            costs={side: model_cost(runs[0].model, runs[0].side_px) for side, runs in per_side.items()},
            picture=self.folder.picture,
        )
        try:
            draw_paired_curves(
                {side.upper(): [run.curves for run in runs] for side, runs in per_side.items()},
                {side.upper(): label for side, label in comparison.labels.items()},
                comparison.tested,
                self.folder.picture,
            )
            write_json(self.folder.document, comparison.document())
        except OSError as error:
            raise RunError(f"{self.folder.path} cannot be written: {error.strerror or error}.") from error
        return comparison
