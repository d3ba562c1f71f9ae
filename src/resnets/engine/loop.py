"""The training loop: the order of events of a run, on one page.

`tasks/*/train.py` calls `train_loop`; each pass through its body is one optimiser step of `engine/step.py`.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from resnets.artifacts.divergence import Divergence
from resnets.engine.checkpoint import save_checkpoint
from resnets.engine.freeze import set_learning
from resnets.engine.gpu_memory import is_out_of_memory, no_memory, release
from resnets.engine.optimizer import set_learning_rate
from resnets.engine.schedule import learning_rate, needs_step_errors, observe_evaluation, observe_step
from resnets.engine.step import train_step
from resnets.specs.errors import DivergedError, InterruptedRunError, ResnetsError, TrainingError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from resnets.engine.distributed import Distributed
    from resnets.engine.interruption import Interruption
    from resnets.engine.log import MetricsLog
    from resnets.engine.progress import Progress
    from resnets.engine.state import TrainState
    from resnets.specs.run import Machine, TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What the loop needs to know of an evaluation, and what it writes down."""

    split: str
    """Split that was evaluated."""
    loss: float
    """Mean cross-entropy."""
    top1_error: float
    """Percent."""
    values: dict[str, Any] = field(default_factory=dict)
    """More values for the log."""


MINUTES_BETWEEN_CHECKPOINTS = 10
"""A slow run saves at least this often, however many steps are asked for between checkpoints."""


class EvaluationStopped(Exception):  # noqa: N818 - a signal to the loop, not an error
    """An evaluation was left because the run was asked to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The parts of a run that do not change while it goes on."""

    spec: TrainSpec
    machine: Machine
    ranks: Distributed
    model: nn.Module
    """The module to train: `TrainState.model`, compiled or wrapped for several ranks."""
    batches: Callable[[int], Iterator[Any]]
    """Given the first step, an endless iterator of batches with `images`, `labels` and `skipped`."""
    evaluate: Callable[[Callable[[], bool]], Evaluation | None]
    """Evaluate the current weights; None where the data have nothing to evaluate on. It calls its argument
    between batches and raises `EvaluationStopped` when that returns true."""
    class_weights: torch.Tensor | None
    """How much an image of each class weighs in the loss, float32 on the device; None is 1."""
    images_an_epoch: int
    checkpoint_folder: Path
    checkpoint_extra: dict[str, Any]
    """What else a checkpoint holds: the spec, class names, preprocessing."""
    log: MetricsLog
    progress: Progress
    interruption: Interruption
    conditions: dict[str, Any]
    """What decides how the numbers of this start are rounded, for the log of a run that diverges."""
    command: str
    """What to type to go on after an interruption."""


def train_loop(run: Run, state: TrainState) -> None:
    """Train from `state.step` to the end of the spec.

    Raises:
        InterruptedRunError: a signal asked to stop; the state is saved.
        DivergedError: the loss or a weight is not finite; the log says so.
        TrainingError: a checkpoint could not be written, or the device's memory is not enough.
        ResnetsError: images cannot be had any more, or none of them fits into memory. Where images or memory fail, a run
            of one process has saved its state, unless it was in the middle of an update.
    """
    spec = run.spec
    saved_step, saved_at = state.step, time.monotonic()
    clock = _Clock()
    batches = run.batches(state.step)
    set_learning(run.model, spec.finetune, state.step, run.ranks)
    while True:
        if _evaluation_is_due(run, state):
            _check_finite(run, state, saved_step)
            with suppress(EvaluationStopped), _saved_before_it_fails(run, state, saved_step):
                _evaluate(run, state)
            clock.restart()
        overdue = time.monotonic() - saved_at > MINUTES_BETWEEN_CHECKPOINTS * 60
        asked = run.ranks.any(run.interruption.requested or overdue)
        stopping = asked and run.ranks.any(run.interruption.requested)
        ended = state.step == spec.steps or state.best.stopped
        due = state.step % run.machine.checkpoint_every == 0 or ended or asked
        if due and state.step > saved_step:
            _check_finite(run, state, saved_step, weights=True)
            _save(run, state)
            saved_step, saved_at = state.step, time.monotonic()
            clock.restart()
        if ended:
            return
        if stopping:
            raise InterruptedRunError(
                f"Stopped at step {state.step} of {spec.steps}, saved. To go on: {run.command}",
                run.interruption.exit_code,
            )
        clock.wait()
        with _saved_before_it_fails(run, state, saved_step):
            passes = [next(batches) for _ in range(spec.accumulation)]
        clock.go_on()
        lr = learning_rate(spec, state.step, state.schedule)
        set_learning_rate(state.optimizer, lr, spec.optimizer)
        _seed_random_layers(run, state.step)
        if state.step == spec.finetune.head_steps:
            set_learning(run.model, spec.finetune, state.step, run.ranks)
        with _saved_before_it_fails(run, state, saved_step):
            totals = _step(run, state, passes, saved_step)
        state.window += totals
        state.step += 1
        clock.count(spec.global_batch)
        _note_skipped(run, state, passes)
        _observe(run, state, totals, lr, clock, saved_step)


