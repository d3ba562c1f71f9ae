"""The metrics file over interruptions."""

import json
from pathlib import Path

import pytest

from resnets.engine.log import MetricsLog, cut_after
from resnets.specs.errors import TrainingError


def test_resuming_cuts_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in (10, 20, 30):
            log.write(step, "train", loss=1.0 / step)
    with path.open("a") as file:
        file.write('{"step": 40, "spl')
    with MetricsLog(path, from_step=20) as log:
        log.write(30, "train", loss=0.5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[-1] == {"step": 30, "split": "train", "loss": 0.5}


def test_numbers_that_are_not_finite_stay_out_of_the_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(1, "test", loss=float("nan"), top1_error=50.0)
    assert json.loads(path.read_text()) == {"step": 1, "split": "test", "top1_error": 50.0}


def test_without_a_path_nothing_is_written(tmp_path):
    with MetricsLog(None) as log:
        log.write(1, "train", loss=1.0)
        log.sync()
    cut_after(tmp_path / "absent.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_the_same_numbers(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl", tensorboard=tmp_path / "tensorboard") as log:
        log.write(1, "train", loss=1.0)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_a_full_disk_is_said(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log._file.close()
        log._file = full.open("a")
        with pytest.raises(TrainingError, match="checkpoints are intact"):
            log.write(1, "train", loss=1.0)
