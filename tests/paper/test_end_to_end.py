"""A tiny experiment, trained for real: from nothing, from half, and after an interruption."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from resnets import api
from resnets.data import cifar
from resnets.engine.progress import Progress
from resnets.paper.core import listing
from resnets.paper.core.cifar import loss_difference, training_loss
from resnets.paper.core.cifar import test_error as final_test_error
from resnets.paper.core.execute import fill, fill_row
from resnets.paper.core.experiment import Experiment, FromRuns, Picture, PlannedRun, Row
from resnets.paper.core.scaled import scaled
from resnets.paper.core.verdict import Below, Report
from resnets.paper.core.workshop import Settings, Workshop, directory_name
from resnets.recipes.find import recipe
from resnets.specs.data import CIFAR10_CLASSES, Cifar
from resnets.specs.errors import InterruptedRunError, RunError
from resnets.specs.run import Machine, shorten

MACHINE = Machine(device="cpu", threads=1, checkpoint_every=10, keep_checkpoints=1)


def planned(*plans, read=training_loss):
    return Experiment(
        title="tiny",
        claim="claim",
        rows=(
            Row(
                run="all",
                meaning="number",
                ours=FromRuns(runs=plans, read=read),
                rule=Report(why="test"),
                source="test",
                budget="cpu",
            ),
        ),
        pictures=(Picture(name="tiny", title="tiny", runs=plans, budget="cpu"),),
        cost={"cpu": "seconds"},
    )


def digits(name, steps=12, seeds=(0,)):
    return PlannedRun(name=name, spec=shorten(recipe(f"digits.{name}"), steps), seeds=seeds)


def settings(folder, **fields):
    return Settings(run_root=folder, roots=(), machine=MACHINE, quiet=True, **fields)


def test_what_is_missing_is_trained_once_and_then_read(tmp_path):
    tiny = planned(digits("plain8", seeds=(0, 1)), digits("resnet8", seeds=(0, 1)), read=loss_difference)
    said = []
    first = fill("tiny", tiny, settings(tmp_path, budget="cpu", say=said.append))
    assert first.trained == len(said) == 4
    assert len(first.rows[0].seeds) == 2
    again = fill("tiny", tiny, settings(tmp_path, budget="cpu"))
    assert again.trained == 0
    assert again.rows[0].ours == first.rows[0].ours
    # A smaller budget shows no rows of this one; nothing is trained at it.
    assert fill("tiny", tiny, settings(tmp_path)).rows == ()
    assert (tmp_path / "tiny.png").is_file()
    run = first.to_json()["runs"][0]
    assert (run["iterations"], run["data"], run["seed"]) == (12, "digits 8 x 8", 0)
    assert run["test"] == "test split, 360 images, single view"
    assert run["training_seconds"] > 0


def final_weights(folder):
    (path,) = folder.glob("*/checkpoints/step-*.pt")
    return torch.load(path, weights_only=True)["model"]


def test_interrupted_by_sigterm_the_same_call_goes_on_and_ends_with_the_same_weights(tmp_path, monkeypatch):
    plan = digits("resnet8", steps=60)
    whole = fill("tiny", planned(plan), settings(tmp_path / "whole", budget="cpu"))

    update = Progress.update

    def stop_behind_a_checkpoint(self, step, **values):
        update(self, step, **values)
        if step == 25:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", stop_behind_a_checkpoint)
        with pytest.raises(InterruptedRunError) as stopped:
            fill("tiny", planned(plan), settings(tmp_path / "cut", budget="cpu"))
    assert stopped.value.exit_code == 75
    (directory,) = (tmp_path / "cut").iterdir()
    assert not (directory / "model").exists()
    # A half-done run is no result, at any budget.
    resumed = fill("tiny", planned(plan), settings(tmp_path / "cut", budget="cpu"))
    assert resumed.rows[0].ours == whole.rows[0].ours
    ours, theirs = final_weights(tmp_path / "cut"), final_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_of_resnets_train_is_gone_on_with_and_not_begun_anew(tmp_path):
    plan = digits("resnet8", steps=30)
    folder = tmp_path / "some name"
    folder.mkdir()
    api.train(plan.spec, run=folder / "mine", machine=MACHINE, quiet=True)
    outcome = fill("tiny", planned(plan), Settings(run_root=tmp_path / "runs", roots=(folder,), budget="cpu"))
    assert outcome.trained == 0
    assert outcome.runs()[0][1].path == folder / "mine"


def test_a_run_with_other_evaluations_goes_on_where_it_was(tmp_path, monkeypatch):
    plan = digits("resnet8", steps=30)
    own = dataclasses.replace(plan.spec, evaluate_every_steps=10)
    api.train(own, run=tmp_path / "mine", machine=MACHINE, quiet=True)
    # As it was after the last checkpoint, before the model was written.
    log = tmp_path / "mine" / "metrics.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"final"' not in line))
    shutil.rmtree(tmp_path / "mine" / "model")
    outcome = fill("tiny", planned(plan), settings(tmp_path, budget="cpu"))
    assert (outcome.trained, outcome.rows[0].runs[0].path) == (1, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["mine"]


def test_an_unfinished_run_elsewhere_ends_in_a_copy_with_the_weights_of_the_whole(tmp_path):
    plan = digits("resnet8", steps=30)
    machine = dataclasses.replace(MACHINE, keep_checkpoints=0)
    api.train(plan.spec, run=tmp_path / "whole", machine=machine, quiet=True)
    there = tmp_path / "results" / "half"
    shutil.copytree(tmp_path / "whole", there)
    # As it is after step 20.
    shutil.rmtree(there / "model")
    (there / "checkpoints" / "step-00000030.pt").unlink()
    (there / "checkpoints" / "latest").write_text("step-00000020.pt\n")
    log = there / "metrics.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if '"final"' not in line))
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    root = tmp_path / "runs"
    where = Settings(run_root=root, roots=(tmp_path / "results",), machine=MACHINE, quiet=True, budget="cpu")
    outcome = fill("tiny", planned(plan), where)
    assert outcome.trained == 1
    assert outcome.rows[0].runs[0].path == root / directory_name(plan.spec)
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before
    theirs = torch.load(tmp_path / "whole" / "checkpoints" / "step-00000030.pt", weights_only=True)["model"]
    ours = final_weights(root)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    starts = json.loads((root / directory_name(plan.spec) / "env.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 20]


def test_a_checkpoint_that_is_damaged_is_the_reason_of_its_row(tmp_path):
    plan = digits("resnet8", steps=30)
    api.train(plan.spec, run=tmp_path / "mine", machine=MACHINE, quiet=True)
    (tmp_path / "mine" / "metrics.jsonl").write_text("")
    shutil.rmtree(tmp_path / "mine" / "model")
    (checkpoint,) = (tmp_path / "mine").glob("checkpoints/*.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    (row,) = fill("tiny", planned(plan), settings(tmp_path, budget="cpu")).rows
    assert row.ours is None
    assert str(checkpoint) in row.reason


@pytest.mark.parametrize("there", ["runs", "elsewhere"])
def test_a_run_that_diverged_is_a_result_and_is_not_trained_again(tmp_path, monkeypatch, there):
    spec = digits("plain8", steps=30).spec
    spec = dataclasses.replace(spec, optimizer=dataclasses.replace(spec.optimizer, base_lr=1e30))
    tiny = planned(PlannedRun(name="plain-8", spec=spec))
    row = dataclasses.replace(tiny.rows[0], rule=Below(limit=5, why="test"))
    row = dataclasses.replace(row, ours=dataclasses.replace(row.ours, has_to_train=True))
    tiny = dataclasses.replace(tiny, rows=(row,), pictures=())
    (first,) = fill("tiny", tiny, settings(tmp_path / there, budget="cpu")).rows
    run = tmp_path / there / directory_name(spec)
    assert first.verdict == "FAIL"
    assert "not a finite number at step 2 (the learning rate was 1e+30);" in first.reason
    assert "--run" not in first.reason  # which is no option of reproduce
    assert first.reason.endswith(f"It is kept in {run}; remove that folder to train it anew.")

    where = Settings(
        run_root=tmp_path / "runs",
        roots=(tmp_path / there,),
        machine=dataclasses.replace(MACHINE, threads=2),
        quiet=True,
    )
    with monkeypatch.context() as context:
        context.delattr(api, "train")
        for budget in ("check", "cpu"):
            again = fill_row(row, Workshop(dataclasses.replace(where, budget=budget)), train=budget == "cpu")
            assert (again.verdict, again.reason) == ("FAIL", first.reason)
        assert listing._count([row], Workshop(where)).failed == 1
        # A row that is no claim about training is empty, and says the same.
        plain = dataclasses.replace(row, ours=dataclasses.replace(row.ours, has_to_train=False))
        assert fill_row(plain, Workshop(where), train=False).reason == first.reason
        assert (
            fill_row(plain, Workshop(dataclasses.replace(where, precision="bf16")), train=False).reason != first.reason
        )
    shutil.rmtree(run)
    assert fill_row(row, Workshop(where), train=False).ours is None
    (anew,) = fill("tiny", tiny, settings(tmp_path / there, budget="cpu")).rows
    assert anew.reason == first.reason


def test_a_folder_that_another_run_has_taken_stops_nothing(tmp_path):
    plan = digits("resnet8", steps=3)
    other = dataclasses.replace(plan.spec, label_smoothing=0.1)
    taken = tmp_path / directory_name(plan.spec)
    api.train(other, run=taken, machine=MACHINE, quiet=True)
    (_, run), *rest = fill("tiny", planned(plan), settings(tmp_path, budget="cpu")).runs()
    assert not rest
    assert run.spec == plan.spec
    assert run.path.parent == tmp_path
    assert run.path.name.startswith(f"{taken.name}-")


def test_a_run_root_that_cannot_be_is_named_as_the_flag_is(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"--run-root .*file.* cannot be written"):
        fill("tiny", planned(digits("resnet8", steps=3)), settings(tmp_path / "file" / "runs", budget="cpu"))


def test_runs_are_trained_in_the_precision_that_is_asked_for_and_say_so(tmp_path):
    tiny = planned(digits("resnet8", steps=3))
    outcome = fill("tiny", tiny, settings(tmp_path, budget="cpu", precision="bf16"))
    assert outcome.to_json()["runs"][0]["precision"] == "bf16"
    assert fill("tiny", tiny, settings(tmp_path, budget="cpu")).trained == 0


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """CIFAR-10's files with 200 training and 40 test images, made of coloured noise that tells the class."""
    monkeypatch.setattr(cifar, "_TRAIN_IMAGES", 200)
    monkeypatch.setattr(cifar, "_TEST_IMAGES", 40)
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    dice = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        labels = np.arange(40, dtype=np.uint8) % 10
        pixels = np.clip(labels[:, None] * 25 + dice.integers(0, 20, (40, 3072)), 0, 255).astype(np.uint8)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_CLASSES))
    return folder.parent


