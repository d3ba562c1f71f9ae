"""What was trained on what, in plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnets.report.text import TIMES, count, large, listed, printable
from resnets.specs.catalogue import model_name
from resnets.specs.counts import count_multiply_adds, count_parameters
from resnets.specs.data import Cifar, Digits, ImageFolder
from resnets.specs.errors import SpecError, counted
from resnets.specs.finetune import GivenWeights
from resnets.specs.model import HighwaySpec, ResNetSpec, VGGSpec
from resnets.specs.optim import Cosine, ErrorWarmup, LinearWarmup, Plateau, StepDecay

if TYPE_CHECKING:
    from resnets.report.run_record import RunRecord
    from resnets.specs.data import DatasetSpec
    from resnets.specs.model import ModelSpec
    from resnets.specs.run import TrainSpec

_PRECISION = {"fp32": "fp32 arithmetic", "bf16": "bf16 arithmetic", "fp16": "fp16 arithmetic with loss scaling"}


def net_name(spec: ModelSpec) -> str:
    """Return the full name of a net; of one of the user's own, its class."""
    return printable(model_name(spec), 80)


def description(run: RunRecord) -> list[str]:
    """Return sentences on the net, its training and its length; a reader needs nothing else to know what this was."""
    return [_net(run.spec), _training(run.spec), length(run)]


def dataset_name(dataset: DatasetSpec) -> str:
    """Return what a set of images is called, with the number of training images where the spec decides it."""
    match dataset:
        case Digits():
            return f"the digits of scikit-learn (1,437 training images of 8 {TIMES} 8 pixels)"
        case Cifar():
            held_out, px = dataset.validation_images, dataset.image_px
            smaller = "" if px == 32 else f", means of {32 // px} {TIMES} {32 // px}"
            rest = f", {count(held_out)} held out" if held_out else ""
            return f"CIFAR-{dataset.num_classes} ({count(50_000 - held_out)} training images of {px} {TIMES} {px} pixels{smaller}{rest})"
        case ImageFolder():
            return f"a folder of images, seen at {_pixels(dataset)}"


def image_px(spec: TrainSpec) -> int | None:
    """Return the side in pixels of what the net sees; None where the spec leaves it to given weights."""
    match spec.dataset:
        case Digits():
            return 8
        case Cifar() | ImageFolder():
            return spec.dataset.image_px or None


def sizes(spec: TrainSpec) -> tuple[int | None, int | None]:
    """Return parameters, and multiply-adds of an image; None where they cannot be told from the spec."""
    px = image_px(spec)
    try:
        return count_parameters(spec.model), count_multiply_adds(spec.model, px, px) if px else None
    except SpecError:  # a net of the user's own, or images too small for the count
        return None, None


def length(run: RunRecord) -> str:
    """Return how long the run is, and whether that is all of it or of its recipe."""
    spec, done = run.spec, run.steps_done
    epochs = next((point.epoch for point in reversed(run.log.training) if point.epoch), None)
    passes = f" ({epochs:.1f} epochs)" if epochs else ""
    sentence = f"{counted(done, 'step')} of {counted(spec.global_batch, 'image')}{passes}"
    if not run.finished:
        how = "Not finished" if run.diverged_at is None else f"Diverged at step {count(run.diverged_at)}"
        sentence = (
            f"{how}: {count(done)} of {counted(spec.steps, 'step')} of {counted(spec.global_batch, 'image')}{passes}"
        )
    elif done < spec.steps:
        sentence = f"Ended early: {sentence}, of at most {count(spec.steps)}"
    if run.is_shortened:
        share = 100 * spec.steps / spec.full_steps
        return f"{sentence}. Shortened: the recipe has {count(spec.full_steps)} steps, of which this is {share:.2g} %."
    return f"{sentence}, the whole length of the recipe." if run.finished and done == spec.steps else f"{sentence}."


def _pixels(dataset: ImageFolder) -> str:
    return (
        f"{dataset.image_px} {TIMES} {dataset.image_px} pixels" if dataset.image_px else "the size its weights ask for"
    )


def _net(spec: TrainSpec) -> str:
    parameters, multiply_adds = sizes(spec)
    figures = [
        *([f"{count(parameters)} parameters"] if parameters is not None else []),
        *([f"{large(multiply_adds)} multiply-adds an image"] if multiply_adds is not None else []),
    ]
    numbers = f" with {listed(figures)}" if figures else ""
    start = (
        f"from the weights of {printable(spec.init.source, 80)}"
        if isinstance(spec.init, GivenWeights)
        else "from random weights"
    )
    return f"{net_name(spec.model)}, {_family(spec.model)}{numbers}, trained {start} on {dataset_name(spec.dataset)}."


def _family(spec: ModelSpec) -> str:
    match spec:
        case ResNetSpec(shortcut="none"):
            return f"a plain net of {spec.depth} layers"
        case ResNetSpec():
            return f"a residual net of {spec.depth} layers, shortcut option {spec.shortcut},"
        case HighwaySpec():
            return f"a highway net of {spec.depth} layers"
        case VGGSpec():
            return f"a VGG net of {spec.depth} layers"
        case _:
            return "a net of the user's own"


def _training(spec: TrainSpec) -> str:
    optimizer = spec.optimizer
    words = [
        f"SGD with momentum {optimizer.momentum:g} and weight decay {optimizer.weight_decay:g}",
        f"learning rate {optimizer.base_lr:g}{_schedule(spec)}",
        *([f"label smoothing {spec.label_smoothing:g}"] if spec.label_smoothing else []),
        *([f"averaged weights (decay {spec.ema_decay:g})"] if spec.ema_decay else []),
        _PRECISION[spec.precision],
        f"seed {spec.seed}",
    ]
    return "; ".join(words) + "."


def _schedule(spec: TrainSpec) -> str:
    words = ""
    match spec.warmup:
        case LinearWarmup():
            words = f" after {count(spec.warmup.steps)} steps of warm-up"
        case ErrorWarmup():
            words = f" after a start at {spec.warmup.lr:g} until the training error falls below {spec.warmup.until_error:g} %"
        case _:
            pass
    match spec.schedule:
        case StepDecay() if spec.schedule.milestones_steps:
            at = listed([count(step) for step in spec.schedule.milestones_steps])
            return f"{words}, {_cut(spec.schedule.factor)} at step{'s' if len(spec.schedule.milestones_steps) > 1 else ''} {at}"
        case Plateau():
            return f"{words}, {_cut(spec.schedule.factor)} whenever the error has not fallen for {spec.schedule.patience} evaluations"
        case Cosine():
            return f"{words}, down half a cosine to {spec.schedule.final_share:g} of it"
        case _:
            return f"{words}, constant"


def _cut(factor: float) -> str:
    divisor = round(1 / max(factor, 1e-9))
    return f"divided by {divisor}" if abs(factor * divisor - 1) < 1e-9 else f"multiplied by {factor:g}"
