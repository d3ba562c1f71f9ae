"""A plain and a residual net of the same depth, trained side by side on real images (Sec. 4.1, Fig. 1).

44 layers at 8 x 8 pixels and 500 steps are enough for the degradation to show on two CPU cores in well
under two minutes.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from PIL import Image

from resnets import api
from resnets.data.open import open_dataset
from resnets.data.splits import ResidentSplit
from resnets.report.curves import curves_from_metrics, draw_error_curves
from resnets.report.terminal_plot import plot_in_terminal
from resnets.specs.data import Digits
from resnets.specs.errors import RunError
from resnets.specs.run import Machine, TrainSpec, shorten

if TYPE_CHECKING:
    from pathlib import Path

DEPTH = 44
SHOWN_IMAGES = 5


def run_demo(
    folder: Path, *, seed: int = 0, steps: int | None = None, machine: Machine | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Train both nets, evaluate them, predict a few test images and draw the curves.

    Args:
        folder: receives the run directories `plain` and `residual`, `curves.png` and the predicted images.
        seed: of both runs.
        steps: of each run; None is the recipe's 500.
        machine: device and threads.
        quiet: print nothing.

    Returns:
        `{"plain": {"train_error", "test_error"}, "residual": {…}, "seconds"}`, errors in percent: over the whole
        training set and the test set, with the final weights.

    Raises:
        UserError: the folder cannot be written, or a flag is wrong.
    """
    started = time.perf_counter()
    machine = machine or Machine()
    say = (lambda text="": None) if quiet else _say
    say(f"Two nets of {DEPTH} layers, equal but for the shortcuts, on 1,437 handwritten digits of 8 x 8 pixels.")
    report: dict[str, Any] = {}
    for kind, family in (("plain", "plain"), ("residual", "resnet")):
        spec = _spec(f"digits.{family}{DEPTH}", seed, steps)
        run = folder / kind
        say(f"\n{kind}")
        trained = api.train(spec, run=run, machine=machine, command="resnets demo", quiet=quiet)
        if trained.was_finished:
            say(f"already trained: {run}")
        report[kind] = {
            f"{split}_error": api.evaluate([run], data="digits", split=split, machine=machine)["top1_error"]
            for split in ("train", "test")
        }
    report["seconds"] = round(time.perf_counter() - started, 1)
    curves = [
        curve
        for kind, label in (("plain", f"plain-{DEPTH}"), ("residual", f"ResNet-{DEPTH}"))
        for curve in curves_from_metrics(folder / kind, label)
    ]
    picture = folder / "curves.png"
    try:
        draw_error_curves(curves, picture, title="Handwritten digits")
    except OSError as error:
        raise RunError(f"{picture} cannot be written: {error.strerror or error}.") from error
    if not quiet:
        print(f"\n{plot_in_terminal(curves, width=_terminal_width())}\n")
        _print_predictions(folder)
        _print_verdict(report, picture)
    return report


def _spec(name: str, seed: int, steps: int | None) -> TrainSpec:
    spec = dataclasses.replace(api.recipe(name), seed=seed)
    return spec if steps is None else shorten(spec, steps)


def _say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


def _terminal_width() -> int:
    return max(40, min(shutil.get_terminal_size().columns, 100))


def _print_predictions(folder: Path) -> None:
    """Write the first test digits as files and print what the residual net reads in them."""
    dataset = open_dataset(Digits(), None)
    split = dataset.splits["test"]
    assert isinstance(split, ResidentSplit)
    images = folder / "images"
    try:
        images.mkdir(parents=True, exist_ok=True)
        paths = []
        for index in range(SHOWN_IMAGES):
            path = images / f"test-{index}-is-{dataset.classes[split.labels[index]]}.png"
            Image.fromarray(split.images[index, :, :, 0]).save(path)
            paths.append(path)
    except OSError as error:
        raise RunError(f"{images} cannot be written: {error.strerror}.") from error
    classifier = api.load(folder / "residual")
    print("the residual net reads")
    for path, ranked in zip(paths, classifier.predict(paths, top_k=3), strict=True):
        print(f"  {path}   " + "   ".join(f"{one.label} {100 * one.probability:.1f} %" for one in ranked))


def _print_verdict(report: dict[str, Any], picture: Path) -> None:
    plain, residual = report["plain"], report["residual"]
    print("\n                 training error   test error   (final weights, all 1,437 and 360 images)")
    for label, errors in ((f"plain-{DEPTH}", plain), (f"ResNet-{DEPTH}", residual)):
        print(f"  {label:<12} {errors['train_error']:>12.2f} % {errors['test_error']:>10.2f} %")
    if plain["train_error"] > residual["train_error"]:
        print(
            "\nThe plain net fits even its own training images worse: the degradation of Sec. 1. With shortcuts, and no\n"
            "parameter more, the same net learns."
        )
    else:
        print(
            "\nNo degradation in this run: it was too short, or this seed is an exception. Try --seed 1 or more --steps."
        )
    print(f"\ncurves {picture}    models {picture.parent / 'plain'}, {picture.parent / 'residual'}")
    print(
        f"{report['seconds']:.0f} seconds. Next: resnets report {picture.parent / 'plain'} {picture.parent / 'residual'}, "
        "resnets reproduce,\nresnets train cifar10.resnet20, or resnets train folder.scratch --data FOLDER"
    )
