"""The speed of training: steps of a recipe, ours beside the usual way to write them, each in a process of its own."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from resnets.data.open import find_dataset
from resnets.data.shards import holds_shards
from resnets.engine.device import check_precision, choose_device, use_channels_last, worker_processes
from resnets.recipes.find import check_data, recipe
from resnets.specs.catalogue import model_name
from resnets.specs.data import Cifar, Color, Digits, ImageFolder, Mix, NoPolicy
from resnets.specs.errors import UserError
from resnets.specs.finetune import Finetune, RandomWeights
from resnets.specs.run import Machine, TrainSpec
from resnets.studies.accelerator import has_tf32
from resnets.studies.bench import benchmark, chosen
from resnets.studies.bench_steps import OurTraining, TrainingSystem, UsualTraining
from resnets.studies.usual_nets import plain_cifar_net, torchvision_net

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.studies.bench import Benchmark

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS = ("fp32", "bf16", "fp16")
REFERENCE = "usual, fp32"
BY_DEFAULT = "usual, TF32"
ROUNDS = 7
STEPS = 20
_SIDE = 224


def bench_train(
    spec: TrainSpec | str,
    *,
    data: str | Path | None = None,
    data_root: str | Path | None = None,
    batch: int | None = None,
    precisions: Sequence[str] = (),
    ladder: bool = False,
    step_only: bool = False,
    steps: int = STEPS,
    rounds: int = ROUNDS,
    only: Sequence[str] = (),
    machine: Machine | None = None,
    quiet: bool = False,
) -> Benchmark:
    """Return images a second of training steps, data included, of the usual implementation and of ours.

    Args:
        spec: a recipe or its name.
        data: as for `resnets.train`. Without it, digits are read, CIFAR images are noise in memory, and of a recipe
            for a folder the step alone is measured, on one batch that stays on the device.
        data_root: the folder that holds CIFAR.
        batch: images a step; None is the recipe's.
        precisions: "fp32", "bf16", "fp16"; empty is fp32 and bf16 where the device can.
        ladder: rows that add one measure of ours after the other.
        step_only: measure the step alone, whatever the data.
        steps: of a turn.
        rounds: turns of each system that count.
        only: words; systems whose names have none of them are left out, except the reference.
        machine: device, processes, threads, layout, and whether to measure compiled nets too.
        quiet: show no progress.

    Raises:
        UserError: the recipe, the data or a number cannot be used.
    """
    machine = machine or Machine()
    for name, value in (("steps", steps), ("rounds", rounds), ("batch", 1 if batch is None else batch)):
        if value < 1:
            raise UserError(f"--{name} is {value}; it is at least 1.")
    device = choose_device(machine.device)
    wanted: list[Precision] = [_precision(name) for name in precisions]
    for precision in wanted:
        check_precision(precision, device)
    spec, root = _with_data(recipe(spec) if isinstance(spec, str) else spec, data, data_root)
    if root is not None and holds_shards(root):
        raise UserError(
            f"{root} holds shards, which the usual implementation does not read; name the folder that they were made of."
        )
    spec = comparable(spec, batch)
    kind = _kind(spec, root, step_only)
    common: dict[str, Any] = {
        "images": spec.global_batch,
        "spec": spec,
        "root": root,
        "data": kind,
        "device": str(device),
        "workers": 0 if kind == "none" else worker_processes(machine, None),
        "steps": steps,
    }
    our_workers = 0 if kind == "none" else worker_processes(machine, device)
    layout = use_channels_last(device, machine)
    usable = _usable(device)
    systems = (
        ladder_systems(common, our_workers, device, usable)
        if ladder
        else training_systems(common, wanted or usable, our_workers, channels_last=layout, compiled=machine.compile)
    )
    if has_tf32(device):
        systems.insert(1, UsualTraining(name=BY_DEFAULT, tf32=True, note=_TF32, **common))
    net = model_name(spec.model)
    return benchmark(
        chosen(systems, only),
        what=f"training steps of {net}, {spec.global_batch} images of {_side(spec)} pixels, {_WHAT[kind]}, on {device.type}",
        rounds=rounds,
        own_process=True,
        threads=machine.threads,
        device=device,
        settings={
            "recipe": spec.recipe,
            "net": net,
            "batch": spec.global_batch,
            "data": kind,
            "steps_a_turn": steps,
            "workers": common["workers"],
            "our_workers": our_workers,
        },
        notes=[
            "usual: "
            + _usual_net(spec)
            + ", Dataset and DataLoader with torchvision's transforms, torch's SGD and autocast."
        ],
        quiet=quiet,
    )


_WHAT = {
    "images": "read and augmented",
    "noise": "noise, augmented as images are",
    "none": "one batch that stays on the device",
}


_TF32 = "Convolutions of fp32 rounded to TF32, as torch leaves them on this GPU; all others compute in full fp32."


def training_systems(
    common: dict[str, Any], precisions: Sequence[Precision], our_workers: int, *, channels_last: bool, compiled: bool
) -> list[TrainingSystem]:
    """Return the usual way as it is found, with its own best settings, and ours, for each precision."""
    systems: list[TrainingSystem] = [UsualTraining(name=REFERENCE, **common)]
    for precision in precisions:
        usual, ours = (
            functools.partial(kind, precision=precision, channels_last=channels_last, **common | {"workers": workers})
            for kind, workers in ((UsualTraining, common["workers"]), (OurTraining, our_workers))
        )
        if channels_last:
            systems.append(usual(name=f"usual, {precision}, NHWC"))
        elif precision != "fp32":
            systems.append(usual(name=f"usual, {precision}"))
        systems.append(ours(name=f"resnets, {precision}"))
        if compiled:
            systems.append(usual(name=f"usual, {precision}, compiled", compile=True))
            systems.append(ours(name=f"resnets, {precision}, compiled", compile=True))
    return systems


def ladder_systems(
    common: dict[str, Any], our_workers: int, device: torch.device, usable: Sequence[Precision]
) -> list[TrainingSystem]:
    """Return the usual way and ours, each row with one measure more, so that the gain of each is seen.

    Measures that the device has no use for, or cannot take, are left out.
    """
    ours = functools.partial(OurTraining, **common | {"workers": our_workers})
    systems: list[TrainingSystem] = [
        UsualTraining(name=REFERENCE, **common),
        ours(name="resnets, fp32, NCHW", keep_memory=False),
    ]
    layout = use_channels_last(device, Machine())
    if layout:
        systems.append(ours(name="... NHWC", keep_memory=False, channels_last=True))
    if device.type == "cpu":
        systems.append(ours(name="... freed memory kept", channels_last=True))
    systems.append(ours(name="... compiled", channels_last=layout, compile=True))
    if "bf16" in usable:
        systems += [
            ours(name="... bf16, not compiled", channels_last=layout, precision="bf16"),
            ours(name="... bf16, compiled", channels_last=layout, precision="bf16", compile=True),
        ]
    return systems


def comparable(spec: TrainSpec, batch: int | None) -> TrainSpec:
    """Return the recipe without what only ours has, from random weights, with a batch of its own."""
    dataset = spec.dataset
    if isinstance(dataset, ImageFolder) and dataset.image_px == 0:
        dataset = replace(dataset, image_px=_SIDE, resize_px=_SIDE + _SIDE // 7)
    accumulation = spec.accumulation if batch is None or batch % spec.accumulation == 0 else 1
    return replace(
        spec,
        dataset=dataset,
        color=Color(),
        policy=NoPolicy(),
        erase_probability=0.0,
        mix=Mix(),
        init=RandomWeights(),
        finetune=Finetune(),
        ema_decay=0.0,
        global_batch=batch or spec.global_batch,
        accumulation=accumulation,
    )


def _with_data(spec: TrainSpec, data: str | Path | None, data_root: str | Path | None) -> tuple[TrainSpec, Path | None]:
    dataset, root = find_dataset(data, data_root, spec.dataset)
    if data is not None:
        check_data(spec, dataset, str(data))
    return replace(spec, dataset=dataset), root


def _kind(spec: TrainSpec, root: Path | None, step_only: bool) -> Literal["images", "noise", "none"]:
    if step_only or (root is None and isinstance(spec.dataset, ImageFolder)):
        return "none"
    return "noise" if root is None and isinstance(spec.dataset, Cifar) else "images"


def _precision(name: str) -> Precision:
    if name not in PRECISIONS:
        raise UserError(f"--precision {name}: it is {', '.join(PRECISIONS)}.")
    return name  # pyright: ignore[reportReturnType]


def _usable(device: Any) -> list[Precision]:
    try:
        check_precision("bf16", device)
    except UserError:
        return ["fp32"]
    return ["fp32", "bf16"]


def _side(spec: TrainSpec) -> int:
    return 8 if isinstance(spec.dataset, Digits) else spec.dataset.image_px


def _usual_net(spec: TrainSpec) -> str:
    with torch.device("meta"):
        if plain_cifar_net(spec.model) is not None:
            return "the net as most public repositories write it"
        return "our net" if torchvision_net(spec.model) is None else "torchvision's net, in the recipe's variant"
