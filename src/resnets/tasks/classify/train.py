"""Train a classifier: from a spec to a finished run directory.

`api.train` calls `train`; it builds the data, the model, the optimiser and the state, and hands them to
`engine/loop.py`. Everything that can be wrong with the input is found before the run directory is made.
"""

from __future__ import annotations

import copy
import itertools
import json
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from resnets.artifacts.model_folder import StoredModel, check_weights, load_model, save_model
from resnets.artifacts.run_directory import RunDirectory, conditions
from resnets.artifacts.transfer import Transfer, transfer
from resnets.engine.checkpoint import latest_checkpoint, load_checkpoint
from resnets.engine.device import check_precision, choose_device, deterministic, set_up
from resnets.engine.distributed import distributed
from resnets.engine.interruption import listen
from resnets.engine.log import MetricsLog
from resnets.engine.loop import Evaluation, EvaluationStopped, Run, share_skipped, train_loop
from resnets.engine.optimizer import build_optimizer
from resnets.engine.progress import Progress
from resnets.engine.recalibrate import recalibrate_batch_norm
from resnets.engine.state import TrainState
from resnets.models.build import build
from resnets.specs import io
from resnets.specs.catalogue import model_name
from resnets.specs.data import ImageFolder
from resnets.specs.errors import DivergedError, InterruptedRunError, ModelError, RunError, SpecError, TrainingError
from resnets.specs.finetune import GivenWeights
from resnets.tasks.classify.evaluate import EvaluationReport, choose_split
from resnets.tasks.classify.prepare import Parts, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from resnets.data.batches import TrainingBatches
    from resnets.engine.interruption import Interruption
    from resnets.specs.run import Machine, TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedRun:
    """A finished run."""

    path: Path
    spec: TrainSpec
    metrics: dict[str, Any]
    """The final evaluation, as in the model folder."""
    was_finished: bool
    """Whether there was nothing left to do."""
    rank: int
    """Rank of this process among those of the run; 0 reports."""


@dataclass(slots=True)
class _Evaluated:
    """What the evaluations of the loop leave behind."""

    named: set[str] = field(default_factory=set)
    """Unreadable images that the log has named."""
    split: str = ""
    report: EvaluationReport | None = None
    """The latest one, of step `TrainState.evaluated_step`; None where this start has made none."""


def train(
    spec: TrainSpec, *, root: Path | None, run: Path, machine: Machine, command: str, quiet: bool = False
) -> TrainedRun:
    """Train the run that `spec` describes in the directory `run`, from its latest checkpoint if it has one.

    Args:
        spec: the run; its model takes the number of classes and channels from the data.
        root: where the data are; None for the embedded digits and for the default place of CIFAR.
        run: the run directory; made if missing.
        machine: device, workers, threads, memory layout, compilation, checkpoints.
        command: what to type to go on, shown after an interruption.
        quiet: show no progress.

    Raises:
        UserError: wrong input, and nothing was written; or images that went away meanwhile, and what was reached is saved.
        DivergedError: the loss or a weight is not finite, or was not at an earlier start under the same conditions.
        TrainingError: training cannot go on; what was saved stays usable.
        InterruptedRunError: Ctrl-C or SIGTERM; the state is saved.
    """
    if root is not None and isinstance(spec.dataset, ImageFolder) and run.resolve().is_relative_to(root.resolve()):
        raise RunError(f"--run {run} lies in the folder of images, {root}; put it beside them.")
    device = choose_device(machine.device)
    check_precision(spec.precision, device)
    set_up(device, machine)
    with ExitStack() as stack:
        stack.enter_context(deterministic(device, machine))
        interruption = stack.enter_context(listen())
        ranks = stack.enter_context(distributed(device))
        parts = prepare(spec, root, RunDirectory(run), machine, ranks, command, quiet=quiet)
        if parts.directory.is_finished:
            return _finished(parts)
        _check_not_diverged(parts)
        batches = parts.batches()
        stack.callback(batches.close)
        if ranks.is_first:
            stack.enter_context(parts.directory.locked())
        return _train(parts, batches, interruption, quiet or not ranks.is_first)


