"""The doctor names the stage that limits, and its advice, followed by a real run, brings the gain that it predicted.

The delays are planted, as sleeps: they need no processor, so that neither its speed nor what else it does decides.
Where it is so busy that they are lost among its own, the test is repeated with longer ones.
"""

import dataclasses
import json
import multiprocessing
import time

import numpy as np
import pytest
import torch
from PIL import Image

import resnets
from resnets.data import loader, shards, sources
from resnets.models.resnet import ResNet
from resnets.specs.data import ImageFolder
from resnets.specs.model import ResNetSpec
from resnets.specs.optim import SGD, NoWarmup
from resnets.specs.run import Machine

pytestmark = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="planted delays reach workers that are forked"
)
ALONE = Machine(device="cpu", threads=1, workers=1)
SECONDS = 5.0
WITHIN = 0.25
"""Of the predicted gain, as the followed one may differ from it."""
SLOWNESS = (1, 8)
"""Times the delays and the length of the trial, one attempt after the other; what else a step costs stays as it is.

There are no more attempts than that: each takes its time, and may let a wrong prediction pass by luck.
"""


def patiently(test):
    """Let a test fail only where it does with the longest delays too."""

    def repeated(tmp_path):
        for slowness in SLOWNESS:
            with pytest.MonkeyPatch.context() as monkeypatch:
                try:
                    return test(tmp_path / f"{slowness}", monkeypatch, slowness)
                except AssertionError:
                    if slowness == SLOWNESS[-1]:
                        raise
        return None

    repeated.__name__ = test.__name__
    return repeated


SMALL_NET = ResNetSpec(block="basic", blocks=(1,), widths=(8,), stem="3x3", shortcut="B")


def slow_model(monkeypatch, ms_an_image, ms_in_bf16=None):
    """Let a forward pass take so many milliseconds an image, other ones under autocast."""
    forward = ResNet.forward

    def slow(self, images):
        ms = ms_in_bf16 if ms_in_bf16 is not None and torch.is_autocast_enabled("cpu") else ms_an_image
        time.sleep(0 if images.device.type == "meta" else len(images) * ms / 1000)
        return forward(self, images)

    monkeypatch.setattr(ResNet, "forward", slow)


def small_run(**fields):
    """Return a run of a small net on 32 pixels."""
    return dataclasses.replace(
        resnets.recipe("folder.scratch"),
        model=SMALL_NET,
        dataset=ImageFolder(image_px=32, resize_px=36),
        optimizer=SGD(base_lr=0.001),
        global_batch=4,  # a trial takes no fewer: fixed costs of a step are the same in it and in a run
        **fields,
    )


