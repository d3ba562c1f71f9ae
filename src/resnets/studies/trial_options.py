"""What a trial can change to make a run faster: each a change of its parts, and the flags that do the same for good."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resnets.data.splits import FileSplit
from resnets.engine.device import check_precision
from resnets.specs.catalogue import model_name
from resnets.specs.data import ImageFolder, ScaleCrop
from resnets.specs.errors import DeviceError, SpecError, counted
from resnets.specs.model import ResNetSpec
from resnets.studies.trial import with_images, with_spec
from resnets.studies.trial_images import ImagesInMemory, SmallerImages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from resnets.studies.diagnosis import Measured
    from resnets.studies.machine_facts import MachineFacts
    from resnets.tasks.classify.prepare import Parts

Flag = tuple[str, ...]
"""A flag and its values."""

_MARGIN = 1.15
"""More workers than the model needs by the trial's figures, so that they stay ahead."""
_MOST_WORKERS_A_CORE = 4
_DATA_IDLE = 3.0
"""From this ratio of rates on, the slower of loader and model takes nearly all of the time, on shared cores too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A change that may make the run faster."""

    kind: str
    """workers, threads, wait, resize, raw, memory, precision, channels-last, compile, net; of several, a plus between."""
    label: str
    flags: tuple[Flag, ...]
    """Of `resnets train`; the data folder's place is taken by `folder`."""
    change: Callable[[Parts], Parts]
    threads: int = 0
    """Threads of the arithmetic; 0 leaves them."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables to set before the command, which only a new process sees."""
    note: str = ""
    """What else it changes."""
    prepare: tuple[Flag, ...] = field(default=())
    """Commands to run before, as words; DATA and FOLDER stand for the data and the new folder beside it."""


def data_options(parts: Parts, measured: Measured, facts: MachineFacts) -> Iterator[Option]:
    """Yield what may make images come faster: more workers; the files themselves where reading is slow."""
    if not isinstance(parts.dataset.splits["train"], FileSplit):
        return
    # Of use where the system does not keep the files in memory by itself.
    free = min(facts.shared_memory_free_bytes or 0, facts.available_bytes or 0)
    if measured.limit == "disk" and measured.contents and measured.total_bytes < 0.5 * free:
        yield _in_memory(measured.contents)
    for workers in more_workers(parts.workers, measured, facts.cores):
        yield _workers(workers)


def more_workers(workers: int, measured: Measured, cores: int) -> Sequence[int]:
    """Return the numbers of workers that are worth a trial, the most promising first.

    As many as the model needs, if every further one brought as much as those that are there, or as a thread of the run's
    own process where that reads; at most one a core where they compute, and several a core, which helps where they wait.
    """
    one = measured.load.images_per_second / max(1, workers or measured.threads)
    needed = math.ceil(_MARGIN * measured.model.images_per_second / max(one, 1e-9))
    most = _MOST_WORKERS_A_CORE * cores
    counts = [min(needed, cores), min(needed, most), min(needed, 2 * cores)]
    return [count for count in dict.fromkeys(counts) if count > workers]


def smaller_images(parts: Parts, smaller: Sequence[bytes], shorter_px: int, *, raw: bool = False) -> Option:
    """Return the option to train on shards of images that were made smaller once, as JPEG or as raw pixels."""

    def change(parts: Parts) -> Parts:
        split = parts.dataset.splits["train"]
        assert isinstance(split, FileSplit)
        return with_images(parts, dataclasses.replace(split, images=SmallerImages(split.images, smaller)))

    note, augment = "small crops are blown up from fewer pixels, with less detail", parts.spec.augment
    if isinstance(augment, ScaleCrop):
        larger = augment.max_resize_px > shorter_px
        note = f"images resized to more than {shorter_px} are blown up, with less detail" if larger else ""
    return Option(
        kind="raw" if raw else "resize",
        label=f"shards of shorter side {shorter_px}{', raw pixels' if raw else ''}",
        flags=(("--data", "FOLDER"),),
        prepare=(("resnets", "prepare", "DATA", "FOLDER", "--resize", str(shorter_px), *(["--raw"] if raw else [])),),
        change=change,
        note=note,
    )


def shorter_side(parts: Parts) -> int | None:
    """Return the shorter side, in pixels, to which images can be resized once; None where they are no files.

    That of the test images, and for the paper's scales the smallest of them: 256 for crops of 224.
    """
    dataset, augment = parts.spec.dataset, parts.spec.augment
    if not isinstance(dataset, ImageFolder) or not isinstance(parts.dataset.splits["train"], FileSplit):
        return None
    return max(dataset.resize_px, augment.min_resize_px if isinstance(augment, ScaleCrop) else 0)


def model_options(parts: Parts, measured: Measured, facts: MachineFacts, *, compile_trial: bool) -> Iterator[Option]:
    """Yield what may make the training step faster, or leave more of the cores to it."""
    device = parts.ranks.device
    if parts.spec.precision == "fp32":
        yield from _half_precision(device)
    if not parts.channels_last and device.type in ("cpu", "cuda"):
        yield Option(
            kind="channels-last",
            label="channels-last",
            flags=(("--channels-last", "yes"),),
            change=lambda parts: dataclasses.replace(parts, channels_last=True),
        )
    if device.type == "cpu" and isinstance(parts.dataset.splits["train"], FileSplit):
        yield from map(_workers, fewer_workers(parts.workers, measured))
    if compile_trial and not parts.machine.compile:
        yield Option(
            kind="compile",
            label="compiled",
            flags=(("--compile",),),
            change=lambda parts: dataclasses.replace(parts, machine=dataclasses.replace(parts.machine, compile=True)),
            note="compiling takes a minute or more at the start of the run",
        )