def test_small_images_and_thin_nets_train_and_are_tested_at_their_size(tmp_path, small_cifar):
    spec = scaled("cifar10.resnet8", steps=20, image_px=8, first_width=4, batch=16)
    outcome = fill(
        "tiny",
        planned(PlannedRun(name="ResNet-8", spec=spec), read=final_test_error),
        settings(tmp_path / "runs", budget="cpu", data_root=small_cifar),
    )
    assert outcome.rows[0].ours is not None
    (run,) = outcome.to_json()["runs"]
    assert run["data"] == "CIFAR-10 mean-pooled to 8 x 8"
    directory = outcome.runs()[0][1].path
    # The stored model opens the same images again, and takes image files of any size.
    report = api.evaluate([directory], data=str(small_cifar), machine=MACHINE)
    assert report["top1_error"] == outcome.rows[0].ours
    (predictions,) = api.load(directory).predict([np.full((32, 32, 3), 120, np.uint8)])
    assert len(predictions) == 5


def test_the_command_exits_with_75_on_sigterm_and_goes_on(tmp_path, small_cifar):
    # Another process, as a scheduler sees it; the sizes of the set are set in it too. However late the signal is sent,
    # the run has not ended by then: it waits before its end.
    program = """
import sys, time
from pathlib import Path
from resnets.data import cifar
from resnets.engine.progress import Progress
from resnets.paper import table6
from resnets.paper.core.experiment import Experiment, FromRuns, PlannedRun
import dataclasses
from resnets.paper.core.scaled import scaled
cifar._TRAIN_IMAGES, cifar._TEST_IMAGES = 200, 40
spec = scaled("cifar10.resnet8", steps=int(sys.argv.pop(1)), image_px=8, first_width=4, batch=16)
row = table6.EXPERIMENT.rows[-1]
ours = dataclasses.replace(row.ours, runs=(PlannedRun(name="ResNet-8", spec=spec),))
table6.EXPERIMENT = dataclasses.replace(table6.EXPERIMENT, rows=(dataclasses.replace(row, ours=ours),))
update = Progress.update
def waiting(self, step, **values):
    update(self, step, **values)
    while step == 130 and not Path("sent").exists():
        time.sleep(0.01)
Progress.update = waiting
from resnets.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", program, "150", "reproduce", "table6", "--budget", "cpu", "--json", "--quiet"]
    command += ["--data-root", str(small_cifar), "--run-root", "runs", "--device", "cpu", "--threads", "1"]
    command += ["--checkpoint-every", "20"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    found = "runs/*/checkpoints/step-*.pt"
    while process.poll() is None and time.monotonic() < deadline and not list(tmp_path.glob(found)):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    (tmp_path / "sent").touch()
    output, messages = process.communicate(timeout=300)
    assert (process.returncode, output) == (75, ""), messages
    assert "resnets reproduce table6 --budget cpu" in messages
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["ours"] is not None
    assert row["verdict"] in ("PASS", "FAIL")


def test_scaled_runs_keep_the_shape_of_the_papers_schedule():
    spec = scaled("cifar10.plain56", steps=600, image_px=8, first_width=8, batch=64)
    paper = recipe("cifar10.plain56")
    assert spec.schedule.milestones_steps == (300, 450)
    assert spec.model.widths == (8, 16, 32)
    assert spec.model.depth == 56
    assert spec.augment.pad_px == 1
    assert spec.dataset == Cifar(image_px=8)
    assert (spec.optimizer, spec.warmup, spec.full_steps) == (paper.optimizer, paper.warmup, 64_000)
    same = dataclasses.replace(scaled("cifar10.plain56", steps=64_000), evaluate_every_steps=paper.evaluate_every_steps)
    assert same == paper
