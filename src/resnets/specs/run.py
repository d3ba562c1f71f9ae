"""A whole training run as data: everything that decides the weights it ends with, and the machine it runs on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from resnets.specs.data import (
    AugmentSpec,
    Color,
    DatasetSpec,
    ImageFolder,
    Mix,
    NoPolicy,
    PadCrop,
    PolicySpec,
    ScaleCrop,
)
from resnets.specs.errors import SpecError
from resnets.specs.finetune import Finetune, GivenWeights, InitSpec, RandomWeights
from resnets.specs.io import shown
from resnets.specs.model import ModelSpec
from resnets.specs.optim import SGD, ErrorWarmup, LinearWarmup, NoWarmup, ScheduleSpec, StepDecay, WarmupSpec

MOST_STEPS = 10**9
"""Of a run, and images of a step: no machine gets there, and larger numbers are mistyped."""

_MOST_AT_ONCE = 1_024
"""Workers or threads: with tens of thousands of threads, OpenMP's runtime ends the process by a fault of memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchNormPolicy:
    """What BatchNorm's statistics are taken over, in training and for testing."""

    across_ranks: Literal["local", "sync"] = "local"
    """Statistics over the images of one process, or over the global batch."""
    recalibration_batches: int = 0
    """Training batches over which the statistics are averaged anew after training; 0 keeps the moving ones."""

    def __post_init__(self) -> None:
        """Refuse a negative count."""
        if self.recalibration_batches < 0:
            raise SpecError(f"batch_norm.recalibration_batches is {self.recalibration_batches}; it is 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec:
    """One training run of a classifier: model, data, optimiser, schedule, length, precision and seed."""

    recipe: str = ""
    """Name of the recipe this came from; only a label."""
    model: ModelSpec
    """The network."""
    dataset: DatasetSpec
    """The images."""
    augment: AugmentSpec = field(default_factory=PadCrop)
    """How training images are cropped and mirrored."""
    color: Color = field(default_factory=Color)
    """How their colours are varied."""
    policy: PolicySpec = field(default_factory=NoPolicy)
    """Further operations on them."""
    erase_probability: float = 0.0
    """Probability that a random rectangle of a training image is erased (Zhong et al. 2020)."""
    mix: Mix = field(default_factory=Mix)
    """Mixup and CutMix."""
    init: InitSpec = field(default_factory=RandomWeights)
    """The weights at the start."""
    finetune: Finetune = field(default_factory=Finetune)
    """How weights that are trained already are treated."""
    optimizer: SGD = field(default_factory=SGD)
    """The optimiser."""
    schedule: ScheduleSpec = field(default_factory=StepDecay)
    """The learning rate over the run."""
    warmup: WarmupSpec = field(default_factory=NoWarmup)
    """The learning rate at the start."""
    steps: int = 64_000
    """Optimiser steps ("iterations" in the paper)."""
    full_steps: int = 64_000
    """Steps of the unshortened recipe; `steps` below it marks the run as shortened."""
    global_batch: int = 128
    """Images an optimiser step, over all processes."""
    accumulation: int = 1
    """Forward and backward passes that share an optimiser step; BatchNorm sees each pass alone."""
    batch_norm: BatchNormPolicy = field(default_factory=BatchNormPolicy)
    """BatchNorm's statistics."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward pass; weights and updates stay in fp32."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes; the paper uses none."""
    ema_decay: float = 0.0
    """Share of the averaged weights that each step keeps; those are tested and stored. 0 is off."""
    evaluate_every_steps: int = 1_000
    """Steps between evaluations."""
    seed: int = 0
    """Seed of the weights, of the order of the images and of their augmentation."""

    def __post_init__(self) -> None:
        """Refuse lengths and batches that cannot be trained."""
        for name in ("steps", "full_steps", "global_batch", "accumulation", "evaluate_every_steps"):
            if not 1 <= getattr(self, name) <= MOST_STEPS:
                raise SpecError(f"{name} is {shown(getattr(self, name))}; it is at least 1 and at most a billion.")
        if self.global_batch % self.accumulation:
            raise SpecError(
                f"global_batch {self.global_batch} does not divide into accumulation {self.accumulation} equal passes."
            )
        if not 0 <= self.label_smoothing < 1:
            raise SpecError(f"label_smoothing is {self.label_smoothing}; it is at least 0 and below 1.")
        if not 0 <= self.seed < 2**63:
            raise SpecError(f"seed is {self.seed}; it is between 0 and 2^63 - 1.")
        if not 0 <= self.erase_probability <= 1:
            raise SpecError(f"erase_probability is {self.erase_probability}; it is between 0 and 1.")
        if not 0 <= self.ema_decay < 1:
            raise SpecError(f"ema_decay is {self.ema_decay}; it is at least 0 and below 1 (0.999, 0.9999).")
        if isinstance(self.dataset, ImageFolder):
            self._check_folder(self.dataset)
        else:
            self._check_resident()
        finetune = self.finetune
        if (finetune.head_steps or finetune.freeze_batch_norm == "yes") and not isinstance(self.init, GivenWeights):
            raise SpecError(
                "finetune.head_steps and finetune.freeze_batch_norm keep trained weights as they are, and this run starts "
                "from random ones; name weights with --init-from."
            )
        if self.finetune.head_steps >= self.steps and self.finetune.head_steps:
            raise SpecError(
                f"finetune.head_steps is {self.finetune.head_steps}; it is below the {self.steps} steps of the run."
            )

    def _check_folder(self, dataset: ImageFolder) -> None:
        if isinstance(self.augment, PadCrop):
            raise SpecError(
                "augment: images of a folder have different sizes; choose augment:area-crop or augment:scale-crop."
            )
        if isinstance(self.augment, ScaleCrop) and self.augment.min_resize_px < dataset.image_px:
            raise SpecError(
                f"augment.min_resize_px is {self.augment.min_resize_px}, below dataset.image_px {dataset.image_px}: the "
                "crop would not fit."
            )
        if dataset.image_px == 0 and not isinstance(self.init, GivenWeights):
            raise SpecError("dataset.image_px is 0, the size of given weights, but the run starts from random ones.")
        if dataset.color == "gray" and self.color != Color():
            raise SpecError("color varies RGB images; dataset.color is gray.")

    def _check_resident(self) -> None:
        if not isinstance(self.augment, PadCrop):
            raise SpecError("augment: digits and CIFAR images are augmented by augment:pad-crop.")
        if self.color != Color() or not isinstance(self.policy, NoPolicy):
            raise SpecError("color and policy vary the images of a folder; digits and CIFAR take erase and mix.")


def shorten(spec: TrainSpec, steps: int) -> TrainSpec:
    """Return `spec` with `steps` steps and everything that is counted in steps scaled to the same shape.

    Milestones, warm-up steps, the steps in which only the last layer learns, and the interval of evaluations (down to 20 steps) scale with the length; `full_steps` stays, so
    that the run is marked as shortened wherever it is shown. In a run of few steps, milestones that fall on the
    same one are one.

    Raises:
        SpecError: `steps` is below 1, or more than a run can have.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise SpecError(f"--steps is {shown(steps)}; it is at least 1 and at most a billion.")
    ratio = steps / spec.steps

    def scaled(count: int) -> int:
        return max(1, round(count * ratio))

    def scaled_or_none(count: int) -> int:
        return scaled(count) if count else 0

    schedule = spec.schedule
    if isinstance(schedule, StepDecay):
        milestones = tuple(sorted({scaled(step) for step in schedule.milestones_steps}))
        schedule = dataclasses.replace(schedule, milestones_steps=milestones)
    warmup = spec.warmup
    if isinstance(warmup, LinearWarmup):
        warmup = dataclasses.replace(warmup, steps=scaled(warmup.steps))
    elif isinstance(warmup, ErrorWarmup):
        warmup = dataclasses.replace(warmup, window_steps=scaled(warmup.window_steps))
    return dataclasses.replace(
        spec,
        steps=steps,
        schedule=schedule,
        warmup=warmup,
        finetune=dataclasses.replace(
            spec.finetune, head_steps=min(scaled_or_none(spec.finetune.head_steps), steps - 1)
        ),
        # A test set can cost as much as many steps: a short run would do little but evaluate.
        evaluate_every_steps=max(scaled(spec.evaluate_every_steps), min(20, spec.evaluate_every_steps)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Facts of the machine: they change the speed of a run, not what it is."""

    device: str = "auto"
    """cpu, cuda (torch's current GPU: the first, unless another was made that), cuda:1, mps, or auto: the best there is.
    Under torchrun each process takes a GPU of its own."""
    workers: int = -1
    """Processes that decode images; -1 is one a core beside a GPU, at most 8, where torchrun's processes on a machine
    share its cores; and none on the CPU, whose threads decode between the steps. Unused for digits and CIFAR."""
    threads: int = 0
    """Threads of the CPU arithmetic; 0 leaves torch's choice."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Memory layout of images and weights: n h w c is faster nearly everywhere."""
    compile: bool = False
    """Compile the model with torch.compile: a minute at the start, then faster steps."""
    deterministic: bool = False
    """The same bits on a GPU too, in one process or two: slower. On the CPU it changes nothing, and on mps either."""
    checkpoint_every: int = 1_000
    """Steps between checkpoints."""
    keep_checkpoints: int = 0
    """Newest checkpoints to keep; 0 keeps all."""

    def __post_init__(self) -> None:
        """Refuse counts that make no sense."""
        if self.workers < -1:
            raise SpecError(f"--workers is {self.workers}; it is 0 or more, or -1 for the best of this machine.")
        if self.threads < 0:
            raise SpecError(f"--threads is {self.threads}; it is 0 or more.")
        for flag, number in (("--workers", self.workers), ("--threads", self.threads)):
            if number > _MOST_AT_ONCE:
                raise SpecError(
                    f"{flag} is {number:,}; it is at most {_MOST_AT_ONCE:,}. More than one or two a core slow a run down, and "
                    "very many end it."
                )
        if self.checkpoint_every < 1:
            raise SpecError(f"--checkpoint-every is {self.checkpoint_every}; it is at least 1 step.")
        if self.keep_checkpoints < 0:
            raise SpecError(f"--keep-checkpoints is {self.keep_checkpoints}; it is 0 (all) or more.")
