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


@pytest.mark.parametrize(
    "line",
    [
        '{"step": null}',
        '{"step": "5"}',
        '{"step": true}',
        '{"split": "train"}',
        "[]",
        "1" * 5000,
        '{"step": ' + "1" * 5000 + "}",
        "[" * 100_000,
    ],
)
def test_resuming_drops_what_is_no_entry_of_a_log(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = '{"step": 5, "split": "train"}\n'
    path.write_text(f"{line}\n{good}")
    cut_after(path, 20)
    assert path.read_text() == good


def test_the_cut_log_is_on_the_disk_before_it_replaces_the_other(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n')

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnets.engine.log.os.fsync", full)
    with pytest.raises(TrainingError, match="No space left on device"):
        MetricsLog(path, from_step=1)
    assert path.read_text() == '{"step": 5}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


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