def _train(parts: Parts, batches: TrainingBatches, interruption: Interruption, quiet: bool) -> TrainedRun:
    spec, ranks, directory = parts.spec, parts.ranks, parts.directory
    state = initial_state(parts)
    resumed = _resume(parts, state)
    transferred = None if parts.given is None or resumed else _start_from(parts, parts.given, state)
    if ranks.is_first:
        directory.create(spec, _start(parts, state.step, transferred))
        if parts.statistics is not None:
            directory.save_statistics(parts.statistics.to_tensors(), parts.dataset.fingerprint)
    log = MetricsLog(
        directory.metrics if ranks.is_first else None, from_step=state.step, tensorboard=directory.tensorboard
    )
    model = fast_model(parts, state.model)
    progress = Progress(total_steps=spec.steps, first_step=state.step, quiet=quiet)
    evaluated = _Evaluated()
    interruption.can_save = True
    with log, progress:
        for line in _opening_lines(parts, state, resumed, transferred):
            progress.note(line)
        run = Run(
            spec=spec,
            machine=parts.machine,
            ranks=ranks,
            model=model,
            batches=batches.batches,
            evaluate=lambda should_stop: _evaluate(parts, state.tested_model, should_stop, progress, evaluated),
            class_weights=_class_weights(parts),
            images_an_epoch=batches.num_images,
            checkpoint_folder=directory.checkpoints,
            checkpoint_extra=_checkpoint_extra(parts),
            log=log,
            progress=progress,
            interruption=interruption,
            conditions=_conditions(parts),
            command=parts.command,
        )
        train_loop(run, state)
        metrics = _finish(parts, state, log, interruption, evaluated)
    return TrainedRun(path=directory.path, spec=spec, metrics=metrics, was_finished=False, rank=ranks.rank)


def _class_weights(parts: Parts) -> torch.Tensor | None:
    """Return weights with which every class counts equally, of mean 1 over the training images."""
    if parts.spec.finetune.balance != "loss":
        return None
    classes = len(parts.dataset.classes)
    counts = np.bincount(parts.dataset.splits["train"].labels, minlength=classes)
    weights = counts.sum() / (classes * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32, device=parts.ranks.device)


def _conditions(parts: Parts) -> dict[str, Any]:
    """Return what decides, beside the spec, the numbers of this start."""
    return conditions(parts.ranks.device.type, torch.get_num_threads(), parts.ranks.world_size) | {
        "channels_last": parts.channels_last,
        "compile": parts.machine.compile,
        "deterministic": parts.machine.deterministic and parts.ranks.device.type == "cuda",
        "fingerprint": parts.dataset.fingerprint,
    }


def _check_not_diverged(parts: Parts) -> None:
    """Refuse to repeat, from the last checkpoint on, what has ended in a loss that is no number.

    Under other conditions the numbers are rounded otherwise, and the run may get past that step.

    Raises:
        DivergedError: saying what else can be done.
    """
    divergence = parts.directory.divergence()
    repeats = divergence is not None and divergence.conditions == _conditions(parts)
    # Ranks may have different processors, and go the same way all the same: that of the one whose log it is.
    if parts.ranks.any(repeats and parts.ranks.is_first):
        divergence = next(found for found in parts.ranks.gather([divergence]) if found is not None)
        raise DivergedError(divergence.repeated(parts.directory.path, parts.spec))


def _start_from(parts: Parts, given: StoredModel, state: TrainState) -> Transfer:
    """Copy the given weights into the model (and into its average)."""
    transferred = transfer(state.model, given, parts.dataset.classes)
    if state.average is not None:
        state.average.load_state_dict(state.model.state_dict())
    return transferred


def _start(parts: Parts, step: int, transferred: Transfer | None) -> dict[str, Any]:
    """Return the facts of this start that bitwise resume depends on."""
    weights = None
    if transferred is not None and parts.given is not None and isinstance(parts.spec.init, GivenWeights):
        weights = {
            "source": parts.spec.init.source,
            "name": parts.given.name,
            "licence": parts.given.licence,
            "loaded": len(transferred.loaded),
            "skipped": list(transferred.skipped),
            "initialised": list(transferred.initialised),
        }
    return {
        "init": weights,
        "step": step,
        "device": str(parts.ranks.device),
        "processes": parts.ranks.world_size,
        "threads": torch.get_num_threads(),
        "machine": io.to_json(parts.machine),
    }


def initial_state(parts: Parts) -> TrainState:
    """Return the state before the first step: new weights on the device, in the memory layout of the run."""
    model = build(parts.spec.model, seed=parts.spec.seed)
    if parts.spec.batch_norm.across_ranks == "sync":
        model = parts.ranks.synchronize_batch_norm(model)
    layout = torch.channels_last if parts.channels_last else torch.contiguous_format
    model = model.to(parts.ranks.device).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    device = parts.ranks.device
    # Tracing of a compiled model must not see the copy; it is made before.
    average = None
    if parts.spec.ema_decay:
        average = copy.deepcopy(model).eval().requires_grad_(False)
    return TrainState(
        model=model,
        average=average,
        optimizer=build_optimizer(model, parts.spec.optimizer),
        scaler=torch.amp.GradScaler(device.type, enabled=parts.spec.precision == "fp16"),
        window=torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device),
    )


