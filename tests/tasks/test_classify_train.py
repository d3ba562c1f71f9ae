"""Training from end to end: exact resume, interruptions, refusals."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import resnets
from resnets.data.loader import FileBatches
from resnets.engine import loop
from resnets.engine.checkpoint import checkpoints, latest_checkpoint, load_checkpoint
from resnets.engine.distributed import Distributed
from resnets.engine.log import MetricsLog
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import (
    DataError,
    DivergedError,
    InterruptedRunError,
    ModelError,
    RunError,
    SpecError,
    TrainingError,
)
from resnets.specs.optim import ErrorWarmup, Plateau
from resnets.tasks.classify.prepare import Parts

QUICK = resnets.Machine(device="cpu", checkpoint_every=8, workers=0)


def weights(run):
    return load_file(run / "model" / "model.safetensors")


def assert_bitwise_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def lines(run):
    """The log without the figures that are about the machine."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for entry in entries:
        entry.pop("images_per_second", None)
        entry.pop("waiting_share", None)
    return entries


def test_a_run_leaves_everything_behind(digits_spec, tmp_path):
    run = tmp_path / "run"
    trained = resnets.train(digits_spec, run=run, machine=QUICK, quiet=True)
    assert trained.metrics["images"] == 360
    assert trained.metrics["top1_error"] < 80
    assert [path.name for path in checkpoints(run / "checkpoints")] == [
        "step-00000008.pt",
        "step-00000016.pt",
        "step-00000024.pt",
    ]
    assert json.loads((run / "config.json").read_text())["steps"] == 24
    assert json.loads((run / "env.json").read_text())["versions"]["torch"] == torch.__version__
    tests = [line for line in lines(run) if line["split"] == "test"]
    assert [(line["step"], line.get("final", False)) for line in tests] == [
        (10, False),
        (20, False),
        (24, False),
        (24, True),
    ]
    assert (run / "tensorboard").is_dir()


