"""The speed of predictions: a trained net, ours and others', one image at a time and in batches."""

from __future__ import annotations

import functools
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from resnets.artifacts.model_folder import StoredModel, save_model
from resnets.artifacts.pretrained import is_source
from resnets.data.preprocess import Preprocessor
from resnets.engine.device import check_precision, choose_device
from resnets.models.build import build
from resnets.specs.catalogue import model_name, model_spec
from resnets.specs.data import IMAGENET_MEAN, IMAGENET_STD
from resnets.specs.errors import SpecError, UserError, counted
from resnets.specs.preprocess import Preprocess
from resnets.specs.run import Machine
from resnets.studies.bench import Need, benchmark, chosen
from resnets.studies.bench_crops import photographs
from resnets.studies.bench_nets import NetAlone, OurPrediction, UsualPrediction
from resnets.studies.usual_nets import plain_cifar_net, timm_net, torchvision_net
from resnets.tasks.classify.load import load_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.studies.bench import Benchmark, System

BATCHES = (1, 16)
ROUNDS = 7
SECONDS = 1.0
CALLS = 3
PRECISIONS = ("fp32", "bf16", "fp16")
_PHOTOGRAPH_PX = (500, 375)
_GRAIN = 6.0
_SMALL_NET = re.compile(r"cifar-")


def bench_predict(
    model: str | Path,
    *,
    data: str | Path | None = None,
    batches: Sequence[int] = BATCHES,
    precisions: Sequence[str] = ("fp32",),
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    only: Sequence[str] = (),
    machine: Machine | None = None,
    quiet: bool = False,
) -> list[Benchmark]:
    """Return, for each size of batch, the time of predictions from files and of the net alone, ours and others'.

    Args:
        model: what `resnets.load` takes, or a net of the catalogue (`resnet50`), which gets random weights: they take
            as long.
        data: a folder of photographs; None makes some of 500 x 375 pixels.
        batches: images a call.
        precisions: of the nets alone; "fp32" comes first in any case.
        rounds: turns of each system that count.
        seconds: that a turn takes, at least.
        only: words; systems whose names have none of them are left out, except the references.
        machine: device, threads, and whether to measure compiled nets too.
        quiet: show no progress.

    Raises:
        UserError: the model, the photographs or a number cannot be used.
    """
    machine = machine or Machine()
    device = choose_device(machine.device)
    _check(batches, precisions, rounds, seconds)
    for precision in precisions:
        check_precision(precision, device)
    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resnets-bench-")))
        source, stored, notes = _model(str(model), folder)
        for batch in batches:
            paths = _photographs(data, folder, batch)
            systems = prediction_systems(
                source, stored, paths, precisions=precisions, device=str(device), compiled=machine.compile
            )
            net = model_name(stored.spec)
            side = stored.preprocessor.spec.crop_px
            found.append(
                benchmark(
                    chosen(systems, only),
                    what=f"predictions of {net}, {counted(batch, 'image')} of {side} pixels a call, on {device.type}",
                    rounds=rounds,
                    calls=CALLS,
                    seconds=seconds,
                    unmeasured=1,
                    own_process=True,
                    threads=machine.threads,
                    device=device,
                    settings={"model": str(model), "net": net, "batches": list(batches), "seconds_a_turn": seconds},
                    notes=notes,
                    quiet=quiet,
                )
            )
    return found


def prediction_systems(
    source: str,
    stored: StoredModel,
    paths: tuple[Path, ...],
    *,
    precisions: Sequence[Any],
    device: str,
    compiled: bool,
) -> list[System]:
    """Return the systems for batches as large as there are `paths`: from files, then the nets alone.

    This is the place for exported models: their systems come behind the nets.
    """
    common: dict[str, Any] = {"images": len(paths), "model": source, "device": device}
    files, usual = "script, from files", _usual_name(stored)
    net = functools.partial(NetAlone, against=usual, **common)
    systems: list[System] = [
        UsualPrediction(name=files, photographs=paths, against=files, **common),
        OurPrediction(name="resnets predict, from files", photographs=paths, against=files, **common),
        net(name=usual, net="usual"),
        net(name=f"{usual}, NHWC", net="usual", channels_last=True),
        net(name="resnets net", net="ours"),
        net(name="resnets net, folded, NHWC", net="ours", folded=True, channels_last=True),
    ]
    if _has(timm_net, stored):
        systems.append(net(name="timm net, NHWC", net="timm", needs=(Need("timm", "timm"),), channels_last=True))
    for precision in precisions:
        theirs = functools.partial(net, net="usual", precision=precision, channels_last=True)
        ours = functools.partial(net, net="ours", precision=precision, channels_last=True, folded=True)
        label = "" if precision == "fp32" else f", {precision}"
        if label:
            systems += [theirs(name=f"{usual}, NHWC{label}"), ours(name=f"resnets net, folded, NHWC{label}")]
        if compiled:
            systems.append(theirs(name=f"{usual}, compiled{label}", compile=True))
            systems.append(ours(name=f"resnets net, folded, compiled{label}", compile=True))
    return systems


def _usual_name(stored: StoredModel) -> str:
    if _has(torchvision_net, stored):
        return "torchvision net"
    return "usual net" if _has(plain_cifar_net, stored) else "net as it is"


def _has(make: Any, stored: StoredModel) -> bool:
    try:
        with torch.device("meta"):
            return make(stored.spec) is not None
    except ImportError:
        return True  # so that it is listed as not installed


def _model(model: str, folder: Path) -> tuple[str, StoredModel, list[str]]:
    """Return what to load, the loaded model, and what must be said of it."""
    if Path(model).exists() or is_source(model):
        return model, load_source(model), []
    try:
        spec = model_spec(model)
    except SpecError as error:
        raise UserError(f"{error} Or name a run directory or a model folder; {model} is none.") from error
    small = _SMALL_NET.match(model) is not None
    crop, resize = (32, 32) if small else (224, 256)
    preprocess = Preprocess(resize_px=resize, crop_px=crop, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    stored = StoredModel(
        model=build(spec, seed=0).eval(),
        spec=spec,
        preprocessor=Preprocessor(preprocess),
        classes=tuple(str(number) for number in range(spec.num_classes)),
        metrics={},
    )
    save_model(folder / "model", stored)
    return str(folder / "model"), stored, ["The weights are random: they take as long as trained ones."]


def _photographs(data: str | Path | None, folder: Path, count: int) -> tuple[Path, ...]:
    if data is not None:
        found, _ = photographs(Path(data), count)
        return tuple(found[number % len(found)] for number in range(count))
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = generator.integers(0, 256, (24, 32, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(_PHOTOGRAPH_PX, Image.Resampling.BICUBIC), np.float32)
        grain = generator.normal(0.0, _GRAIN, smooth.shape)
        paths.append(folder / f"photograph-{number}.jpg")
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return tuple(paths)


def _check(batches: Sequence[int], precisions: Sequence[str], rounds: int, seconds: float) -> None:
    for name, value in (("rounds", rounds), *(("batch", batch) for batch in batches)):
        if value < 1:
            raise UserError(f"--{name} is {value}; it is at least 1.")
    if not batches:
        raise UserError("--batch names no size.")
    if not 0 <= seconds <= 3600:
        raise UserError(f"--seconds is {seconds:g}; it is at least 0 and at most 3600.")
    for precision in precisions:
        if precision not in PRECISIONS:
            raise UserError(f"--precision {precision}: it is {', '.join(PRECISIONS)}.")