def fast_model(parts: Parts, model: torch.nn.Module) -> torch.nn.Module:
    """Return the module that a step calls: `model`, compiled and wrapped for several processes."""
    if parts.machine.compile:
        model = _CompiledForFullBatches(
            model, parts.spec.global_batch // (parts.ranks.world_size * parts.spec.accumulation)
        )
    return parts.ranks.wrap(model)


class _CompiledForFullBatches(torch.nn.Module):
    """A compiled model that leaves batches with unreadable images to the model itself.

    Each size is compiled on its own, and after a few of them torch compiles no more, not even the full batch.
    """

    def __init__(self, model: torch.nn.Module, full: int) -> None:
        super().__init__()
        self.model = model
        self._full = full
        # A function and not a module, which would have each weight under a second name.
        self._compiled = torch.compile(model, dynamic=False).__call__

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return (self.model if len(images) < self._full else self._compiled)(images)


def _resume(parts: Parts, state: TrainState) -> bool:
    """Load the latest checkpoint into `state`; return whether there was one.

    Raises:
        ModelError: it is damaged, or belongs to another run, net or dataset.
    """
    path = latest_checkpoint(parts.directory.checkpoints)
    if path is None:
        return False
    values = load_checkpoint(path)
    try:
        saved_spec, fingerprint = json.loads(values["spec"]), values["fingerprint"]
        if io.spec_hash(io.from_json(type(parts.spec), saved_spec)) != io.spec_hash(parts.spec):
            changes = io.differences(saved_spec, io.to_json(parts.spec))
            raise ModelError(f"{path} belongs to a run of another spec: {'; '.join(changes[:6])}.")
        if fingerprint != parts.dataset.fingerprint:
            raise ModelError(
                f"{path} was trained on other images than {parts.dataset.name} holds now (files or classes were added, "
                "removed or renamed). Restore them, or start anew with another --run."
            )
        kept = (values["model"], values["average"], values["best"]["weights"])
        for weights in filter(None, kept):
            check_weights(state.model, weights, f"{path} does not fit {model_name(parts.spec.model)}")
        state.load_state_dict(values)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, SpecError):
            raise ModelError(f"{path}: {error}") from error
        raise ModelError(f"{path} lacks or garbles {error}; it is not a checkpoint of this version.") from error
    if not parts.ranks.is_first:
        state.window.zero_()
    return True


def _checkpoint_extra(parts: Parts) -> dict[str, Any]:
    mean = parts.preprocessor.mean_image
    return {
        "spec": json.dumps(io.to_json(parts.spec)),
        "fingerprint": parts.dataset.fingerprint,
        "classes": list(parts.dataset.classes),
        "preprocess": json.dumps(io.to_json(parts.preprocessor.spec)),
        "mean_image": None if mean is None else torch.from_numpy(mean.copy()),
    }


def _opening_lines(parts: Parts, state: TrainState, resumed: bool, transferred: Transfer | None) -> Iterator[str]:
    spec, dataset = parts.spec, parts.dataset
    counts = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    yield f"{model_name(spec.model)} on {dataset.name}: {counts} images, {len(dataset.classes)} classes"
    layout = "channels-last" if parts.channels_last else "contiguous"
    ranks = f", {parts.ranks.world_size} processes" if parts.ranks.world_size > 1 else ""
    compiled = ", compiled" if parts.machine.compile else ""
    exact = ", deterministic" if parts.machine.deterministic else ""
    yield f"{parts.ranks.device}, {spec.precision}, {layout}{compiled}{exact}{ranks}; run directory {parts.directory.path}"
    if spec.steps < spec.full_steps:
        yield (
            f"Shortened: {spec.steps:,} of the recipe's {spec.full_steps:,} steps; what the recipe counts in steps is "
            "scaled to the same shape"
        )
    if spec.finetune.head_steps:
        yield f"The last layer alone learns in the first {spec.finetune.head_steps:,} steps"
    yield from dataset.notes
    yield from parts.notes
    if transferred is not None and parts.given is not None and isinstance(spec.init, GivenWeights):
        yield f"Weights from {spec.init.source}: {transferred.text}"
        yield f"Licence of these weights: {parts.given.licence or 'not stated'}"
    if resumed:
        yield f"Going on from step {state.step:,} of {spec.steps:,}"