@contextmanager
def _saved_before_it_fails(run: Run, state: TrainState, saved_step: int) -> Iterator[None]:
    """Save the state when images or memory cannot be had any more, so that the run goes on from there when they can."""
    try:
        yield
    except (ResnetsError, RuntimeError) as error:
        told = isinstance(error, ResnetsError)
        if not told:
            if not is_out_of_memory(error):
                raise
            release(error)
        # Ranks save together, and the others do not know.
        if state.step > saved_step and run.ranks.world_size == 1 and not state.updating:
            _check_finite(run, state, saved_step, weights=True)
            _save(run, state)
            run.progress.note(f"Step {state.step} is saved. When the error is mended, go on with: {run.command}")
        if told:
            raise
        raise TrainingError(str(no_memory(error))) from error


def _step(run: Run, state: TrainState, passes: list[Any], saved_step: int) -> torch.Tensor:
    """Take a step, or say what helps where the memory is not enough for its passes.

    The weights are then those of the step before. BatchNorm's moving averages may have seen the images once already.
    """
    try:
        return train_step(run.model, passes, state, run.spec, run.ranks, run.class_weights)
    except RuntimeError as error:
        if state.updating or not is_out_of_memory(error):
            raise
        state.optimizer.zero_grad(set_to_none=True)
        release(error)
        raise TrainingError(_too_large(run, state, passes, saved_step)) from error


def _too_large(run: Run, state: TrainState, passes: list[Any], saved_step: int) -> str:
    spec, device = run.spec, run.ranks.device
    height, width = passes[0].images.shape[-2:]
    images = spec.global_batch // (spec.accumulation * run.ranks.world_size)
    ways = []
    if images > 1:
        parts = next(parts for parts in range(2, images + 1) if images % parts == 0)
        ways.append(
            f"--accumulation {spec.accumulation * parts} makes the passes of a step smaller: the batch and the update stay "
            "the same, but BatchNorm sees each pass alone."
        )
    if spec.precision == "fp32" and device.type == "cuda":
        ways.append("--precision bf16 (fp16 on a GPU before Ampere) takes about half the memory.")
    if ways:
        ways.append("Either is another run: give it a new --run." if len(ways) > 1 else "Give it a new --run.")
    saved = state.step if run.ranks.world_size == 1 else saved_step
    goes_on = f"goes on from step {saved}, which is saved" if saved else "begins anew; no step is saved"
    return " ".join(
        [
            f"A pass of {counted(images, 'image')} of {height} x {width} px does not fit into the memory of {device}.",
            *ways,
            f"Where something else took the memory, or with another --device, the same command {goes_on}.",
        ]
    )


def _seed_random_layers(run: Run, step: int) -> None:
    # Dropout's mask is a function of the seed, the step and the rank, so that a resumed run repeats it.
    torch.manual_seed((run.spec.seed * 1_000_003 + step * 1_009 + run.ranks.rank) % 2**63)