def write_photographs(folder, count=48, side_px=112):
    """Write `count` noisy photographs of two classes, train and validation, and return the folder."""
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (side_px, side_px + 16, 3), np.uint8)
        for split, every in (("train", 1), ("val", 12)):
            if number % every == 0:
                path = folder / split / "ab"[number % 2 if split == "train" else number // 12 % 2] / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path, quality=95)
    return folder


def slow_disk(monkeypatch, bytes_a_second):
    """Let all readers share a disk that gives so many bytes a second, however often they ask for the same ones."""
    disk = multiprocessing.get_context("fork").Lock()

    def waiting(content):
        with disk:
            time.sleep(len(content) / bytes_a_second)
        return content

    read_file, read_shard = sources.read_file, shards.ShardFiles._bytes
    monkeypatch.setattr(sources, "read_file", lambda *arguments: waiting(read_file(*arguments)))
    monkeypatch.setattr(shards.ShardFiles, "_bytes", lambda *arguments: waiting(read_shard(*arguments)))


def slow_decoding(monkeypatch, ms_an_image, *, cores=None):
    """Let decoding take so long an image, on so many cores; arrays of pixels need none of it."""
    read_crop = loader.read_crop
    core = None if cores is None else multiprocessing.get_context("fork").Semaphore(cores)

    def slow(content, *arguments, **options):
        if not content.startswith(b"\x93NUMPY"):
            if core is None:
                time.sleep(ms_an_image / 1000)
            else:
                with core:
                    time.sleep(ms_an_image / 1000)
        return read_crop(content, *arguments, **options)

    monkeypatch.setattr(loader, "read_crop", slow)


def rate_of_training(run, spec, data, machine, steps):
    """Return images a second of a real run, over its latest steps, as its log has them."""
    spec = dataclasses.replace(spec, steps=steps, evaluate_every_steps=steps, warmup=NoWarmup())
    resnets.train(spec, data=data, run=run, machine=machine, quiet=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["images_per_second"] for line in lines if "images_per_second" in line][-1]


def examined(spec, data, seconds, machine=ALONE):
    return resnets.doctor(spec, data=data, machine=machine, seconds=seconds).diagnosis


def advice_of(diagnosis, kind):
    found = [advice for advice in diagnosis.advice if advice.kinds == (kind,)]
    assert found, diagnosis.tried
    return found[0]


def assert_kept(advice, before, after):
    assert after / before == pytest.approx(advice.gain, rel=WITHIN)


@patiently
def test_a_slow_disk_is_named_and_smaller_images_bring_what_was_predicted(tmp_path, monkeypatch, slowness):
    data = write_photographs(tmp_path / "photographs")
    slow_disk(monkeypatch, 1_000_000 / slowness)
    slow_model(monkeypatch, 2 * slowness)
    spec = small_run()
    diagnosis = examined(spec, data, SECONDS * slowness, dataclasses.replace(ALONE, workers=2))
    assert diagnosis.measured.limit == "disk", diagnosis.sentences
    advice = advice_of(diagnosis, "resize")
    assert advice.gain > 2
    assert not [one for one in diagnosis.advice if "workers" in one.kinds]
    shards_folder = tmp_path / "shards"
    assert advice.commands[0].split()[:2] == ["resnets", "prepare"]
    resnets.prepare(data, shards_folder, resize_px=36, quiet=True)
    machine = dataclasses.replace(ALONE, workers=2)
    before = rate_of_training(tmp_path / "before", spec, data, machine, 30)
    after = rate_of_training(tmp_path / "after", spec, shards_folder, machine, 80)
    assert_kept(advice, before, after)


@patiently
def test_too_few_workers_are_named_and_more_bring_what_was_predicted(tmp_path, monkeypatch, slowness):
    data = write_photographs(tmp_path / "photographs")
    slow_decoding(monkeypatch, 20 * slowness)
    slow_model(monkeypatch, 4 * slowness)
    spec = small_run()
    diagnosis = examined(spec, data, SECONDS * slowness)
    assert diagnosis.measured.limit == "decode", diagnosis.sentences
    assert "1 worker" in diagnosis.sentences[0]
    advice = advice_of(diagnosis, "workers")
    count = int(advice.commands[-1].split("--workers ")[1].split()[0])
    assert count > 1
    before = rate_of_training(tmp_path / "before", spec, data, ALONE, 30)
    after = rate_of_training(tmp_path / "after", spec, data, dataclasses.replace(ALONE, workers=count), 80)
    assert_kept(advice, before, after)


@patiently
def test_with_a_small_model_decoding_limits_and_raw_pixels_bring_what_was_predicted(tmp_path, monkeypatch, slowness):
    data = write_photographs(tmp_path / "photographs")
    slow_decoding(monkeypatch, 20 * slowness, cores=2)
    slow_model(monkeypatch, 4 * slowness)
    spec, machine = small_run(), dataclasses.replace(ALONE, workers=2)
    diagnosis = examined(spec, data, SECONDS * slowness, machine)
    assert diagnosis.measured.limit == "decode", diagnosis.sentences
    assert diagnosis.advice, diagnosis.tried
    assert "raw" in diagnosis.advice[0].kinds
    assert not [one for one in diagnosis.advice if one.kinds == ("resize",)]
    advice = advice_of(diagnosis, "raw")
    resnets.prepare(data, tmp_path / "raw", resize_px=36, raw=True, quiet=True)
    before = rate_of_training(tmp_path / "before", spec, data, machine, 30)
    after = rate_of_training(tmp_path / "after", spec, tmp_path / "raw", machine, 80)
    assert_kept(advice, before, after)


@patiently
def test_a_large_model_limits_and_a_faster_precision_brings_what_was_predicted(tmp_path, monkeypatch, slowness):
    data = write_photographs(tmp_path / "photographs")
    slow_model(monkeypatch, 12 * slowness, ms_in_bf16=5 * slowness)
    spec = small_run()
    diagnosis = examined(spec, data, SECONDS * slowness)
    assert diagnosis.measured.limit == "model", diagnosis.sentences
    assert diagnosis.measured.waiting_share < 0.2
    advice = advice_of(diagnosis, "precision")
    before = rate_of_training(tmp_path / "before", spec, data, ALONE, 30)
    after = rate_of_training(tmp_path / "after", dataclasses.replace(spec, precision="bf16"), data, ALONE, 60)
    assert_kept(advice, before, after)


@patiently
def test_where_nothing_helps_the_doctor_says_so(tmp_path, monkeypatch, slowness):
    data = write_photographs(tmp_path / "photographs")
    slow_model(monkeypatch, 12 * slowness)
    diagnosis = examined(small_run(), data, 3.0 * slowness)
    assert diagnosis.measured.limit == "model", diagnosis.sentences
    assert not diagnosis.advice, diagnosis.advice
    assert diagnosis.tried
    assert diagnosis.sentences[-1].startswith("Nothing that was tried makes it faster")