def _half_precision(device: torch.device) -> Iterator[Option]:
    """Yield bf16, or fp16 on a GPU that has only that; on a CPU, fp16 is slower than fp32."""
    for precision in ("bf16", "fp16") if device.type == "cuda" else ("bf16",):
        try:
            check_precision(precision, device)
        except DeviceError:
            continue
        yield Option(
            kind="precision",
            label=precision,
            flags=(("--precision", precision),),
            change=lambda parts, precision=precision: with_spec(parts, precision=precision),
            note=f"{precision} changes the arithmetic, and so the result within its noise",
        )
        return


def thread_options(parts: Parts, measured: Measured, facts: MachineFacts) -> Iterator[Option]:
    """Yield other numbers of threads of a model on a CPU."""
    if parts.ranks.device.type == "cpu":
        yield from map(_threads, other_threads(parts, facts, measured.threads))


def waiting_options(measured: Measured, facts: MachineFacts) -> Iterator[Option]:
    """Yield threads that leave their core while they wait for each other, where others need it."""
    if measured.threads > 1 and measured.shares_cores and "OMP_WAIT_POLICY" not in facts.variables:
        yield Option(
            kind="wait",
            label="threads that sleep while they wait",
            flags=(),
            change=lambda parts: parts,
            environment=(("OMP_WAIT_POLICY", "PASSIVE"),),
        )


def other_threads(parts: Parts, facts: MachineFacts, threads: int) -> Sequence[int]:
    """Return numbers of threads that are worth a trial on a CPU: one a core, and one less, where there are `threads`."""
    usable = facts.cores if facts.quota_cores is None else max(1, int(facts.quota_cores))
    counts = [min(facts.physical_cores or facts.cores, usable), usable]
    if parts.workers and isinstance(parts.dataset.splits["train"], FileSplit):
        counts.append(usable - 1)
    return [count for count in dict.fromkeys(counts) if count >= 1 and count != threads]


def fewer_workers(workers: int, measured: Measured) -> Sequence[int]:
    """Return as many workers as the model needs, where there are more: each takes a part of a core from it."""
    one = measured.load.images_per_second / max(1, workers)
    needed = max(1, math.ceil(_MARGIN * measured.model.images_per_second / max(one, 1e-9)))
    return [needed] if needed < workers else []


def no_workers(measured: Measured) -> Iterator[Option]:
    """Yield a run that reads between its steps, with all threads, where those and workers wait for each other."""
    if measured.threads > 1 and measured.shares_cores:
        yield _workers(0)


def other_net(parts: Parts, *, larger: bool) -> Option | None:
    """Return the next larger or smaller net of the family: the same blocks, more or fewer of them."""
    spec = parts.spec.model
    blocks = _next_blocks(spec, larger=larger) if isinstance(spec, ResNetSpec) else None
    if blocks is None:
        return None
    try:
        net = dataclasses.replace(spec, blocks=blocks)
    except SpecError:
        return None
    return Option(
        kind="net",
        label=model_name(net),
        flags=(("--model.blocks", *map(str, blocks)),),
        change=lambda parts: with_spec(parts, model=net),
        note="another net, with another error",
    )


_FAMILIES = {
    "basic": ((2, 2, 2, 2), (3, 4, 6, 3)),
    "bottleneck": ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)),
}


def _next_blocks(spec: ResNetSpec, *, larger: bool) -> tuple[int, ...] | None:
    step = 1 if larger else -1
    if spec.stem == "3x3" and len(set(spec.blocks)) == 1:  # CIFAR's nets have 3, 5, 7, 9, 18 blocks a stage
        counts = (3, 5, 7, 9, 18)
        place = counts.index(spec.blocks[0]) + step if spec.blocks[0] in counts else -1
        return (counts[place],) * len(spec.blocks) if 0 <= place < len(counts) else None
    family = _FAMILIES[spec.block]
    place = family.index(spec.blocks) + step if spec.blocks in family else -1
    return family[place] if 0 <= place < len(family) else None


def is_data_idle(measured: Measured) -> bool:
    """Return whether the loader feeds so much more than the model takes that its options are not worth a trial."""
    return measured.load.images_per_second > _DATA_IDLE * measured.model.images_per_second


def is_model_idle(measured: Measured) -> bool:
    """Return whether the model takes so much more than the loader feeds that its options are not worth a trial."""
    return measured.model.images_per_second > _DATA_IDLE * measured.load.images_per_second


def _workers(count: int) -> Option:
    return Option(
        kind="workers",
        label=counted(count, "worker"),
        flags=(("--workers", str(count)),),
        change=lambda parts: dataclasses.replace(parts, workers=count),
    )


def _threads(count: int) -> Option:
    return Option(
        kind="threads",
        label=counted(count, "thread"),
        flags=(("--threads", str(count)),),
        change=lambda parts: parts,
        threads=count,
    )


def _in_memory(contents: Sequence[bytes]) -> Option:
    def change(parts: Parts) -> Parts:
        split = parts.dataset.splits["train"]
        assert isinstance(split, FileSplit)
        images = ImagesInMemory(contents, len(split))
        return with_images(parts, dataclasses.replace(split, images=images))

    return Option(
        kind="memory",
        label="files copied into memory",
        flags=(("--data", "/dev/shm/FOLDER"),),
        prepare=(("cp", "-r", "DATA", "/dev/shm/FOLDER"),),
        change=change,
        note="the copy is gone when the machine restarts",
    )