@pytest.mark.parametrize("step", [1, 13, 20])
def test_an_interrupted_run_ends_with_the_same_weights_and_log(digits_spec, tmp_path, signal_at, step):
    spec = dataclasses.replace(digits_spec, warmup=ErrorWarmup(window_steps=5), accumulation=2)
    resnets.train(spec, run=tmp_path / "whole", machine=QUICK, quiet=True)
    disarm = signal_at(step)
    with pytest.raises(InterruptedRunError, match=f"step {step} of 24, saved"):
        resnets.train(spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
    disarm()
    resnets.train(spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
    assert_bitwise_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


def test_files_resume_exactly_in_the_middle_of_an_epoch_whatever_the_workers(photos, photos_spec, tmp_path, signal_at):
    resnets.train(photos_spec, data=photos, run=tmp_path / "whole", machine=QUICK, quiet=True)
    disarm = signal_at(7)
    with pytest.raises(InterruptedRunError):
        resnets.train(photos_spec, data=photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    disarm()
    two = dataclasses.replace(QUICK, workers=2)
    resnets.train(photos_spec, data=photos, run=tmp_path / "parts", machine=two, quiet=True)
    assert_bitwise_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_run_whose_data_is_gone_saves_and_goes_on_when_it_is_back(photos, photos_spec, tmp_path, monkeypatch, where):
    resnets.train(photos_spec, data=photos, run=tmp_path / "whole", machine=QUICK, quiet=True)
    batch, evaluate = FileBatches._batch, Parts.evaluate

    def lost(self, number, decoded):
        if number == 7:
            raise DataError("the server is gone")
        return batch(self, number, decoded)

    def not_tested(self, *given, **named):
        raise DataError("the server is gone")

    if where == "training":
        monkeypatch.setattr(FileBatches, "_batch", lost)
    else:
        monkeypatch.setattr(Parts, "evaluate", not_tested)
    with pytest.raises(DataError, match="the server is gone"):
        resnets.train(photos_spec, data=photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    saved = latest_checkpoint(tmp_path / "parts/checkpoints")
    assert saved is not None
    assert saved.name == ("step-00000007.pt" if where == "training" else "step-00000006.pt")
    monkeypatch.setattr(FileBatches, "_batch", batch)
    monkeypatch.setattr(Parts, "evaluate", evaluate)
    resnets.train(photos_spec, data=photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    assert_bitwise_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


def test_dropout_resumes_exactly(digits_spec, photos, photos_spec, tmp_path, signal_at):
    vgg = dataclasses.replace(model_spec("vgg16"), convs=(1, 1), widths=(4, 8), hidden=16)
    spec = dataclasses.replace(
        photos_spec, model=vgg, optimizer=dataclasses.replace(photos_spec.optimizer, base_lr=1e-4)
    )
    resnets.train(spec, data=photos, run=tmp_path / "whole", machine=QUICK, quiet=True)
    disarm = signal_at(5)
    with pytest.raises(InterruptedRunError):
        resnets.train(spec, data=photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    disarm()
    resnets.train(spec, data=photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    assert_bitwise_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_the_plateau_rule_resumes_exactly(photos, photos_spec, tmp_path, signal_at):
    spec = dataclasses.replace(photos_spec, schedule=Plateau(patience=1, min_improvement=99.0), evaluate_every_steps=3)
    resnets.train(spec, data=photos, run=tmp_path / "whole", machine=QUICK, quiet=True)
    disarm = signal_at(8)
    with pytest.raises(InterruptedRunError):
        resnets.train(spec, data=photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    disarm()
    resnets.train(spec, data=photos, run=tmp_path / "parts", machine=QUICK, quiet=True)
    assert_bitwise_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    rates = {line["step"]: line["lr"] for line in lines(tmp_path / "parts") if "lr" in line}
    # Two cuts by 10, under a warm-up that has come four times as far.
    assert rates[12] == pytest.approx(4 * rates[3] / 100)


def test_the_plateau_rule_does_not_watch_the_test_set(digits_spec, tmp_path):
    with pytest.raises(SpecError, match="no validation split"):
        resnets.train(dataclasses.replace(digits_spec, schedule=Plateau()), run=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_another_memory_layout_goes_on_with_the_same_momentum(digits_spec, tmp_path, signal_at):
    losses = {}
    for name, first, second in (("same", "no", "no"), ("changed", "yes", "no")):
        disarm = signal_at(12)
        machine = dataclasses.replace(QUICK, channels_last=first)
        with pytest.raises(InterruptedRunError):
            resnets.train(digits_spec, run=tmp_path / name, machine=machine, quiet=True)
        disarm()
        machine = dataclasses.replace(QUICK, channels_last=second)
        resnets.train(digits_spec, run=tmp_path / name, machine=machine, quiet=True)
        losses[name] = [line["loss"] for line in lines(tmp_path / name) if line["split"] == "train"][:16]
    # The layouts round differently; a momentum that points elsewhere would change the first digit.
    assert losses["changed"] == pytest.approx(losses["same"], rel=2e-3)


def test_a_pass_without_a_readable_image_does_not_end_the_run(photos, photos_spec, tmp_path):
    for name in ("1.png", "4.png"):
        (photos / "train" / "green" / name).write_bytes(b"broken")
    spec = dataclasses.replace(photos_spec, model=model_spec("cifar-resnet8"), accumulation=9)
    trained = resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    assert trained.metrics["left_out_in_training"] == 2
    named = [line["left_out"]["path"] for line in lines(tmp_path / "run") if "left_out" in line]
    assert sorted(named) == [str(photos / "train" / "green" / name) for name in ("1.png", "4.png")]


def test_passes_too_small_for_batch_norm_are_refused(photos, photos_spec, tmp_path):
    spec = dataclasses.replace(photos_spec, model=model_spec("resnet18"), accumulation=9)
    with pytest.raises(SpecError, match="passes of 1 image of"):
        resnets.train(spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_a_slow_run_saves_by_the_clock(digits_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MINUTES_BETWEEN_CHECKPOINTS", 0)
    resnets.train(digits_spec, run=tmp_path, machine=dataclasses.replace(QUICK, checkpoint_every=1000), quiet=True)
    assert len(checkpoints(tmp_path / "checkpoints")) == 24


def test_every_start_is_on_record(digits_spec, tmp_path, signal_at):
    disarm = signal_at(5)
    with pytest.raises(InterruptedRunError):
        resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True)
    disarm()
    resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True)
    starts = json.loads((tmp_path / "env.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 5]
    assert starts[0]["machine"]["checkpoint_every"] == 8


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns(digits_spec, tmp_path, precision):
    spec = dataclasses.replace(digits_spec, precision=precision)
    assert resnets.train(spec, run=tmp_path / "run", machine=QUICK, quiet=True).metrics["top1_error"] < 80


def test_sigterm_asks_for_a_requeue_and_ctrl_c_does_not(digits_spec, tmp_path, signal_at):
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        disarm = signal_at(3, number)
        with pytest.raises(InterruptedRunError) as stopped:
            resnets.train(digits_spec, run=tmp_path / str(code), machine=QUICK, quiet=True)
        assert stopped.value.exit_code == code
        disarm()


def test_a_signal_in_the_last_evaluation_leaves_it_to_the_next_start(digits_spec, tmp_path, signal_at):
    whole = resnets.train(digits_spec, run=tmp_path / "whole", machine=QUICK, quiet=True)
    disarm = signal_at(24)
    with pytest.raises(InterruptedRunError, match="during the final evaluation"):
        resnets.train(digits_spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
    disarm()
    assert not (tmp_path / "parts" / "model").exists()
    parts = resnets.train(digits_spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
    assert parts.metrics == whole.metrics
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_a_finished_run_is_recognised(digits_spec, tmp_path):
    first = resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True)
    before = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    again = resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True)
    assert again.was_finished
    assert again.metrics == first.metrics
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_another_spec_is_refused_and_its_fields_are_named(digits_spec, tmp_path):
    resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())
    other = dataclasses.replace(digits_spec, seed=1, model=model_spec("cifar-plain8"))
    with pytest.raises(RunError, match=r'model.shortcut: "A" -> "none".*seed: 0 -> 1'):
        resnets.train(other, run=tmp_path, machine=QUICK, quiet=True)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(digits_spec, tmp_path, monkeypatch):
    def explode(model, passes, state, spec, ranks, class_weights):
        totals = train_step(model, passes, state, spec, ranks)
        if state.step == 11:
            with torch.no_grad():
                state.model.fc.weight.fill_(float("nan"))
        return totals

    train_step = loop.train_step
    monkeypatch.setattr(loop, "train_step", explode)
    with pytest.raises(TrainingError, match=r"not a finite number.*checkpoint of step 8 is intact"):
        resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000008.pt"]
    assert all(
        value.isfinite().all() for value in load_checkpoint(checkpoints(tmp_path / "checkpoints")[0])["model"].values()
    )
    assert not (tmp_path / "model").exists()
    assert [line["diverged"]["checkpoint_step"] for line in lines(tmp_path) if "diverged" in line] == [8]

    # The same start would go the same way: it is not tried, and nothing is written.
    taken = []
    monkeypatch.setattr(loop, "train_step", lambda *args: taken.append(args) or train_step(*args))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        DivergedError, match=r"diverged at step 13.*a new --run.*--threads.*images\), .*goes on from step 8;"
    ):
        resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True)
    assert not taken
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    # With other rounding it goes on from the checkpoint, and what gets past the step has not diverged.
    threads = torch.get_num_threads()
    try:
        other = dataclasses.replace(QUICK, threads=threads % 2 + 1)
        trained = resnets.train(digits_spec, run=tmp_path, machine=other, quiet=True)
    finally:
        torch.set_num_threads(threads)
    assert len(taken) == 16
    assert not trained.was_finished
    assert not any("diverged" in line for line in lines(tmp_path))
    assert resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True).was_finished


def diverging(spec):
    return dataclasses.replace(spec, optimizer=dataclasses.replace(spec.optimizer, base_lr=1e30))


def test_the_last_divergence_counts(digits_spec, tmp_path):
    threads = torch.get_num_threads()
    try:
        for number, repeats in ((1, False), (1, True), (2, False), (2, True), (1, False)):
            machine = dataclasses.replace(QUICK, threads=number)
            with pytest.raises(DivergedError) as caught:
                resnets.train(diverging(digits_spec), run=tmp_path, machine=machine, quiet=True)
            assert ("would repeat it" in str(caught.value)) == repeats
    finally:
        torch.set_num_threads(threads)


def test_a_divergence_that_was_half_written_is_none(digits_spec, tmp_path):
    spec = diverging(digits_spec)
    with pytest.raises(DivergedError, match=r"not a finite number at step (\d+) ") as first:
        resnets.train(spec, run=tmp_path, machine=QUICK, quiet=True)
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    assert b'"diverged"' in whole.splitlines()[-1]
    (tmp_path / "metrics.jsonl").write_bytes(whole[: whole.rindex(b"diverged") + 20])
    with pytest.raises(DivergedError) as again:
        resnets.train(spec, run=tmp_path, machine=QUICK, quiet=True)
    assert str(again.value) == str(first.value)
    assert (tmp_path / "metrics.jsonl").read_bytes().splitlines()[-1] == whole.splitlines()[-1]
    with pytest.raises(DivergedError, match=r"nothing was trained.*no checkpoint.*the folder, the same command begins"):
        resnets.train(spec, run=tmp_path, machine=QUICK, quiet=True)


def test_a_divergence_is_said_even_where_it_cannot_be_written(digits_spec, tmp_path, monkeypatch):
    write = MetricsLog.write

    def full(self, step, split, **values):
        if "diverged" in values:
            raise TrainingError("The disk is full.")
        write(self, step, split, **values)

    monkeypatch.setattr(MetricsLog, "write", full)
    for _ in range(2):
        with pytest.raises(DivergedError, match=r"^The loss or a weight is not a finite number"):
            resnets.train(diverging(digits_spec), run=tmp_path, machine=QUICK, quiet=True)


def test_a_checkpoint_of_another_net_is_refused(digits_spec, tmp_path):
    machine = dataclasses.replace(QUICK, checkpoint_every=24)
    other = dataclasses.replace(digits_spec, model=model_spec("cifar-resnet14"))
    resnets.train(digits_spec, run=tmp_path / "ours", machine=machine, quiet=True)
    resnets.train(other, run=tmp_path / "theirs", machine=machine, quiet=True)
    foreign = latest_checkpoint(tmp_path / "theirs" / "checkpoints")
    (tmp_path / "ours" / "model" / "config.json").unlink()
    latest_checkpoint(tmp_path / "ours" / "checkpoints").write_bytes(foreign.read_bytes())
    with pytest.raises(ModelError, match=r"another spec: model.blocks"):
        resnets.train(digits_spec, run=tmp_path / "ours", machine=machine, quiet=True)


def test_images_that_changed_are_noticed_on_resume(photos, photos_spec, tmp_path, signal_at):
    disarm = signal_at(5)
    with pytest.raises(InterruptedRunError):
        resnets.train(photos_spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    disarm()
    (photos / "train" / "red" / "0.png").unlink()
    with pytest.raises(ModelError, match="other images"):
        resnets.train(photos_spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_processes_that_do_not_see_the_same_images_do_not_train_together(digits_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(Distributed, "gather", lambda ranks, items: [*items, "those of another process"])
    with pytest.raises(DataError, match="do not see the same images in digits"):
        resnets.train(digits_spec, run=tmp_path / "run", machine=QUICK, quiet=True)
    assert not (tmp_path / "run").exists()


def test_images_that_changed_are_noticed_after_the_end(photos, photos_spec, tmp_path):
    resnets.train(photos_spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    assert resnets.train(photos_spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True).was_finished
    (photos / "train" / "red" / "0.png").unlink()
    with pytest.raises(ModelError, match=r"is finished, and was trained on other images.*another --run"):
        resnets.train(photos_spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)


def test_broken_images_are_left_out_of_training_and_of_every_score(photos, photos_spec, tmp_path, capsys):
    for path in (photos / "train" / "red" / "0.png", photos / "val" / "blue" / "0.png"):
        path.write_bytes(path.read_bytes()[:200])
    trained = resnets.train(photos_spec, data=photos, run=tmp_path / "run", machine=QUICK)
    assert trained.metrics["images"] == 14
    assert [entry["path"] for entry in trained.metrics["skipped"]] == [str(photos / "val" / "blue" / "0.png")]
    assert trained.metrics["left_out_in_training"] == 1
    log = capsys.readouterr().err
    assert log.count(str(photos / "train" / "red" / "0.png")) == 1
    assert log.count(str(photos / "val" / "blue" / "0.png")) == 1


def test_recalibrated_statistics_are_those_of_the_training_images(digits_spec, tmp_path):
    policy = dataclasses.replace(digits_spec.batch_norm, recalibration_batches=10)
    spec = dataclasses.replace(digits_spec, batch_norm=policy)
    plain = resnets.train(digits_spec, run=tmp_path / "plain", machine=QUICK, quiet=True)
    trained = resnets.train(spec, run=tmp_path / "run", machine=QUICK, quiet=True)
    assert trained.metrics["batch_norm_recalibrated"]
    assert trained.metrics["batch_norm_batches"] == 10
    assert not plain.metrics["batch_norm_recalibrated"]
    assert "batch_norm_batches" not in plain.metrics
    own, moving = weights(tmp_path / "run"), weights(tmp_path / "plain")
    assert torch.equal(own["conv1.weight"], moving["conv1.weight"])
    assert not torch.equal(own["bn1.running_mean"], moving["bn1.running_mean"])


def test_a_batch_larger_than_the_dataset_is_refused_before_anything_is_written(digits_spec, tmp_path):
    with pytest.raises(DataError, match=r"2000.*1,?437"):
        resnets.train(dataclasses.replace(digits_spec, global_batch=2000), run=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_images_too_small_for_the_net_are_refused(digits_spec, tmp_path):
    with pytest.raises(SpecError, match="8 x 8 pixels"):
        resnets.train(dataclasses.replace(digits_spec, model=model_spec("vgg16")), run=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_share_a_run_directory(digits_spec, tmp_path):
    pytest.importorskip("fcntl")
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(RunError, match="Another process"):
            resnets.train(digits_spec, run=tmp_path, machine=QUICK, quiet=True)
        other.communicate("\n")


WAITING = """
import time
from resnets.cli.main import entry
from resnets.engine.progress import Progress

update = Progress.update

def waiting(self, step, **values):
    update(self, step, **values)
    if step == 30:
        time.sleep(3600)

Progress.update = waiting
entry()
"""
"""The command, whose run waits before its end: however late it is killed, it has not ended by then."""


@pytest.mark.slow
def test_kill_9_loses_nothing_but_the_steps_since_the_checkpoint(photos, photos_spec, tmp_path):
    config = tmp_path / "spec.json"
    from resnets.specs.io import to_json

    long = dataclasses.replace(photos_spec, steps=40, full_steps=40, evaluate_every_steps=20)
    config.write_text(json.dumps(to_json(long)))
    run = tmp_path / "run"
    options = ["train", "--from", str(config), "--data", str(photos)]
    options += ["--checkpoint-every", "4", "--workers", "1", "--device", "cpu", "--quiet", "--run"]
    command = [sys.executable, "-m", "resnets", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", WAITING, *options, str(run)], env=environment)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and len(checkpoints(run / "checkpoints")) < 2:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(checkpoints(run / "checkpoints")) >= 2
    assert not (run / "model").exists()
    subprocess.run([*command, str(run)], check=True, env=environment, capture_output=True)
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment, capture_output=True)
    assert_bitwise_equal(weights(run), weights(tmp_path / "whole"))
