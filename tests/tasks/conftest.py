"""Runs that take a second, on images that are made here."""

import dataclasses
import os
import signal

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.engine.progress import Progress
from resnets.specs.catalogue import model_spec

COLORS = {"blue": (30, 60, 220), "green": (40, 200, 60), "red": (220, 40, 30)}


@pytest.fixture
def photos(tmp_path):
    """A folder of three classes of noisy one-coloured images of different sizes, with train/ and val/."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for name, color in COLORS.items():
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                height, width = random.integers(36, 60, 2)
                noise = random.normal(0, 40, (height, width, 3)) + color
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def digits_spec():
    """A 24-step run of an 8-layer net on the digits, with everything that has state switched on."""
    spec = resnets.shorten(resnets.recipe("digits.resnet8"), 24)
    return dataclasses.replace(spec, global_batch=64, evaluate_every_steps=10)


@pytest.fixture
def photos_spec():
    """A 12-step run of a small net on the photos, 3.75 epochs."""
    spec = resnets.recipe("folder.scratch")
    return dataclasses.replace(
        spec,
        model=model_spec("cifar-resnet8"),
        dataset=dataclasses.replace(spec.dataset, image_px=32, resize_px=36),
        global_batch=9,
        steps=12,
        full_steps=12,
        evaluate_every_steps=6,
    )


@pytest.fixture
def signal_at(monkeypatch):
    """Send this process a signal when a step is shown, as a person at the keyboard or a scheduler would."""

    def arm(step, number=signal.SIGINT):
        update = Progress.update

        def armed(self, shown, **values):
            update(self, shown, **values)
            if shown == step:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Progress, "update", armed)
        return lambda: monkeypatch.setattr(Progress, "update", update)

    return arm
