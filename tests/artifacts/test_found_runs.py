"""Finished runs are known by what they trained, wherever they lie."""

import dataclasses
import importlib
import json
import os

import pytest

from resnets.artifacts.found_runs import find_runs
from resnets.artifacts.run_directory import RunDirectory, conditions, read_spec
from resnets.artifacts.run_log import Evaluation
from resnets.recipes.find import recipe
from resnets.specs import io
from resnets.specs.errors import RunError
from resnets.specs.finetune import Finetune
from resnets.specs.optim import Plateau
from resnets.specs.run import shorten

SPEC = recipe("cifar10.resnet20")
FINAL = {"step": 64_000, "split": "test", "loss": 0.3, "top1_error": 8.5, "images": 10_000, "final": True}
TESTED = Evaluation(step=64_000, split="test", loss=0.3, top1_error=8.5, images=10_000)


def write_run(folder, spec=SPEC, lines=(FINAL,), environment=None):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(io.to_json(spec)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "env.json").write_text(json.dumps(environment or {}))
    return folder


def test_a_run_is_found_whatever_its_folder_is_called(tmp_path):
    folder = write_run(tmp_path / "deep" / "er" / "any name")
    found = find_runs([tmp_path / "nowhere", tmp_path]).finished(SPEC)
    assert found is not None
    assert found.path == folder
    assert found.log.final == TESTED
    assert not found.has_weights


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(SPEC, seed=1),
        shorten(SPEC, 6_400),
        dataclasses.replace(SPEC, global_batch=64),
        recipe("cifar10.plain20"),
    ],
)
def test_a_run_of_another_spec_never_stands_for_it(tmp_path, other):
    write_run(tmp_path / "run", other)
    assert find_runs([tmp_path]).finished(SPEC) is None


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[" * 100_000,
        '{"steps": ' + "1" * 5_000 + "}",
        '{"kind": "TrainSpec", "label_smoothing": 1' + "0" * 400 + "}",
    ],
    ids=["cut", "deep", "long-number", "large-number"],
)
def test_a_damaged_config_is_an_error_of_its_own_run_alone(tmp_path, text):
    write_run(tmp_path / "good")
    bad = write_run(tmp_path / "bad")
    (bad / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json"):
        read_spec(bad / "config.json")
    assert find_runs([tmp_path]).finished(SPEC) is not None


def test_how_often_a_run_is_tested_on_the_way_matters_only_where_the_tests_steer_it(tmp_path):
    steered = dataclasses.replace(SPEC, schedule=Plateau())
    stopped = dataclasses.replace(SPEC, finetune=Finetune(patience_evaluations=3))
    for number, spec in enumerate((SPEC, steered, stopped)):
        write_run(tmp_path / str(number), dataclasses.replace(spec, evaluate_every_steps=500))
    found = find_runs([tmp_path])
    assert found.finished(SPEC).spec.evaluate_every_steps == 500
    assert found.finished(steered) is None
    assert found.finished(stopped) is None


def test_a_label_of_another_recipe_is_the_same_run(tmp_path):
    write_run(tmp_path / "run", dataclasses.replace(SPEC, recipe="mine:own"))
    assert find_runs([tmp_path]).finished(SPEC) is not None


def test_bf16_stands_for_fp32_only_where_there_is_no_fp32(tmp_path):
    half = dataclasses.replace(SPEC, precision="bf16")
    write_run(tmp_path / "a", half)
    assert find_runs([tmp_path]).finished(SPEC).spec.precision == "bf16"
    write_run(tmp_path / "b")
    assert find_runs([tmp_path]).finished(SPEC).spec.precision == "fp32"
    assert find_runs([tmp_path]).finished(half).spec.precision == "bf16"


def test_unfinished_runs_are_listed_those_of_the_precision_first_and_the_furthest(tmp_path):
    early = {"step": 100, "split": "train", "loss": 2.0, "top1_error": 70.0}
    half = dataclasses.replace(SPEC, precision="bf16")
    write_run(tmp_path / "early", lines=[early])
    further = write_run(tmp_path / "further", lines=[early, early | {"step": 200}])
    # How often it is tested on the way does not make it another run.
    other = write_run(tmp_path / "half", dataclasses.replace(half, evaluate_every_steps=500), lines=[early])
    write_run(tmp_path / "ended", dataclasses.replace(SPEC, seed=1))
    found = find_runs([tmp_path])
    assert found.finished(SPEC) is None
    assert [run.path for run in found.unfinished(SPEC)] == [further, tmp_path / "early", other]
    assert [run.path for run in found.unfinished(half)] == [other, further, tmp_path / "early"]
    assert found.unfinished(half)[0].spec.evaluate_every_steps == 500
    assert found.unfinished(dataclasses.replace(SPEC, seed=1)) == []


def test_damaged_and_foreign_folders_are_passed_over(tmp_path):
    write_run(tmp_path / "good")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "broken" / "env.json").write_text("{}")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    cut = write_run(tmp_path / "cut", dataclasses.replace(SPEC, seed=7))
    with (cut / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"step": 12')
    found = find_runs([tmp_path])
    assert found.finished(SPEC) is not None
    assert found.finished(dataclasses.replace(SPEC, seed=7)) is not None


def test_shortened_runs_are_listed_longest_first_and_the_full_one_is_not_among_them(tmp_path):
    for steps in (640, 6_400):
        write_run(tmp_path / str(steps), shorten(SPEC, steps), lines=[FINAL | {"step": steps}])
    write_run(tmp_path / "full")
    write_run(tmp_path / "seed", shorten(dataclasses.replace(SPEC, seed=1), 3_200))
    other = dataclasses.replace(SPEC, optimizer=dataclasses.replace(SPEC.optimizer, base_lr=0.05))
    write_run(tmp_path / "rate", shorten(other, 3_200))
    write_run(tmp_path / "shape", dataclasses.replace(SPEC, steps=3_200))
    assert [run.spec.steps for run in find_runs([tmp_path]).shortened(SPEC)] == [6_400, 640]


def train_line(step, loss, rate=128.0):
    return {"step": step, "split": "train", "loss": loss, "top1_error": 10 * loss, "images_per_second": rate}


def test_the_mean_over_the_last_steps_weighs_every_step_alike(tmp_path):
    spec = shorten(SPEC, 10)
    losses = [5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5, 0.25]
    # Lines over 4, 3 and 3 steps.
    lines = [
        train_line(4, sum(losses[:4]) / 4),
        train_line(7, sum(losses[4:7]) / 3),
        train_line(10, sum(losses[7:]) / 3),
    ]
    write_run(tmp_path / "run", spec, lines=[*lines, FINAL | {"step": 10}])
    run = find_runs([tmp_path]).finished(spec)
    assert run.training_mean("loss", 6) == pytest.approx(sum(losses[4:]) / 6)
    assert run.training_mean_at("loss", 7, 7) == pytest.approx(sum(losses[:7]) / 7)
    assert run.training_mean("top1_error", 10) == pytest.approx(10 * sum(losses) / 10)
    with pytest.raises(RunError, match="no loss"):
        run.training_mean_at("loss", 2, 2)


def test_time_is_that_of_the_steps_at_their_rates(tmp_path):
    spec = shorten(SPEC, 10)
    lines = [train_line(4, 1.0, rate=256.0), train_line(10, 1.0, rate=64.0)]
    write_run(tmp_path / "run", spec, lines=[*lines, FINAL])
    assert find_runs([tmp_path]).finished(spec).seconds == pytest.approx(4 * 128 / 256 + 6 * 128 / 64)


def test_a_run_that_diverged_is_not_gone_on_with_and_stands_for_its_precision_alone(tmp_path):
    line = {"step": 7, "split": "train", "diverged": {"checkpoint_step": 4}}
    half = dataclasses.replace(SPEC, precision="bf16")
    folder = write_run(tmp_path / "half", half, [line])
    found = find_runs([tmp_path])
    assert (found.unfinished(SPEC), found.finished(SPEC), found.diverged(SPEC)) == ([], None, None)
    assert found.diverged(half).path == folder
    # As it is when a start has got past the step.
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(FINAL) + "\n")
    assert (found.diverged(half), found.finished(half).path) == (None, folder)


