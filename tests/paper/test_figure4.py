"""Figure 4: what is read off the logs of its runs, and the runs in small that lie in `results`."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from resnets.artifacts.found_runs import FoundRun, find_runs
from resnets.artifacts.run_log import Evaluation, RunLog, TrainingPoint
from resnets.cli.main import main
from resnets.paper import figure4
from resnets.paper.core.execute import fill
from resnets.paper.core.experiment import Unavailable
from resnets.paper.core.workshop import Settings
from resnets.specs.io import from_json, spec_hash, to_json
from resnets.specs.run import TrainSpec

RESULTS = Path(__file__).resolve().parents[2] / "results" / "tiny-imagenet-20"


def run_of(training, validation=(), *, every=10, lr=(0.1,), final=None):
    """Return a run with a training error each step, validation errors each `every` steps, and learning rates."""
    spec = dataclasses.replace(figure4.FULL["plain-18"].spec, evaluate_every_steps=every, steps=len(training))
    points = [
        TrainingPoint(step=step, top1_error=error, lr=lr[min((step - 1) * len(lr) // len(training), len(lr) - 1)])
        for step, error in enumerate(training, 1)
    ]
    evaluations = [
        Evaluation(step=every * number, split="validation", top1_error=error)
        for number, error in enumerate(validation, 1)
    ]
    last = None if final is None else Evaluation(step=len(training), split="validation", top1_error=final)
    log = RunLog(training=tuple(points), evaluations=tuple(evaluations), final=last, ended=final is not None)
    return FoundRun(path=Path("run"), spec=spec, log=log)


def test_the_share_of_a_run_counts_intervals_after_the_first():
    above = run_of([50.0] * 40)
    assert figure4.share_above(above, run_of([40.0] * 40)) == 100
    assert figure4.share_above(run_of([40.0] * 40), above) == 0
    assert figure4.share_above(above, run_of([60.0] * 10 + [40.0] * 20 + [60.0] * 10)) == pytest.approx(200 / 3)
    # Runs that end by a rule may differ in length.
    assert figure4.share_above(above, run_of([40.0] * 30)) == 100
    with pytest.raises(Unavailable):
        figure4.share_above(run_of([1.0] * 10), run_of([1.0] * 10))


def test_the_early_difference_is_that_of_evaluations_before_the_learning_rate_falls():
    first = run_of([1.0] * 40, [60.0, 50.0, 10.0, 10.0], lr=(0.1, 0.01))
    second = run_of([1.0] * 40, [64.0, 58.0, 90.0, 90.0], lr=(0.1, 0.1, 0.1, 0.01))
    # The rate of the first falls after step 20, so two evaluations count where the second is as far.
    assert figure4.early_difference(first, second) == pytest.approx(((60 - 64) + (50 - 58)) / 2)
    with pytest.raises(Unavailable):
        figure4.early_difference(first, run_of([1.0] * 40))


def test_the_error_is_that_of_the_final_weights_on_validation():
    assert figure4.validation_error(run_of([1.0] * 10, final=27.0)) == 27
    with pytest.raises(Unavailable):
        figure4.validation_error(run_of([1.0] * 10))


@pytest.mark.parametrize("net", figure4.SMALL)
def test_the_runs_in_results_are_the_small_ones(net):
    found = find_runs([RESULTS]).finished(figure4.SMALL[net].spec)
    assert found is not None
    assert spec_hash(found.spec) == spec_hash(figure4.SMALL[net].spec)


def test_the_figure_in_small_is_filled_from_results(tmp_path):
    outcome = fill("figure4", figure4.EXPERIMENT, Settings(run_root=tmp_path, roots=(RESULTS,), budget="cpu"))
    document = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    cells = {(row["run"], row["meaning"]): row for row in document["rows"] if row["budget"] == "cpu"}
    assert all(row["ours"] is not None for row in cells.values())
    # As results/tiny-imagenet-20/README.md has them.
    errors = {run: row["ours"] for (run, meaning), row in cells.items() if "centre crop" in meaning}
    assert errors == pytest.approx({"plain-18": 80.6, "plain-34": 85.0, "ResNet-18": 68.1, "ResNet-34": 79.7})
    # One seed after 0.1 % of the iterations supports no verdict.
    assert {row["verdict"] for row in cells.values()} == {"REPORT"}
    assert cells["plain-34 - plain-18", "validation error, points"]["ours"] == pytest.approx(4.4)
    assert {Path(path).name for path in document["pictures"]} == {
        "figure4-plain-small.png",
        "figure4-residual-small.png",
    }


@pytest.mark.parametrize(("images", "filled"), [(50_000, True), (1_000, False), (None, False)])
def test_full_rows_are_about_all_validation_images(tmp_path, images, filled):
    for net, plan in figure4.FULL.items():
        folder = tmp_path / net
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(to_json(plan.spec)))
        every = plan.spec.evaluate_every_steps
        lines = [
            {"step": step, "split": "train", "top1_error": 50.0, "lr": 0.1} for step in range(every, 600_001, every)
        ]
        lines.append({"step": every, "split": "validation", "top1_error": 40.0, "images": images})
        lines.append({"step": 600_000, "split": "validation", "top1_error": 28.0, "images": images, "final": True})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = fill("figure4", figure4.EXPERIMENT, Settings(run_root=tmp_path, roots=()))
    full = [row for row in outcome.rows if row.row.budget == "full"]
    assert [row.ours is not None for row in full] == [filled] * len(full)
    assert filled or all(f"tested on {images} images" in row.reason for row in full)
    assert len(outcome.pictures) == (2 if filled else 0)
    assert filled or all(f"is not drawn: {tmp_path}" in note and f"{images} images" in note for note in outcome.notes)


@pytest.mark.parametrize("net", figure4.SMALL)
def test_an_empty_row_in_small_shows_the_command_that_trains_its_run(tmp_path, capsys, net):
    outcome = fill("figure4", figure4.EXPERIMENT, Settings(run_root=tmp_path, roots=(), budget="cpu", seeds=(1,)))
    reasons = {row.row.run: row.reason for row in outcome.rows if row.row.budget == "cpu"}
    recipe = figure4.RECIPES[net]
    assert f"for RECIPE {recipe} (" in reasons[net]
    assert "plain34 and plain18" in reasons["plain-34 - plain-18"]
    assert not any("train its recipe" in reason for reason in reasons.values())
    command = reasons[net].partition(": resnets ")[2].replace("RECIPE", recipe)
    assert main([*shlex.split(command), "--print-config"]) == 0
    spec = from_json(TrainSpec, json.loads(capsys.readouterr().out))
    # Training takes the number of classes from the folder.
    spec = dataclasses.replace(spec, model=dataclasses.replace(spec.model, num_classes=figure4.SMALL_CLASSES))
    assert spec_hash(spec) == spec_hash(figure4.SMALL[net].spec)


def test_full_runs_are_those_of_table_2_and_stay_empty_without_imagenet(tmp_path):
    outcome = fill("figure4", figure4.EXPERIMENT, Settings(run_root=tmp_path, roots=()))
    full = [row for row in outcome.rows if row.row.budget == "full"]
    assert {plan.spec.recipe for row in full for plan in row.row.ours.runs} == {
        "imagenet.plain18", "imagenet.plain34", "imagenet.resnet18_a", "imagenet.resnet34_a",
    }  # fmt: skip
    assert all(row.ours is None and "ImageNet" in row.reason for row in full)
