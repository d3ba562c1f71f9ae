"""Mistakes of the user: a message that says what to do, exit code 2, nothing written or lost."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnets.cli.main import entry, main
from resnets.tasks.classify import predict as prediction


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def refused(arguments, capsys, *words, code=2):
    """Run a command that must fail, and check its message and that it wrote nothing."""

    before = snapshot(Path())
    assert main(arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    for word in words:
        assert word in output.err, output.err
    assert snapshot(Path()) == before
    return output.err


def photo(path, side=40, color=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 20, (side, side, 3)) + color
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def trained(tmp_path, capsys):
    assert main(["train", "digits.resnet8", "--steps", "2", "--run", "trained", "--device", "cpu", "--quiet"]) == 0
    capsys.readouterr()
    return "trained"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["'trian'", "Did you mean train?"]),
        (["train"], ["Name one recipe"]),
        (["train", "cifar10.resnt20"], ["no recipe", "cifar10.resnet20"]),
        (["train", "cifar10.resnet21"], ["6n+2", "cifar-resnet20"]),
        (["train", "nowhere.runs:mine"], ["no module 'nowhere.runs'"]),
        (["train", "digits.resnet20", "--steps", "0"], ["--steps is 0", "at least 1"]),
        (["train", "digits.resnet20", "--steps", "many"], ["--steps", "many"]),
        (["train", "digits.resnet20", "--optimizer.base-lr", "fast"], ["fast"]),
        (["train", "digits.resnet20", "--optimizer.base-lr", "-1"], ["base_lr", "above 0"]),
        (["train", "digits.resnet20", "--optimizer.bse-lr", "0.1"], ["--optimizer.bse-lr"]),
        (["train", "digits.resnet20", "--precision", "fp8"], ["fp8"]),
        (["train", "digits.resnet20", "--optimizer.base-l", "0.1"], ["Did you mean --optimizer.base-lr"]),
        (["train", "digits.resnet20", "schedule:cosin"], ["schedule:cosine, schedule:plateau, schedule:step-decay"]),
        (["train", "digits.resnet20", "--global-batch", "0"], ["error: global_batch is 0; it is at least 1 "]),
        (["train", "digits.resnet20", "--run", ""], ["--run is empty"]),
        (["train", "digits.resnet20", "--from", "x.json"], ["exclude each other"]),
        (["train", "digits.resnet20", "--seed", "-1"], ["seed is -1"]),
        (["train", "digits.resnet20", "--global-batch", "5000"], ["5000", "1437"]),
        (["train", "digits.resnet20", "--checkpoint-every", "0"], ["--checkpoint-every is 0"]),
        (["train", "digits.resnet20", "--threads", "100000000"], ["--threads is 100,000,000; it is at most 1,024"]),
        (["evaluate", "model", "--data", "digits", "--workers", "2000"], ["--workers is 2,000; it is at most 1,024"]),
        (["train", "digits.resnet20", "--device", "tpu"], ["'tpu'", "cpu, cuda"]),
        (["train", "digits.resnet20", "--data", "digitz"], ["digitz", "digits"]),
        (["train", "folder.scratch"], ["--data FOLDER"]),
        (["train", "folder.scratch", "--data", "missing"], ["missing"]),
        (["train", "--from", "missing.json"], ["missing.json"]),
        (["train", "imagenet.resnet18", "--data", "cifar10"], ["imagenet.resnet18 trains on", "cifar10.resnet20"]),
        (["train", "folder.finetune", "--data", "digits"], ["folder.finetune trains on", "digits.resnet20"]),
        (["train", "cifar10.resnet20", "--data", "."], ["cifar10.resnet20 trains on", "folder.scratch"]),
        (
            ["compare", "folder.scratch", "--b.label-smoothing", "0", "--data", "cifar100"],
            ["folder.scratch trains on", "CIFAR-100", "cifar10.resnet20"],
        ),
        (["describe", "resnet51"], ["resnet51", "Did you mean"]),
        (["describe", "cifar-resnet33"], ["6n+2"]),
        (["evaluate", "missing", "--data", "digits"], ["no model at missing"]),
        (["evaluate", "missing"], ["--data"]),
        (["predict", "missing", "missing.png"], ["no model at missing"]),
        (["demo", "--steps", "0"], ["--steps is 0"]),
    ],
)
def test_wrong_arguments_are_explained(arguments, words, capsys):
    refused(arguments, capsys, *words)


def test_an_empty_folder_says_how_images_are_laid_out(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    refused(["train", "folder.scratch", "--data", "empty"], capsys, "empty is empty", "CLASS")


def test_a_class_without_a_readable_image_is_named(tmp_path, capsys):
    photo(tmp_path / "photos" / "cat" / "1.png")
    photo(tmp_path / "photos" / "cat" / "2.png")
    (tmp_path / "photos" / "dog").mkdir()
    (tmp_path / "photos" / "dog" / "1.jpg").write_text("no image")
    refused(["train", "folder.scratch", "--data", "photos"], capsys, "dog")


def test_files_that_are_no_images_are_named_and_the_others_predicted(trained, tmp_path, capsys):
    photo(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("this is not an image")
    (tmp_path / "short.png").write_bytes((tmp_path / "good.png").read_bytes()[:100])
    (tmp_path / "huge.png").write_bytes(ten_gigapixels())
    assert main(["predict", trained, "text.jpg", "good.png", "short.png", "huge.png", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [set(entry) for entry in document] == [
        {"path", "error"},
        {"path", "predictions"},
        {"path", "error"},
        {"path", "error"},
    ]
    assert "pixels" in document[3]["error"]
    assert main(["predict", trained, "text.jpg"]) == 2
    assert "text.jpg" in capsys.readouterr().err


def ten_gigapixels():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


def test_a_run_directory_of_another_spec_is_left_alone(trained, capsys):
    refused(
        ["train", "digits.plain8", "--steps", "2", "--run", trained, "--device", "cpu"],
        capsys,
        "another spec",
        "model.shortcut",
    )


def test_a_run_directory_among_the_images_is_refused(tmp_path, capsys):
    for name in ("cat", "dog"):
        for number in range(3):
            photo(tmp_path / "photos" / name / f"{number}.png")
    for run in ("photos", "photos/run"):
        refused(["train", "folder.scratch", "--data", "photos", "--run", run], capsys, "lies in the folder of images")


def test_a_run_directory_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    refused(["train", "digits.resnet8", "--steps", "2", "--run", "file"], capsys, "is a file")
    refused(["train", "digits.resnet8", "--steps", "2", "--run", "file/run"], capsys, "a part of the path is a file")


def test_a_run_directory_is_tried_before_minutes_go_into_a_mean_image(tmp_path, capsys, monkeypatch):
    for name in ("cat", "dog"):
        for split in ("train", "val"):
            photo(tmp_path / "photos" / split / name / "1.png")
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("resnets.tasks.classify.prepare.training_statistics", None)
    sizes = ["--dataset.image-px", "32", "--dataset.resize-px", "32", "--global-batch", "2", "--steps", "1"]
    train = ["train", "imagenet.resnet18", "--data", "photos", *sizes, "--run"]
    refused([*train, "file/run"], capsys, "a part of the path is a file")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused([*train, "new/run"], capsys, "you may not write there")


def test_a_finished_run_may_lie_where_nobody_can_write(trained, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["train", "digits.resnet8", "--steps", "2", "--run", trained, "--device", "cpu"]) == 0
    assert "is finished" in "".join(capsys.readouterr())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_run_directory_is_refused(tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(["train", "digits.resnet8", "--steps", "2", "--run", "locked/run"], capsys, "may not write")


def test_a_read_only_place_is_refused(capsys):
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc here")
    refused(["train", "digits.resnet8", "--steps", "2", "--run", "/proc/run"], capsys, "cannot be written")


def test_a_checkpoint_that_would_execute_code_is_refused(trained, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, ("executed",))

    (tmp_path / "trained" / "model" / "config.json").unlink()
    torch.save({"schema_version": 2, "model": Evil()}, tmp_path / "trained" / "checkpoints" / "step-00000002.pt")
    again = ["train", "digits.resnet8", "--steps", "2", "--run", trained, "--device", "cpu"]
    assert main(again) == 2
    assert "could execute code" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
    assert main(["predict", "trained", "x.png"]) == 2


def test_a_checkpoint_with_a_value_that_no_run_has_is_refused_by_its_field(trained, tmp_path, capsys):
    shutil.rmtree(tmp_path / "trained" / "model")
    path = tmp_path / "trained" / "checkpoints" / "step-00000002.pt"
    values = torch.load(path, weights_only=True)
    torch.save(values | {"spec": json.dumps(json.loads(values["spec"]) | {"steps": 0})}, path)
    refused(["predict", trained, "x.png"], capsys, "step-00000002.pt: steps is 0; it is at least 1")


def test_a_run_that_is_not_finished_can_be_described(trained, tmp_path, capsys):
    assert main(["describe", trained, "--json"]) == 0
    finished = capsys.readouterr().out
    shutil.rmtree(tmp_path / "trained" / "model")
    assert main(["describe", trained, "--json"]) == 0
    assert capsys.readouterr().out == finished


def test_a_model_of_other_classes_is_refused(trained, tmp_path, capsys):
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            photo(tmp_path / "photos" / split / name / "1.png")
            photo(tmp_path / "photos" / split / name / "2.png")
    refused(["evaluate", trained, "--data", "photos"], capsys, "cat, dog")


def test_damaged_weights_are_refused(trained, tmp_path, capsys):
    weights = tmp_path / "trained" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    refused(["evaluate", trained, "--data", "digits"], capsys, "damaged")


def test_debug_shows_the_traceback(capsys):
    from resnets.specs.errors import SpecError

    with pytest.raises(SpecError):
        main(["train", "nothing.here", "--debug"])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"
        ),
        RuntimeError(
            "MPS backend out of memory (MPS allocated: 18.13 GiB, max allowed: 18.13 GiB). Tried to allocate 1"
        ),
    ],
)
def test_a_gpu_without_memory_is_one_line(trained, tmp_path, capsys, monkeypatch, error):
    photo(tmp_path / "1.png")

    def full(stored, images, **named):
        raise error

    monkeypatch.setattr(prediction, "predict", full)
    refused(["predict", trained, "1.png"], capsys, "out of memory", "--device cpu")
    with pytest.raises(RuntimeError, match="out of memory"):
        main(["predict", trained, "1.png", "--debug"])


def test_a_closed_pipe_is_no_error():
    command = [sys.executable, "-m", "resnets", "train", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_results_go_to_stdout_and_progress_to_stderr(tmp_path, capsys):
    assert main(["train", "digits.resnet8", "--steps", "3", "--run", "run", "--json", "--device", "cpu"]) == 0
    output = capsys.readouterr()
    document = json.load(io.StringIO(output.out))
    assert document["images"] == 360
    assert document["steps"] == 3
    assert "cifar-resnet8 on digits" in output.err
    assert main(["train", "digits.resnet8", "--steps", "3", "--run", "run", "--device", "cpu"]) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out


def test_a_union_given_as_a_value_is_explained(capsys):
    refused(
        ["train", "folder.scratch", "--policy", "rand-augment", "--print-config"],
        capsys,
        "write policy:",
        "without dashes",
    )


def test_a_file_of_weights_in_the_place_of_a_model_is_explained(tmp_path, capsys):
    torch.save({}, tmp_path / "weights.pth")
    refused(["predict", "weights.pth", "x.png"], capsys, "is a file", "resnets convert weights.pth")


def test_fine_tuning_without_weights_asks_for_them(tmp_path, capsys):
    for name in ("a", "b"):
        for index in range(3):
            photo(tmp_path / "photos" / name / f"{index}.png")
    refused(["train", "folder.finetune", "--data", "photos"], capsys, "--init-from", "torchvision:resnet50")


def test_names_cannot_steer_the_terminal(capsys):
    error = refused(["predict", "no\x1b[31msuch", "x.png"], capsys, "\\x1b[31m")
    assert "\x1b" not in error


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_command_as_an_error_does(monkeypatch, tmp_path, name):
    number = getattr(signal, name)

    def command(arguments):
        (tmp_path / "half").mkdir()
        try:
            signal.raise_signal(number)
        finally:
            (tmp_path / "half").rmdir()

    monkeypatch.setattr("resnets.cli.main.main", command)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = {one: signal.signal(one, signal.SIG_DFL) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(SystemExit) as caught:
            entry()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert caught.value.code == 128 + number
    assert not (tmp_path / "half").exists()


def test_a_folder_that_is_no_model_cannot_be_described(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    refused(["describe", "empty"], capsys, "not a model folder")


def test_what_a_killed_process_was_writing_is_removed(trained, tmp_path, capsys):
    leftover = tmp_path / trained / "checkpoints" / ".step-00000009.pt.tmp-1"
    leftover.write_bytes(b"half")
    (tmp_path / trained / "model" / "config.json").unlink()
    assert main(["train", "digits.resnet8", "--steps", "2", "--run", "trained", "--device", "cpu", "--quiet"]) == 0
    capsys.readouterr()
    assert not leftover.exists()
