"""Fine-tuning from end to end: what is taken over, what stands still, when it stops, and exact resume."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import resnets
from resnets.engine.checkpoint import latest_checkpoint, load_checkpoint
from resnets.specs.data import Mix
from resnets.specs.errors import InterruptedRunError, ModelError, SpecError
from resnets.specs.finetune import Finetune, GivenWeights

QUICK = resnets.Machine(device="cpu", checkpoint_every=4, workers=0)


def weights(run):
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture
def trained(photos, photos_spec, tmp_path):
    """A finished run on the photos."""
    resnets.train(photos_spec, data=photos, run=tmp_path / "trained", machine=QUICK, quiet=True)
    return tmp_path / "trained"


@pytest.fixture
def finetune_spec(trained):
    """A 12-step fine-tuning run from it, everything with state switched on."""
    spec = resnets.recipe("folder.finetune")
    return dataclasses.replace(
        resnets.shorten(spec, 12),
        init=GivenWeights(source=str(trained), model="adopt"),
        finetune=Finetune(head_steps=4, freeze_batch_norm="auto", balance="sampling", patience_evaluations=50),
        global_batch=9,
        evaluate_every_steps=3,
    )


@pytest.fixture
def other_photos(tmp_path):
    """Two new classes, one with three times as many images, not divided into splits."""
    random = np.random.default_rng(1)
    for name, color, count in (("cyan", (20, 200, 200), 6), ("pink", (250, 120, 180), 18)):
        folder = tmp_path / "others" / name
        folder.mkdir(parents=True)
        for index in range(count):
            noise = random.normal(0, 40, (40, 52, 3)) + color
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "others"


def test_net_size_and_normalisation_are_those_of_the_weights(finetune_spec, other_photos, tmp_path):
    run = resnets.train(finetune_spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    assert resnets.load(tmp_path / "tuned").name == "cifar-resnet8"
    assert run.spec.model.num_classes == 2
    assert (run.spec.dataset.image_px, run.spec.dataset.resize_px) == (32, 36)
    started = json.loads((tmp_path / "tuned" / "env.json").read_text())["starts"][0]["init"]
    assert started["initialised"] == ["fc.weight", "fc.bias"]
    assert started["name"] == "cifar-resnet8"


def test_after_the_head_phase_all_but_the_head_are_the_given_weights(finetune_spec, trained, other_photos, tmp_path):
    resnets.train(finetune_spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    given = weights(trained)
    at_the_end_of_the_head_phase = load_checkpoint(tmp_path / "tuned" / "checkpoints" / "step-00000004.pt")["model"]
    at_the_end = load_checkpoint(latest_checkpoint(tmp_path / "tuned" / "checkpoints"))["model"]
    for name, value in given.items():
        if not name.startswith("fc."):
            assert torch.equal(value, at_the_end_of_the_head_phase[name])
    assert not torch.equal(given["conv1.weight"], at_the_end["conv1.weight"])
    # Fewer than 1,000 images: the statistics stand still.
    assert torch.equal(given["bn1.running_mean"], at_the_end["bn1.running_mean"])


@pytest.mark.parametrize("step", [2, 7, 10])
def test_a_resumed_run_ends_with_the_same_weights_though_the_given_ones_are_gone(
    finetune_spec, trained, other_photos, tmp_path, signal_at, step
):
    spec = dataclasses.replace(finetune_spec, ema_decay=0.9, mix=Mix(mixup_alpha=0.2, cutmix_alpha=1.0))
    spec = dataclasses.replace(spec, erase_probability=0.5)
    resnets.train(spec, data=other_photos, run=tmp_path / "whole", machine=QUICK, quiet=True)
    disarm = signal_at(step)
    with pytest.raises(InterruptedRunError):
        resnets.train(spec, data=other_photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    disarm()
    shutil.rmtree(trained)
    resnets.train(spec, data=other_photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_stops_early_keeps_its_best_weights(finetune_spec, other_photos, tmp_path):
    spec = dataclasses.replace(
        finetune_spec,
        finetune=Finetune(head_steps=0, patience_evaluations=1),
        # So large that every evaluation after the first is worse.
        optimizer=dataclasses.replace(finetune_spec.optimizer, base_lr=2.0),
    )
    run = resnets.train(spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    log = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in log if line["split"] == "validation" and "final" not in line}
    best = min(losses, key=lambda step: losses[step])
    assert run.metrics["best_step"] == best
    assert run.metrics["stopped_at_step"] == max(losses)
    assert run.metrics["loss"] == pytest.approx(losses[best], rel=1e-5)


def test_twenty_images_are_enough(trained, tmp_path):
    random = np.random.default_rng(2)
    for name, color in (("a", 60), ("b", 190)):
        (tmp_path / "few" / name).mkdir(parents=True)
        for index in range(10):
            pixels = (random.normal(color, 20, (40, 40, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "few" / name / f"{index}.png")
    spec = resnets.shorten(resnets.recipe("folder.finetune"), 20)
    spec = dataclasses.replace(spec, init=GivenWeights(source=str(trained)))
    run = resnets.train(spec, data=tmp_path / "few", run=tmp_path / "tuned", machine=QUICK, quiet=True)
    assert run.spec.global_batch == 18
    assert run.metrics["top1_error"] == 0


def test_weights_of_another_variant_are_refused(photos, photos_spec, trained, tmp_path):
    other = dataclasses.replace(photos_spec.model, shortcut="B")
    spec = dataclasses.replace(photos_spec, model=other, init=GivenWeights(source=str(trained), model="check"))
    with pytest.raises(ModelError, match="cifar-resnet8-b"):
        resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_normalisation_are_refused(photos, photos_spec, trained, tmp_path):
    dataset = dataclasses.replace(photos_spec.dataset, std=(1.0, 1.0, 1.0))
    spec = dataclasses.replace(photos_spec, dataset=dataset, init=GivenWeights(source=str(trained), model="check"))
    with pytest.raises(ModelError, match=r"divided by \(58.395"):
        resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_the_finetuning_recipe_asks_for_weights(photos, tmp_path):
    with pytest.raises(SpecError, match="--init-from"):
        resnets.train(resnets.recipe("folder.finetune"), data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_early_stopping_does_not_watch_the_test_set(digits_spec, tmp_path):
    spec = dataclasses.replace(digits_spec, finetune=Finetune(patience_evaluations=2))
    with pytest.raises(SpecError, match="no validation split"):
        resnets.train(spec, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_a_balanced_loss_weighs_every_class_equally(finetune_spec, other_photos, tmp_path):
    spec = dataclasses.replace(finetune_spec, finetune=Finetune(balance="loss"), steps=6, full_steps=6)
    run = resnets.train(spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    assert run.metrics["images"] > 0