def _evaluate(
    parts: Parts, model: torch.nn.Module, should_stop: Callable[[], bool], progress: Progress, evaluated: _Evaluated
) -> Evaluation | None:
    """Evaluate while training goes on, keep the report, and name each unreadable image once."""
    split = "validation" if "validation" in parts.dataset.splits else "test"
    if split not in parts.dataset.splits:
        return None
    report = parts.evaluate(model, split, should_stop)
    evaluated.split, evaluated.report = split, report
    result = report.result
    for path, reason in report.skipped:
        if path not in evaluated.named:
            evaluated.named.add(path)
            progress.note(f"Left out of every score: {path}: {reason}")
    return Evaluation(
        split=split,
        loss=result.loss,
        top1_error=result.top1_error,
        values={
            "top5_error": result.top5_error,
            "images": result.images,
            "skipped": [entry.path for entry in report.skipped],
        },
    )


def _finish(
    parts: Parts, state: TrainState, log: MetricsLog, interruption: Interruption, evaluated: _Evaluated
) -> dict[str, Any]:
    """Recalibrate BatchNorm if the spec says so, evaluate the final weights, and write the model folder.

    The last checkpoint is written before, so that after an interruption the same command does only this.
    """
    spec, ranks = parts.spec, parts.ranks
    recalibrated = 0
    share_skipped(ranks, state)
    if state.best.weights:
        state.tested_model.load_state_dict(state.best.weights)
    model = state.tested_model
    ranks.share_buffers(model)
    if spec.batch_norm.recalibration_batches:
        plain = parts.batches(mixed=False)
        with closing(plain):
            batches = itertools.islice(plain.batches(spec.steps), spec.batch_norm.recalibration_batches)
            recalibrated = recalibrate_batch_norm(model, (batch.images for batch in batches), spec.precision, ranks)
    split = choose_split(parts.dataset, None)
    # The loop evaluated these very weights at its last step, unless a signal or an earlier start came between.
    same_weights = state.evaluated_step == state.step and not recalibrated and not state.best.weights
    report = evaluated.report if same_weights and evaluated.split == split else None
    if report is None:
        report = _evaluate_at_the_end(parts, model, split, interruption)
    result = report.result
    metrics = {
        "split": split,
        "images": result.images,
        "loss": result.loss,
        "top1_error": result.top1_error,
        "top5_error": result.top5_error,
        "skipped": [entry._asdict() for entry in report.skipped],
        "left_out_in_training": len(state.skipped),
        "dataset": parts.dataset.name,
        "recipe": spec.recipe,
        "steps": spec.steps,
        "full_steps": spec.full_steps,
        "batch_norm_recalibrated": recalibrated > 0,
    }
    if recalibrated:
        metrics["batch_norm_batches"] = recalibrated
    if state.best.weights:
        metrics["best_step"] = state.best.step
    if state.best.stopped:
        metrics["stopped_at_step"] = state.step
    log.write(
        state.step,
        split,
        final=True,
        loss=result.loss,
        top1_error=result.top1_error,
        images=result.images,
        skipped=[entry.path for entry in report.skipped],
    )
    if ranks.is_first:
        stored = StoredModel(
            model=model,
            spec=spec.model,
            preprocessor=parts.preprocessor,
            classes=parts.dataset.classes,
            dataset=spec.dataset,
            fingerprint=parts.dataset.fingerprint,
            metrics=metrics,
        )
        try:
            save_model(parts.directory.model, stored)
        except OSError as error:
            raise TrainingError(
                f"The model could not be written to {parts.directory.model}: {error.strerror or error}. The last "
                "checkpoint is intact; make room and run the same command again."
            ) from error
    return metrics


def _evaluate_at_the_end(
    parts: Parts, model: torch.nn.Module, split: str, interruption: Interruption
) -> EvaluationReport:
    try:
        return parts.evaluate(model, split, lambda: parts.ranks.any(interruption.requested))
    except EvaluationStopped:
        message = f"Stopped during the final evaluation; the weights are saved. To go on: {parts.command}"
        raise InterruptedRunError(message, interruption.exit_code) from None


def _finished(parts: Parts) -> TrainedRun:
    try:
        stored = load_model(parts.directory.model)
    except ModelError as error:
        raise ModelError(
            f"{error} Delete {parts.directory.model} and run again: it is made anew from the last checkpoint."
        ) from error
    if stored.fingerprint not in ("", parts.dataset.fingerprint):
        raise ModelError(
            f"{parts.directory.path} is finished, and was trained on other images than {parts.dataset.name} holds now "
            "(another folder, or files or classes that were added, removed or renamed). Start anew with another --run."
        )
    return TrainedRun(
        path=parts.directory.path,
        spec=parts.spec,
        metrics=stored.metrics,
        was_finished=True,
        rank=parts.ranks.rank,
    )