def log_interval(spec: TrainSpec) -> int:
    """Return the steps between two lines of the log: about 100 lines for a short run, every 100 steps for a long."""
    return max(1, min(100, spec.steps // 100))


def _observe(run: Run, state: TrainState, totals: torch.Tensor, lr: float, clock: _Clock, saved_step: int) -> None:
    spec = run.spec
    if needs_step_errors(spec, state.schedule):
        _, errors, images = run.ranks.sum(totals.clone()).tolist()
        if observe_step(spec, state.schedule, state.step, 100 * errors / max(images, 1)):
            run.progress.note(f"Step {state.step}: the training error is low enough; warm-up ends.")
    # Reading a number back waits for the device; on a GPU that would cost more than it shows.
    if run.ranks.device.type == "cpu" or state.step % 20 == 0:
        loss, errors, images = totals.tolist()
        run.progress.update(
            state.step,
            loss=loss / max(images, 1),
            error=100 * errors / max(images, 1),
            lr=lr,
            images_per_second=clock.images_per_second,
            waiting_share=clock.waiting_share,
        )
    if state.step % log_interval(spec) == 0:
        _check_finite(run, state, saved_step)
        loss, errors, images = run.ranks.sum(state.window).tolist()
        run.log.write(
            state.step,
            "train",
            epoch=_epoch(run, state),
            loss=loss / max(images, 1),
            top1_error=100 * errors / max(images, 1),
            lr=lr,
            images_per_second=round(clock.images_per_second, 1),
            waiting_share=round(clock.waiting_share, 4),
        )
        state.window.zero_()


def _epoch(run: Run, state: TrainState) -> float:
    return round(state.step * run.spec.global_batch / run.images_an_epoch, 4)


def _note_skipped(run: Run, state: TrainState, passes: list[Any]) -> None:
    for batch in passes:
        for path, reason in batch.skipped:
            if path not in state.skipped:
                state.skipped[path] = reason
                run.progress.note(f"Left out of training: {path}: {reason}")
                run.log.write(state.step, "train", left_out={"path": path, "reason": reason})


def _check_finite(run: Run, state: TrainState, saved_step: int, *, weights: bool = False) -> None:
    """Stop before a loss or weights that are not numbers are logged, evaluated or saved."""
    finite = bool(torch.isfinite(state.window).all().item())
    if finite and weights:
        values = [*state.model.state_dict().values(), *state.tested_model.state_dict().values()]
        finite = all(bool(torch.isfinite(value).all().item()) for value in values)
    if run.ranks.any(not finite):
        lr = state.optimizer.param_groups[0]["lr"]
        divergence = Divergence(step=state.step, checkpoint_step=saved_step, lr=lr, conditions=run.conditions)
        with suppress(TrainingError):  # on a full disk it is at least said
            run.log.write(state.step, "train", **divergence.values())
            run.log.sync()
        raise DivergedError(divergence.message(run.spec))


def _evaluation_is_due(run: Run, state: TrainState) -> bool:
    at_interval = state.step % run.spec.evaluate_every_steps == 0 or state.step == run.spec.steps
    return state.step > 0 and at_interval and state.evaluated_step != state.step


def _evaluate(run: Run, state: TrainState) -> None:
    run.ranks.share_buffers(state.tested_model)
    try:
        evaluation = run.evaluate(lambda: run.ranks.any(run.interruption.requested))
    finally:
        set_learning(run.model, run.spec.finetune, state.step, run.ranks)
    state.evaluated_step = state.step
    if evaluation is None:
        return
    run.log.write(
        state.step,
        evaluation.split,
        epoch=_epoch(run, state),
        loss=evaluation.loss,
        top1_error=evaluation.top1_error,
        **evaluation.values,
    )
    run.progress.evaluated(state.step, evaluation.split, evaluation.loss, evaluation.top1_error)
    state.best.observe(run.spec.finetune, state.step, evaluation.loss, state.tested_model)
    if state.best.stopped:
        run.progress.note(
            f"Step {state.step}: the loss has not fallen for {state.best.stale_evaluations} evaluations; the run ends "
            f"with the weights of step {state.best.step}."
        )
    if observe_evaluation(run.spec, state.schedule, evaluation.top1_error):
        run.progress.note(f"Step {state.step}: the error is on a plateau; the learning rate falls.")


def share_skipped(ranks: Distributed, state: TrainState) -> None:
    """Let every rank know the images that any of them could not read."""
    for path, reason in ranks.gather(list(state.skipped.items())):
        state.skipped.setdefault(path, reason)


def _save(run: Run, state: TrainState) -> None:
    run.ranks.share_buffers(state.model)
    share_skipped(run.ranks, state)
    if run.ranks.world_size > 1:
        # Every rank's share of the open window goes into the one checkpoint.
        run.ranks.sum(state.window)
        if not run.ranks.is_first:
            state.window.zero_()
    if run.ranks.is_first:
        run.log.sync()
        save_checkpoint(
            run.checkpoint_folder, state.step, state.state_dict() | run.checkpoint_extra, run.machine.keep_checkpoints
        )


class _Clock:
    """Images per second and the share of time spent waiting for data, over the latest 50 steps.

    The first two steps are left out: they start workers, compile, and choose algorithms.
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float, int]] = deque(maxlen=50)
        self._left_out = 2
        self._last = time.perf_counter()
        self._waited = 0.0

    def restart(self) -> None:
        """Leave out the time since the last step."""
        self._last = time.perf_counter()

    def wait(self) -> None:
        self._waited -= time.perf_counter()

    def go_on(self) -> None:
        self._waited += time.perf_counter()

    def count(self, images: int) -> None:
        now = time.perf_counter()
        if self._left_out:
            self._left_out -= 1
        else:
            self._steps.append((now - self._last, self._waited, images))
        self._last, self._waited = now, 0.0

    @property
    def images_per_second(self) -> float:
        return sum(images for *_, images in self._steps) / (sum(elapsed for elapsed, *_ in self._steps) or 1.0)

    @property
    def waiting_share(self) -> float:
        return sum(waited for _, waited, _ in self._steps) / (sum(elapsed for elapsed, *_ in self._steps) or 1.0)
