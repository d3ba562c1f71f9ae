"""Figure 7 from finished runs: the orderings it judges, its self-check, and what it says where something is missing."""

import json

import numpy as np
import pytest
from torch import nn

from resnets.artifacts.found_runs import FoundRun
from resnets.artifacts.model_folder import StoredModel, save_model
from resnets.artifacts.run_directory import RunDirectory
from resnets.artifacts.run_log import RunLog
from resnets.data.preprocess import preprocess_for
from resnets.data.splits import Dataset, ResidentSplit
from resnets.models.build import build
from resnets.paper import figure7
from resnets.paper.core import images
from resnets.paper.core.execute import fill
from resnets.paper.core.experiment import Computed, FromRuns, Unavailable
from resnets.paper.core.verdict import judge
from resnets.paper.core.workshop import Settings
from resnets.specs import io
from resnets.specs.data import Cifar


@pytest.fixture
def training_set(monkeypatch):
    """A CIFAR of 64 images of coarse squares, whatever the root."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (64, 8, 8, 3)).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    split = ResidentSplit(images=pixels, labels=random.integers(10, size=64))
    dataset = Dataset(name="cifar10", classes=tuple("0123456789"), splits={"train": split}, fingerprint="")
    monkeypatch.setattr(images, "_dataset", lambda spec, root: dataset)
    return split


def finished(folder, plan, scale, split, *, weights=True):
    """Write a finished run whose net has gammas of `scale`, so that this is the response of every layer."""
    run = folder / plan.name
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(io.to_json(plan.spec)))
    last = {"step": plan.spec.steps, "split": "test", "final": True, "top1_error": 9.0, "images": 10_000}
    (run / "metrics.jsonl").write_text(json.dumps(last) + "\n")
    if not weights:
        return
    model = build(plan.spec.model, seed=0).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.constant_(norm.weight, scale)
    save_model(
        RunDirectory(run).model,
        StoredModel(
            model=model,
            spec=plan.spec.model,
            preprocessor=preprocess_for(Cifar(), split),
            classes=tuple("0123456789"),
            metrics={},
        ),
    )


def outcome_of(folder, budget="check"):
    outcome = fill("figure7", figure7.EXPERIMENT, Settings(run_root=folder, roots=(), budget=budget))
    return outcome, {(row.row.run, row.row.meaning): row for row in outcome.rows if isinstance(row.row.ours, FromRuns)}


def test_responses_are_read_from_weights_and_images_and_compared(tmp_path, training_set):
    for name, scale in (("plain20", 1.4), ("resnet20", 0.9), ("resnet56", 0.95)):
        finished(tmp_path, figure7.FULL[name], scale, training_set)
    outcome, rows = outcome_of(tmp_path)
    assert rows["plain-20", figure7.MEAN].ours == pytest.approx(1.4, rel=0.02)
    assert rows["ResNet-20", figure7.MEAN].ours == pytest.approx(0.9, rel=0.02)
    difference = f"{figure7.MEAN}, difference"
    assert rows["ResNet-20 - plain-20", difference].ours == pytest.approx(-0.5, abs=0.03)
    assert rows["ResNet-20 - plain-20", difference].verdict == "PASS"
    assert rows["ResNet-56 - ResNet-20", difference].verdict == "FAIL"
    assert rows["ResNet-110 - ResNet-56", difference].ours is None
    assert rows["ResNet-56", figure7.DEVIATION].verdict == "PASS"
    assert [path.name for path in outcome.pictures] == ["figure7.png"]
    assert "figure7 is drawn without plain-56, ResNet-110: not trained yet." in outcome.notes
    json.dumps(outcome.to_json(), allow_nan=False)


def test_a_run_without_weights_fills_no_row_and_is_not_drawn(tmp_path, training_set):
    finished(tmp_path, figure7.FULL["resnet20"], 1.0, training_set, weights=False)
    outcome, rows = outcome_of(tmp_path)
    assert rows["ResNet-20", figure7.MEAN].ours is None
    assert "without its weights" in rows["ResNet-20", figure7.MEAN].reason
    assert not outcome.pictures
    assert any("figure7 is not drawn: its runs were kept without their weights" in note for note in outcome.notes)


@pytest.mark.parametrize(("damage", "word"), [("missing", "cannot be read"), ("cut", "damaged")])
def test_a_model_folder_that_is_damaged_leaves_its_rows_empty_and_the_others_filled(
    tmp_path, training_set, damage, word
):
    for name in ("plain20", "resnet20"):
        finished(tmp_path, figure7.FULL[name], 1.0, training_set)
    weights = tmp_path / "ResNet-20" / "model" / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    outcome, rows = outcome_of(tmp_path)
    assert rows["plain-20", figure7.MEAN].ours is not None
    assert rows["ResNet-20", figure7.MEAN].ours is None
    assert word in rows["ResNet-20", figure7.MEAN].reason
    assert any("figure7 is not drawn" in note and word in note for note in outcome.notes)


def test_the_median_is_reported_where_the_mean_is_judged():
    for budget in ("gpu", "full"):
        rows = [row for row in figure7.EXPERIMENT.rows if row.budget == budget]
        nets = {row.run for row in rows if row.meaning == figure7.MEAN}
        assert nets == {row.run for row in rows if row.meaning == figure7.MEDIAN}


def test_without_images_nothing_is_downloaded_and_the_row_says_where_to_put_them(tmp_path, training_set, monkeypatch):
    finished(tmp_path / "runs", figure7.FULL["resnet20"], 1.0, training_set)
    monkeypatch.undo()
    monkeypatch.setenv("RESNETS_DATA_ROOT", str(tmp_path / "empty"))
    outcome, rows = outcome_of(tmp_path / "runs")
    assert rows["ResNet-20", figure7.MEAN].ours is None
    assert "give the folder that holds them with --data-root" in rows["ResNet-20", figure7.MEAN].reason
    assert any("figure7 is not drawn: needs the training images of CIFAR-10" in note for note in outcome.notes)
    assert not any("is drawn without" in note for note in outcome.notes)
    assert not (tmp_path / "empty").exists()


def test_the_exact_checks_pass():
    computed = [row for row in figure7.EXPERIMENT.rows if isinstance(row.ours, Computed)]
    assert len(computed) == 3
    for row in computed:
        assert judge(row.rule, row.ours.value(), row.paper) == "PASS", row.run


def test_five_nets_of_6n_plus_2_layers_are_planned():
    assert [plan.name for plan in figure7.FULL.values()] == [
        "plain-20", "plain-56", "ResNet-20", "ResNet-56", "ResNet-110",
    ]  # fmt: skip
    assert {plan.spec.steps for plan in figure7.FULL.values()} == {64_000}
    for budget in ("full", "gpu", "cpu"):
        compared = {row.run for row in figure7.EXPERIMENT.rows if row.budget == budget and "difference" in row.meaning}
        assert {"ResNet-56 - plain-56", "ResNet-20 - plain-20"} <= compared
    depths = [row.run for row in figure7.EXPERIMENT.rows if row.budget == "full" and row.run.startswith("ResNet-110 -")]
    assert depths == ["ResNet-110 - ResNet-56"]


@pytest.mark.parametrize("quiet", [True, False])
def test_what_takes_long_shows_how_far_it_is_unless_that_is_not_wanted(monkeypatch, capsys, quiet):
    monkeypatch.setattr("resnets.engine.progress._SECONDS_BETWEEN_LINES", 0)
    with images.images_below(None, quiet=quiet), images.counting_images("Responses") as on_images:
        on_images(5, 10)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("" if quiet else "Responses: 5 of 10 images")
    assert bool(err) != quiet


def test_images_are_looked_for_where_the_command_says(tmp_path, monkeypatch):
    seen = []

    def nowhere(spec, root):
        seen.append(root)
        raise Unavailable("not here")

    monkeypatch.setattr(images, "_dataset", nowhere)
    run = FoundRun(path=tmp_path, spec=figure7.FULL["resnet20"].spec, log=RunLog())
    for root in (tmp_path, None):
        with images.images_below(root), pytest.raises(Unavailable):
            images.training_images(run)
    assert seen == [tmp_path, None]
