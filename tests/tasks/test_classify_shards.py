"""A run on shards is the run on their folder, and testing on them counts every image."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import resnets
from resnets.specs.errors import DataError, InterruptedRunError
from resnets.specs.io import to_json
from resnets.tasks.classify.predict import image_files

QUICK = resnets.Machine(device="cpu", checkpoint_every=8, workers=0)

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def shards(photos, tmp_path):
    (photos / "train/red/3.png").write_bytes(b"no image")
    resnets.prepare(photos, tmp_path / "shards", workers=0)
    return tmp_path / "shards"


def interrupted(spec, data, run, signal_at, step, workers):
    disarm = signal_at(step)
    with pytest.raises(InterruptedRunError):
        resnets.train(spec, data=data, run=run, machine=QUICK, quiet=True)
    disarm()
    machine = dataclasses.replace(QUICK, workers=workers)
    resnets.train(spec, data=data, run=run, machine=machine, quiet=True)
    return load_file(run / "model" / "model.safetensors")


def test_files_and_shards_each_interrupted_end_with_identical_weights(photos, shards, photos_spec, tmp_path, signal_at):
    files = interrupted(photos_spec, photos, tmp_path / "files", signal_at, 7, workers=0)
    ours = interrupted(photos_spec, shards, tmp_path / "ours", signal_at, 4, workers=2)
    assert files.keys() == ours.keys()
    assert all(torch.equal(files[name], ours[name]) for name in files)


def test_a_run_goes_on_from_files_to_shards(photos, shards, photos_spec, tmp_path, signal_at):
    whole = resnets.train(photos_spec, data=photos, run=tmp_path / "whole", machine=QUICK, quiet=True)
    disarm = signal_at(5)
    with pytest.raises(InterruptedRunError):
        resnets.train(photos_spec, data=photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    disarm()
    parts = resnets.train(photos_spec, data=shards, run=tmp_path / "parts", machine=QUICK, quiet=True)
    assert whole.metrics["loss"] == parts.metrics["loss"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_model_is_tested_on_shards_as_on_their_folder(photos, shards, photos_spec, tmp_path, workers):
    resnets.train(
        dataclasses.replace(photos_spec, steps=2), data=shards, run=tmp_path / "run", machine=QUICK, quiet=True
    )
    machine = dataclasses.replace(QUICK, workers=workers)
    for protocol in ("center", "dense"):
        reports = [
            resnets.evaluate([resnets.load(tmp_path / "run")], data=data, protocol=protocol, machine=machine)
            for data in (photos, shards)
        ]
        for report in reports:
            report.pop("dataset", None)
            report.pop("notes", None)
            report.pop("images_per_second", None)
            assert report["images"] == 15
        assert json.dumps(reports[0], default=str) == json.dumps(reports[1], default=str)


def test_predicting_shards_is_refused_in_a_line(shards):
    with pytest.raises(DataError, match="holds shards; `resnets predict` takes image files"):
        image_files([shards])


@pytest.mark.dist
def test_two_processes_train_on_shards_and_count_every_image_once(photos, shards, photos_spec, tmp_path):
    (photos / "val/red/1.png").write_bytes(b"")
    resnets.prepare(photos, tmp_path / "again", workers=0)
    spec = dataclasses.replace(photos_spec, global_batch=8, steps=3, full_steps=3, evaluate_every_steps=3)
    (tmp_path / "config.json").write_text(json.dumps(to_json(spec)))
    reports = {}
    for data in (photos, tmp_path / "again"):
        run = tmp_path / f"run-{data.name}"
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "resnets"]
        flags = (
            f"train --from {tmp_path}/config.json --data {data} --run {run} --workers 1 --threads 1 --device cpu --json"
        )
        answer = subprocess.run(
            [sys.executable, *command, *flags.split()], check=True, capture_output=True, text=True, timeout=300
        ).stdout
        reports[data.name] = json.loads(answer)
    for report in reports.values():
        assert report["images"] == 14
        assert [entry["path"].split("/")[-3:] for entry in report["skipped"]] == [["val", "red", "1.png"]]
    files, ours = (load_file(tmp_path / f"run-{name}/model/model.safetensors") for name in reports)
    assert all(torch.equal(files[name], ours[name]) for name in files)
