"""`resnets compare` as it is typed: two recipes, fields of one side, a block of one's own, what a person sees."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnets.cli.main import main
from resnets.recipes.find import recipe
from resnets.specs import io
from resnets.specs.errors import InterruptedRunError
from resnets.specs.run import TrainSpec, shorten
from resnets.studies import compare as study

DOCS = Path(__file__).parents[2] / "docs" / "compare.md"
SHORT = ["--steps", "3", "--seeds", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def resolved(arguments, capsys):
    assert main(["compare", *arguments, "--print-config"]) == 0
    document = json.loads(capsys.readouterr().out)
    return *(io.from_json(TrainSpec, document[side]) for side in ("a", "b")), document["differing"]


def test_two_recipes_are_taken_as_they_are(capsys):
    a, b, differing = resolved(["cifar10.resnet56", "cifar10.plain56"], capsys)
    assert (a, b) == (recipe("cifar10.resnet56"), recipe("cifar10.plain56"))
    assert differing == ['model.shortcut: "A" -> "none"']


def test_fields_change_both_sides_or_one(capsys):
    line = ["digits.resnet20", "--b.optimizer.base-lr", "0.05", "--label-smoothing", "0.1", "--a.ema-decay=0.9"]
    a, b, differing = resolved(line, capsys)
    assert (a.optimizer.base_lr, a.label_smoothing, a.ema_decay) == (0.1, 0.1, 0.9)
    assert (b.optimizer.base_lr, b.label_smoothing, b.ema_decay) == (0.05, 0.1, 0.0)
    assert differing == ["ema_decay: 0.9 -> 0.0", "optimizer.base_lr: 0.1 -> 0.05"]


def test_choices_of_one_side_and_fields_with_several_values(capsys):
    a, b, _ = resolved(["digits.resnet8", "b.schedule:cosine", "--b.schedule.final-share", "0.1"], capsys)
    assert a == recipe("digits.resnet8")
    assert io.to_json(b.schedule) == {"kind": "Cosine", "final_share": 0.1}
    a, b, _ = resolved(["digits.resnet8", "--b.schedule.milestones-steps", "100", "200", "--seeds", "3"], capsys)
    assert b.schedule.milestones_steps == (100, 200)


def test_both_are_shortened_to_the_same_shape(capsys):
    a, b, _ = resolved(["--steps", "50", "digits.resnet8", "--json", "digits.plain8"], capsys)
    assert (a, b) == (shorten(recipe("digits.resnet8"), 50), shorten(recipe("digits.plain8"), 50))
    a, b, _ = resolved(["digits.resnet8", "b.schedule:cosine", "schedule:step-decay", "--steps", "50"], capsys)
    assert (a.schedule.milestones_steps, io.to_json(b.schedule)["kind"]) == ((25, 38), "Cosine")


def test_the_weights_to_start_from_may_be_what_differs(capsys):
    line = ["folder.finetune", "--a.init-from", "torchvision:resnet18", "--b.init-from=timm:resnet50.a1_in1k"]
    a, b, differing = resolved(line, capsys)
    assert (a.init.source, b.init.source) == ("torchvision:resnet18", "timm:resnet50.a1_in1k")
    assert differing == ['init.source: "torchvision:resnet18" -> "timm:resnet50.a1_in1k"']
    a, b, _ = resolved(["digits.resnet8", "--init-from", "runs/x", "--b.label-smoothing", "0.1"], capsys)
    assert (a.init.source, b.init.source, b.label_smoothing) == ("runs/x", "runs/x", 0.1)
    assert a.init.model == "check"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Name the recipes first"]),
        (["--b.label-smoothing", "0.1", "digits.resnet8"], ["Name the recipes first"]),
        (["digits.resnet8"], ["There is one recipe, digits.resnet8", "no field of one side", "--b.optimizer.base-lr"]),
        (["digits.resnet8", "digits.resnet8"], ["A and B are the same recipe, digits.resnet8", "name another recipe"]),
        (["digits.resnet8", "--label-smoothing", "0.1"], ["no field of one side"]),
        (["digits.resnt20", "digits.plain20"], ["no recipe", "digits.resnet20"]),
        (["digits.resnet20", "digits.plan20"], ["no recipe", "digits.plain20"]),
        (["digits.resnet20", "nowhere:mine"], ["no module 'nowhere'"]),
        (["digits.resnet8", "digits.plain8", "digits.resnet20"], ["one recipe too many", "digits.resnet20"]),
        (["digits.resnet8", "digits.plain8", "--seeds", "0"], ["--seeds is 0"]),
        (["digits.resnet8", "digits.plain8", "--seeds", "few"], ["--seeds", "few"]),
        (["digits.resnet8", "digits.plain8", "--steps", "0"], ["--steps is 0"]),
        (["digits.resnet8", "digits.plain8", "--run", ""], ["--run is empty"]),
        (["digits.resnet8", "digits.plain8", "--device", "tpu"], ["'tpu'"]),
        (["digits.resnet8", "digits.plain8", "--global-batch", "5000"], ["5000", "1437"]),
        (["digits.resnet8", "--b.optimizer.bse-lr", "0.1"], ["B: There is no field", "--optimizer.base-lr"]),
        (["digits.resnet8", "--b.optimizer.base-lr", "-1"], ["B: ", "base_lr"]),
        (["digits.resnet8", "--b.init-from", "--json"], ["--init-from names no weights"]),
        (["digits.resnet8", "--b.seed", "3"], ["--b.seed cannot differ"]),
        (["digits.resnet8", "cifar10.resnet8"], ["A is trained on Digits and B on Cifar10", "--data"]),
    ],
)
def test_wrong_arguments_are_explained_and_nothing_is_written(arguments, words, capsys, tmp_path):
    assert main(["compare", *arguments]) == 2
    output = capsys.readouterr()
    assert (output.out, list(tmp_path.iterdir())) == ("", [])
    assert "Traceback" not in output.err
    for word in words:
        assert word in output.err


def test_the_screen_fits_80_columns_and_the_document_has_everything(capsys, tmp_path):
    line = ["compare", "digits.resnet8", "--b.optimizer.base-lr", "0.05", *SHORT]
    assert main(line) == 0
    output = capsys.readouterr()
    assert "run 4 of 4: A digits.resnet8, seed 1" in output.err
    assert "optimizer.base_lr: 0.1 -> 0.05" in output.out
    assert re.search(r"B errs .* points|A and B err equally", output.out)
    assert "A and B shortened to 3 of the recipe's 500 steps" in output.out
    (folder,) = (tmp_path / "runs").iterdir()
    for row in output.out.splitlines():
        assert len(row) <= 80 or str(folder.name) in row
    assert main([*line, "--json", "--quiet"]) == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert output.err == ""
    assert [entry["seed"] for entry in document["seeds"]] == [0, 1]
    assert (tmp_path / document["picture"]).is_file()
    assert document["sentence"]
    assert main([*line, "--b.label-smoothing", "0.1", "--run", str(folder)]) == 2
    assert "whose B is another (label_smoothing: 0.0 -> 0.1)" in capsys.readouterr().err


def test_help_teaches_with_examples_that_resolve(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    lines = re.findall(r"^  resnets compare (.+?)(?:  +.*)?$", text, re.MULTILINE)
    assert len(lines) >= 8
    own = [line for line in lines if "myblock:mine" in line]
    assert len(own) == 1  # that one is trained below
    for line in set(lines) - set(own):
        arguments = line.split()
        extra = [] if "--print-config" in arguments else ["--print-config"]
        assert main(["compare", *arguments, *extra]) == 0, line
        assert json.loads(capsys.readouterr().out)["differing"], line


def own_file():
    """Return the reader's file in the documentation."""
    (text,) = re.findall(r"```python\n(# myblock\.py.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return text


def test_a_block_in_the_readers_own_file_is_compared_from_outside_the_package(tmp_path):
    (tmp_path / "myblock.py").write_text(own_file())
    # The installed command finds modules in the current folder; `python -m` is started with that folder on its path.
    command = [
        sys.executable,
        "-m",
        "resnets",
        "compare",
        "digits.resnet20",
        "myblock:mine",
        "--json",
        *SHORT,
        "--seeds",
        "1",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (line,) = document["differing"]
    assert line == 'model: "ResNetSpec(...)" -> "myblock:HalfShortcutNet()"'
    assert document["a"]["parameters"] == document["b"]["parameters"]
    assert document["a"]["multiply_adds"] == document["b"]["multiply_adds"]
    models = [tmp_path / document["folder"] / f"{side}-seed0" / "model" / "config.json" for side in ("a", "b")]
    losses = [json.loads(path.read_text())["metrics"]["loss"] for path in models]
    assert losses[0] != losses[1]
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == document
    assert again.stderr.count("already trained") == 2


def test_the_readers_file_is_short():
    assert len([line for line in own_file().splitlines() if line.strip()]) <= 25


WAITING = """
import time
from pathlib import Path
from resnets.cli.main import entry
from resnets.engine.progress import Progress

update = Progress.update

def waiting(self, step, **values):
    update(self, step, **values)
    if step == 30 and Path("study/b-seed0").exists():
        Path("reached").touch()
        while not Path("sent").exists():
            time.sleep(0.01)

Progress.update = waiting
entry()
"""
"""The command, whose second run waits in its middle until the signal is sent: it may neither be early nor late."""


def test_sigterm_saves_exits_with_75_and_the_same_command_goes_on(tmp_path):
    line = [
        "digits.resnet8",
        "digits.plain8",
        "--steps",
        "60",
        "--seeds",
        "1",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--json",
    ]
    command = [sys.executable, "-c", WAITING, "compare", *line, "--run", "study"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and not (tmp_path / "reached").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    (tmp_path / "sent").touch()
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, output) == (75, ""), errors
    assert re.search(
        r"Stopped at step \d+ of 60, saved\. 1 of 2 runs are finished\. To go on: resnets compare ", errors
    )
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Going on from step" in done.stderr
    document = json.loads(done.stdout)
    assert document["seeds"][0]["b"]["seconds"] > 0
    assert document["test_error"]["interval"] is None


def test_a_signal_between_two_runs_is_reported_alike(capsys, monkeypatch):
    train = study.api.train

    def stop_before_the_second(spec, **options):
        if spec.seed == 0 and options["run"].name.startswith("b"):
            os.kill(os.getpid(), signal.SIGTERM)
        return train(spec, **options)

    monkeypatch.setattr(study.api, "train", stop_before_the_second)
    assert main(["compare", "digits.resnet8", "digits.plain8", *SHORT]) == 75
    errors = capsys.readouterr().err
    assert (
        "Stopped between two runs. 1 of 4 runs are finished. To go on: resnets compare digits.resnet8 digits.plain8 --steps 3"
        in errors
    )
    a, b = (shorten(recipe(name), 3) for name in ("digits.resnet8", "digits.plain8"))
    with pytest.raises(InterruptedRunError, match=r"1 of 2 runs are finished\. To go on: call resnets\.compare again"):
        study.compare(a, b, seeds=1, run="other", quiet=True)
