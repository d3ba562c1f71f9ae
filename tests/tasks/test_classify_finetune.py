"""Fine-tuning from end to end: what is taken over, what stands still, when it stops, and exact resume."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import resnets
from resnets.engine import loop
from resnets.engine.checkpoint import latest_checkpoint, load_checkpoint
from resnets.engine.step import train_step
from resnets.specs.data import Mix
from resnets.specs.errors import InterruptedRunError, ModelError, RunError, SpecError
from resnets.specs.finetune import Finetune, GivenWeights
from resnets.specs.optim import NoWarmup, StepDecay
from resnets.specs.run import BatchNormPolicy

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
    first, second = (load_checkpoint(latest_checkpoint(tmp_path / name / "checkpoints")) for name in ("whole", "parts"))
    assert first["step"] == second["step"] == 12
    for kept in ("model", "average"):
        assert all(torch.equal(first[kept][name], second[kept][name]) for name in first[kept])
    assert first["best"]["step"] == second["best"]["step"]
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_stops_early_keeps_its_best_weights(finetune_spec, other_photos, tmp_path):
    spec = dataclasses.replace(
        finetune_spec,
        finetune=Finetune(head_steps=0, patience_evaluations=2),
        # So large that the loss soon rises.
        optimizer=dataclasses.replace(finetune_spec.optimizer, base_lr=2.0),
        schedule=StepDecay(milestones_steps=()),
        warmup=NoWarmup(),
        steps=90,
        full_steps=90,
    )
    run = resnets.train(spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    log = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in log if line["split"] == "validation" and "final" not in line}
    best = min(losses, key=lambda step: losses[step])
    assert run.metrics["best_step"] == best
    assert run.metrics["stopped_at_step"] == max(losses) == best + 2 * spec.evaluate_every_steps < 90
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
    with pytest.raises(ModelError, match=r"divided by \(58.4, 57.12, 57.38\), and this run"):
        resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)


@pytest.mark.parametrize("change", [{"std": (1.0, 1.0, 1.0)}, {"color": "bgr"}])
def test_another_scale_is_refused_before_minutes_go_into_a_mean_image(
    photos, photos_spec, trained, tmp_path, monkeypatch, change
):
    monkeypatch.setattr("resnets.tasks.classify.prepare.training_statistics", None)
    dataset = dataclasses.replace(photos_spec.dataset, mean_image=True, **change)
    spec = dataclasses.replace(photos_spec, dataset=dataset, init=GivenWeights(source=str(trained), model="check"))
    with pytest.raises(ModelError, match=rf"and this run has {dataset.color} minus a mean image, divided by"):
        resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    assert not (tmp_path / "run").exists()


def test_the_finetuning_recipe_asks_for_weights(photos, tmp_path):
    with pytest.raises(SpecError, match="--init-from"):
        resnets.train(resnets.recipe("folder.finetune"), data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_early_stopping_does_not_watch_the_test_set(digits_spec, tmp_path):
    spec = dataclasses.replace(digits_spec, finetune=Finetune(patience_evaluations=2))
    with pytest.raises(SpecError, match="no validation split"):
        resnets.train(spec, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_a_balanced_loss_weighs_every_class_equally(finetune_spec, other_photos, tmp_path, monkeypatch):
    seen = []

    def remember(model, passes, state, spec, ranks, class_weights):
        seen.append(class_weights)
        return train_step(model, passes, state, spec, ranks, class_weights)

    monkeypatch.setattr(loop, "train_step", remember)
    spec = dataclasses.replace(finetune_spec, finetune=Finetune(balance="loss"), steps=1, full_steps=1)
    resnets.train(spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    # 5 cyan and 16 pink training images: each class sums to half of the 21, and the mean weight is 1.
    assert (seen[0] * torch.tensor([5.0, 16.0])).tolist() == pytest.approx([10.5, 10.5])


def test_a_finished_run_needs_neither_weights_nor_checkpoints(finetune_spec, trained, other_photos, tmp_path):
    resnets.train(finetune_spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    shutil.rmtree(trained)
    shutil.rmtree(tmp_path / "tuned" / "checkpoints")
    run = resnets.train(finetune_spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    assert run.was_finished


def test_an_unfinished_run_is_used_with_the_weights_it_would_store(finetune_spec, other_photos, tmp_path):
    spec = dataclasses.replace(finetune_spec, ema_decay=0.9, finetune=Finetune(head_steps=4))
    resnets.train(spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    stored = weights(tmp_path / "tuned")
    shutil.rmtree(tmp_path / "tuned" / "model")
    loaded = resnets.load(tmp_path / "tuned").model.state_dict()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)


def test_damaged_weights_leave_no_run_behind(finetune_spec, trained, other_photos, tmp_path):
    path = trained / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["conv1.weight"][0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"conv1\.weight has values that are not finite"):
        resnets.train(finetune_spec, data=other_photos, run=tmp_path / "tuned", machine=QUICK, quiet=True)
    assert not (tmp_path / "tuned").exists()


def test_weights_of_another_scale_are_refused_on_images_in_memory(digits_spec, tmp_path):
    resnets.train(digits_spec, run=tmp_path / "digits", machine=QUICK, quiet=True)
    config = tmp_path / "digits" / "model" / "config.json"
    values = json.loads(config.read_text())
    values["preprocess"] |= {"std": [80.0]}
    config.write_text(json.dumps(values))
    for model in ("adopt", "check"):
        spec = dataclasses.replace(digits_spec, init=GivenWeights(source=str(tmp_path / "digits"), model=model))
        with pytest.raises(ModelError, match="divided by"):
            resnets.train(spec, run=tmp_path / "run", machine=QUICK, quiet=True)
    assert not (tmp_path / "run").exists()


def test_torchvisions_normalisation_is_the_one_of_the_folder_recipes(photos, photos_spec, trained, tmp_path):
    config = trained / "model" / "config.json"
    values = json.loads(config.read_text())
    # As torchvision and timm state it, in 0..1.
    values["preprocess"]["mean"] = [255 * mean for mean in (0.485, 0.456, 0.406)]
    values["preprocess"]["std"] = [255 * std for std in (0.229, 0.224, 0.225)]
    config.write_text(json.dumps(values))
    spec = dataclasses.replace(
        photos_spec, init=GivenWeights(source=str(trained), model="check"), steps=1, full_steps=1
    )
    assert resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True).metrics["images"] == 15


def test_what_keeps_trained_weights_needs_some(photos_spec):
    with pytest.raises(SpecError, match="--init-from"):
        dataclasses.replace(photos_spec, finetune=Finetune(head_steps=3))


def test_frozen_statistics_are_not_recalibrated(finetune_spec, other_photos, tmp_path):
    spec = dataclasses.replace(finetune_spec, batch_norm=BatchNormPolicy(recalibration_batches=3))
    with pytest.raises(SpecError, match="freeze_batch_norm"):
        resnets.train(spec, data=other_photos, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_another_spec_in_the_same_directory_is_named_before_statistics_are(photos, photos_spec, tmp_path):
    dataset = dataclasses.replace(photos_spec.dataset, mean_image=True)
    spec = dataclasses.replace(photos_spec, dataset=dataset, steps=2, full_steps=2)
    resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    other = dataclasses.replace(spec, dataset=dataclasses.replace(dataset, image_px=30))
    with pytest.raises(RunError, match="image_px"):
        resnets.train(other, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_statistics_of_other_images_are_computed_anew(photos, photos_spec, tmp_path):
    dataset = dataclasses.replace(photos_spec.dataset, mean_image=True)
    spec = dataclasses.replace(photos_spec, dataset=dataset, steps=2, full_steps=2)
    resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    first = load_file(tmp_path / "run" / "statistics.safetensors")["mean_image"]
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.rmtree(tmp_path / "run" / "model")
    for path in (photos / "train" / "blue").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    Image.new("RGB", (50, 50), "white").save(photos / "train" / "blue" / "white.png")
    resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    assert not torch.equal(first, load_file(tmp_path / "run" / "statistics.safetensors")["mean_image"])
