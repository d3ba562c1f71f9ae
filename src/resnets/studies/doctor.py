"""What limits or endangers a run on this machine, and what would help: measured on the run itself, in a short trial."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resnets import api
from resnets.artifacts.run_directory import RunDirectory
from resnets.data.cifar import default_data_root, find_cifar
from resnets.data.open import find_dataset
from resnets.data.shard_mirror import fetched_before, fetched_shards, fetching_nothing, is_url
from resnets.engine.device import check_precision, choose_device, deterministic, set_up
from resnets.engine.distributed import distributed
from resnets.engine.gpu_memory import is_out_of_memory, no_memory
from resnets.engine.threads import threads
from resnets.recipes.find import check_data, recipe
from resnets.specs.data import Cifar, ImageFolder
from resnets.specs.errors import ResnetsError, UserError, counted
from resnets.specs.run import Machine, TrainSpec
from resnets.studies.commands import typed, with_flags
from resnets.studies.diagnosis import Advice, Diagnosis, Tried, duration, figure, percent, worth_it
from resnets.studies.machine_facts import machine_facts
from resnets.studies.machine_limits import machine_findings
from resnets.studies.run_limits import run_findings
from resnets.studies.trial_course import Course
from resnets.tasks.classify.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resnets.studies.diagnosis import Measured
    from resnets.studies.machine_facts import MachineFacts
    from resnets.studies.machine_limits import Finding
    from resnets.studies.trial_options import Option

SECONDS = 20.0
_LEAST_SECONDS = 1.0
_STATISTICS_IMAGES = 16
"""For the mean image of a trial: its values do not matter, and a run takes minutes over it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """The machine, and the trial of a run where one was asked for."""

    facts: MachineFacts
    findings: tuple[Finding, ...]
    """What about the machine limits or endangers any run."""
    diagnosis: Diagnosis | None

    def document(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        facts = dataclasses.asdict(self.facts)
        return {
            "machine": facts,
            "findings": [finding.to_json() for finding in self.findings],
            "diagnosis": None if self.diagnosis is None else self.diagnosis.document(),
        }


def doctor(
    spec: TrainSpec | str | None = None,
    *,
    data: str | Path | None = None,
    data_root: str | Path | None = None,
    run: str | Path | None = None,
    machine: Machine | None = None,
    words: Sequence[str] | None = None,
    seconds: int | float = SECONDS,
    compile_trial: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Examination:
    """Return what limits or endangers runs on this machine; with a spec, what limits that run, and what would help.

    The trial reads the run's images and trains its net for about `seconds`. Nothing is written, and no data are
    downloaded: of shards on a web server it reads those that were fetched before.

    Args:
        spec: a run, or the name of a recipe; None looks at the machine alone.
        data: as for `train`.
        data_root: as for `train`.
        run: the run directory that is meant; it is only asked how much room there is.
        machine: device, workers, threads and so on of the run.
        words: of the command that would start the run, which advice changes; None makes one from the other arguments.
        seconds: length of the trial.
        compile_trial: try torch.compile too, which takes a minute more.
        on_stage: told what is being measured.

    Raises:
        UserError: the run could not be started either, or its data would have to be downloaded first.
        ResnetsError: a process that reads images died, or the memory of the GPU is full.
    """
    if not _LEAST_SECONDS <= seconds <= 3600:
        raise UserError(f"--seconds is {seconds:g}; it is between 1 and 3600 (default {SECONDS:g}).")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("The doctor looks at one process; start it without torchrun.")
    on_stage("other programs")
    facts = machine_facts()
    findings = machine_findings(facts)
    if spec is None:
        return Examination(facts=facts, findings=findings, diagnosis=None)
    if isinstance(spec, str):
        name, spec = spec, recipe(spec)
        spec = dataclasses.replace(spec, recipe=spec.recipe or name)
    machine = machine or Machine()
    if words is None:
        words = ["resnets", "train", spec.recipe or "RECIPE"]
        words += [] if data is None else ["--data", str(data)]
        words += [] if data_root is None else ["--data-root", str(data_root)]
    device = choose_device(machine.device)
    check_precision(spec.precision, device)
    with threads(0), deterministic(device, machine):
        set_up(device, machine)
        try:
            diagnosis = _diagnose(
                spec, data, data_root, run, machine, list(words), facts, seconds, compile_trial, on_stage, device
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # No error of the user's: what is wrong with the machine may say more.
            raise ResnetsError(str(no_memory(error))) from error
    return Examination(facts=facts, findings=findings, diagnosis=diagnosis)


def _diagnose(
    spec: TrainSpec,
    data: str | Path | None,
    data_root: str | Path | None,
    run: str | Path | None,
    machine: Machine,
    words: list[str],
    facts: MachineFacts,
    seconds: int | float,
    compile_trial: bool,
    on_stage: Callable[[str], None],
    device: Any,
) -> Diagnosis:
    spec, root = _with_data(spec, data, data_root)
    if isinstance(spec.dataset, Cifar):
        _check_is_here(spec.dataset.num_classes, root or default_data_root())
    fetched = fetched_shards(root) if root is not None and isinstance(spec.dataset, ImageFolder) else None
    if fetched == 0:
        raise _not_fetched(str(data))
    nowhere = RunDirectory(Path(tempfile.gettempdir()) / f"resnets-doctor-{uuid.uuid4()}")
    on_stage("the images")
    with distributed(device) as ranks:
        with fetching_nothing():
            parts = prepare(_without_statistics(spec), root, nowhere, machine, ranks, typed(words), quiet=True)
        # Of shards on a web server, what is here is a copy that the loader keeps by itself.
        folder = root if isinstance(spec.dataset, ImageFolder) and not is_url(str(data)) else None
        run_folder = Path(run) if run is not None else api.default_run(spec)
        findings = run_findings(parts, facts, folder, run_folder)
        course = Course(
            parts=parts,
            root=folder,
            facts=facts,
            seconds=seconds,
            on_stage=on_stage,
            compile_trial=compile_trial,
        )
        if fetched is not None:
            course.notes.append(
                f"The trial read the training images in {counted(fetched, 'shard')} that "
                f"{'is' if fetched == 1 else 'are'} here already, and fetched none: how fast shards come from their "
                "server is not measured."
            )
        measured = course.measure()
        course.try_options(measured)
    measured = dataclasses.replace(measured, whole=max(course.baselines, key=lambda rate: rate.images_per_second))
    images = parts.spec.steps * parts.spec.global_batch
    hours = images / course.baseline / 3600
    notes = [*_notes(measured, course), *_about_net(measured, course)]
    return Diagnosis(
        recipe=spec.recipe,
        command=typed(words),
        measured=measured,
        hours=hours,
        baselines=tuple(rate.images_per_second for rate in course.baselines),
        tried=tuple(
            Tried(kind=option.kind, label=option.label, rate=rate, gain=rate.images_per_second / course.baseline)
            for option, rate in course.tried
        ),
        advice=tuple(_advice(course, measured, words, hours, folder)),
        findings=findings,
        notes=tuple(notes),
        seconds=course.elapsed,
    )


def _with_data(spec: TrainSpec, data: str | Path | None, data_root: str | Path | None) -> tuple[TrainSpec, Path | None]:
    if data is None:
        if isinstance(spec.dataset, ImageFolder):
            raise UserError("This recipe trains on a folder of images: name it with --data FOLDER.")
        return spec, Path(data_root) if data_root is not None else None
    fetched = fetched_before(str(data)) if is_url(str(data)) else None
    if fetched is None and is_url(str(data)):
        raise _not_fetched(str(data))
    dataset, root = find_dataset(fetched or data, data_root, spec.dataset)
    check_data(spec, dataset, str(data))
    return dataclasses.replace(spec, dataset=dataset), root


def _check_is_here(num_classes: Literal[10, 100], root: Path) -> None:
    """Refuse a data set that a run would download first: a look at the machine is not to fill its disk.

    Raises:
        UserError: it is not in `root`.
    """
    if find_cifar(root, prefer=num_classes) != num_classes:
        raise UserError(
            f"CIFAR-{num_classes} is not in {root}, and the doctor downloads nothing: name the folder that holds it with "
            "--data-root DIR, or start `resnets train` once."
        )


def _not_fetched(data: str) -> UserError:
    return UserError(
        f"No training shard of {data} was fetched to this machine yet, and the doctor downloads nothing: run "
        "`resnets train` on them for a moment, until a few are here."
    )


def _without_statistics(spec: TrainSpec) -> TrainSpec:
    if not isinstance(spec.dataset, ImageFolder):
        return spec
    return dataclasses.replace(spec, dataset=dataclasses.replace(spec.dataset, statistics_images=_STATISTICS_IMAGES))


def _advice(course: Course, measured: Measured, words: list[str], hours: float, folder: Path | None) -> list[Advice]:
    """Return what helps, the best first; several together where they are better than each."""
    singles = [pair for pair in course.best() if "+" not in pair[0].kind]
    several = [pair for pair in course.best() if "+" in pair[0].kind]
    best_single = singles[0][1].images_per_second if singles else 0.0
    chosen = [pair for pair in several if worth_it(pair[1].images_per_second / max(best_single, 1e-9), course.noise)]
    return [
        _one_advice(option, rate.images_per_second, course, measured, words, hours, folder)
        for option, rate in [*chosen, *singles]
    ]


def _one_advice(
    option: Option,
    rate: float,
    course: Course,
    measured: Measured,
    words: list[str],
    hours: float,
    folder: Path | None,
) -> Advice:
    places = _places(option, folder)
    commands = [
        *(typed(places.get(word, word) for word in command) for command in option.prepare),
        "".join(f"{name}={value} " for name, value in option.environment)
        + typed(with_flags(words, [tuple(places.get(word, word) for word in flag) for flag in option.flags])),
    ]
    gain = rate / course.baseline
    note = option.note
    if option.prepare and "--resize" in option.prepare[0] and course.smaller_per_second:
        took = measured.images / course.smaller_per_second / 3600
        note = "; ".join(filter(None, [f"making them takes about {duration(took)} once", note]))
    return Advice(
        kinds=tuple(option.kind.split("+")),
        label=option.label,
        commands=tuple(commands),
        images_per_second=rate,
        gain=gain,
        hours_before=hours,
        hours_after=hours / gain,
        note=note,
    )


def _places(option: Option, folder: Path | None) -> dict[str, str]:
    """Return what stands for the data, and for the folder that is made from them."""
    if folder is None:
        return {}
    named = folder if folder.name not in ("", "..") else folder.resolve()  # such as the folder in which we are
    name = named.name or "data"
    made = folder
    for command in option.prepare:
        if "--resize" in command:
            side, raw = command[command.index("--resize") + 1], "-raw" * ("--raw" in command)
            made = named.parent / f"{name}-{side}{raw}"
    return {"DATA": str(folder), "FOLDER": str(made), "/dev/shm/FOLDER": f"/dev/shm/{name}"}


def _notes(measured: Measured, course: Course) -> list[str]:
    notes = list(course.notes)
    if measured.batch < measured.recipe_batch:
        notes.append(
            f"The trial took {measured.batch} images a step in place of {measured.recipe_batch}, to see more of them in "
            "its time."
        )
    if measured.read is not None and not measured.cached:
        notes.append("The run reads from the disk: its files do not stay in memory between two passes over them.")
    if course.left_out:
        notes.append(f"There was no time for {', '.join(course.left_out)}: a longer trial (--seconds 60) tries them.")
    if course.noise > 0.1 and not (measured.shares_cores and measured.threads > 1):
        notes.append(
            f"Two measurements of the same lay {percent(course.noise)} apart: something else uses the machine, and "
            "smaller gains cannot be told. A longer trial (--seconds 60) or a quieter machine tells more."
        )
    return notes


def _about_net(measured: Measured, course: Course) -> list[str]:
    if course.net is None:
        return []
    option, rate = course.net
    gain = rate.images_per_second / course.baseline
    flags = " ".join(" ".join(flag) for flag in option.flags)
    what = f"{option.label} ({flags}) trains at {figure(rate.images_per_second)} images/s"
    if measured.limit == "model":
        return [f"A smaller net: {what}, {gain:.2f} times as fast."]
    if gain > 0.95:
        return [f"A larger net would cost no time: {what}, {percent(gain)} of the rate, as the model waits anyway."]
    return [f"A larger net: {what}, {percent(gain)} of the rate."]