@pytest.mark.parametrize(("step", "stands"), [(7, True), (8, False)])
def test_a_run_that_diverged_stands_for_none_that_got_past_its_step(tmp_path, step, stands):
    line = {"step": 8, "split": "train", "diverged": {"checkpoint_step": 4}}
    diverged = write_run(tmp_path / "diverged", SPEC, [line])
    further = write_run(tmp_path / "further", SPEC, [train_line(step, 1.0)])
    found = find_runs([tmp_path])
    assert [run.path for run in found.unfinished(SPEC)] == [further]
    assert found.diverged(SPEC) == (found._read(diverged, SPEC) if stands else None)


MINE = '''
import dataclasses
from resnets.specs.model import ResNetSpec

@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mine(ResNetSpec):
    def build(self):
        """Never called."""
'''


def test_a_divergence_of_code_that_may_have_been_mended_since_is_none(tmp_path, monkeypatch):
    (tmp_path / "of_the_user.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("of_the_user").Mine
    model = mine(**{field.name: getattr(SPEC.model, field.name) for field in dataclasses.fields(SPEC.model)})
    line = {"step": 7, "split": "train", "diverged": {"checkpoint_step": 4}}
    ours = RunDirectory(write_run(tmp_path / "ours", SPEC, [line]))
    theirs = RunDirectory(write_run(tmp_path / "theirs", dataclasses.replace(SPEC, model=model), [line]))
    assert theirs.saved_spec().model == model
    assert (ours.divergence().step, theirs.divergence()) == (7, None)


def test_the_gpu_of_an_apple_is_another_device_than_its_processor():
    assert conditions("mps", 1, 1) != conditions("cpu", 1, 1)


def test_the_device_is_the_gpu_or_the_processor_or_unknown(tmp_path):
    start = {"device": "cpu", "threads": 2}
    for seed, environment in enumerate(
        (
            {"gpu": "H", "processor": "P", "starts": [{"device": "cuda:0"}]},
            {"gpu": "H", "processor": "P", "starts": [start]},
            [],
        )
    ):
        write_run(tmp_path / str(seed), dataclasses.replace(SPEC, seed=seed), environment=environment)
    found = find_runs([tmp_path])
    devices = [found.finished(dataclasses.replace(SPEC, seed=seed)).device for seed in range(3)]
    assert devices == ["H", "P, 2 threads", "unknown device"]


def test_images_that_could_not_be_read_change_no_mean(tmp_path):
    spec = shorten(SPEC, 10)
    left_out = {"step": 6, "split": "train", "left_out": {"path": "x.jpg", "reason": "cut off"}}
    lines = [train_line(5, 1.0), left_out, train_line(8, 2.0), train_line(10, 4.0)]
    write_run(tmp_path / "run", spec, lines=[*lines, FINAL])
    run = find_runs([tmp_path]).finished(spec)
    assert run.training_mean("loss", 10) == pytest.approx((5 * 1.0 + 3 * 2.0 + 2 * 4.0) / 10)
    assert [point.step for point in run.log.training] == [5, 8, 10]


@pytest.mark.parametrize(
    ("field", "value"), [("step", "5"), ("step", None), ("loss", "low"), ("loss", float("nan")), ("loss", 10**400)]
)
def test_what_is_no_number_in_a_log_is_passed_over(tmp_path, field, value):
    spec = shorten(SPEC, 10)
    lines = [train_line(5, 1.0), train_line(10, 2.0) | {field: value}, FINAL]
    run = find_runs([write_run(tmp_path / "run", spec, lines=lines).parent]).finished(spec)
    assert run.training_mean("loss", 10) == 1.0
    assert run.log.final == TESTED


@pytest.mark.parametrize("text", ["[" * 100_000, '{"steps": ' + "9" * 5_000 + "}", "[1]", "\ufeff"])
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "env.json"])
def test_no_damaged_file_hides_the_runs_beside_it(tmp_path, name, text):
    write_run(tmp_path / "good")
    (write_run(tmp_path / "damaged", dataclasses.replace(SPEC, seed=1)) / name).write_text(text)
    found = find_runs([tmp_path])
    assert found.finished(SPEC).device == "unknown device"
    damaged = found.finished(dataclasses.replace(SPEC, seed=1))
    assert (damaged is None) == (name != "env.json")
    assert damaged is None or damaged.device == "unknown device"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path):
    write_run(tmp_path / "good")
    locked = write_run(tmp_path / "locked", dataclasses.replace(SPEC, seed=1))
    locked.chmod(0)
    try:
        assert find_runs([tmp_path, locked]).finished(SPEC) is not None
    finally:
        locked.chmod(0o700)
