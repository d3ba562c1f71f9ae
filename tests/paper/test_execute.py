"""Rows are filled from the runs that are there, and judged by what these can support."""

import dataclasses
import json
import os
import signal
import statistics

import pytest
import torch

import resnets.paper
from resnets.engine.state import SCHEMA_VERSION
from resnets.paper import figure4
from resnets.paper.core import cifar
from resnets.paper.core.cifar import on_cpu
from resnets.paper.core.execute import fill, reproduce, reproduce_each
from resnets.paper.core.experiment import (
    Computed,
    Experiment,
    FromRuns,
    NotRun,
    Picture,
    PlannedRun,
    Row,
    Unavailable,
)
from resnets.paper.core.find import experiment
from resnets.paper.core.listing import _count, states
from resnets.paper.core.render import outcome_text
from resnets.paper.core.verdict import AtLeast, AtMost, Report, Within
from resnets.paper.core.workshop import Settings, Workshop, directory_name
from resnets.recipes.find import recipe
from resnets.specs import io
from resnets.specs.data import Cifar
from resnets.specs.errors import DivergedError, InterruptedRunError, ModelError, SpecError, TrainingError
from resnets.specs.run import shorten


def write_run(folder, spec, test_error, *, loss=0.1, training_error=1.0, split="test", path=None):
    """Write a finished run by hand: a constant training log, and the evaluation of the final weights."""
    directory = folder / (path or directory_name(spec))
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(io.to_json(spec)))
    (directory / "env.json").write_text(json.dumps({"processor": "test processor", "gpu": None, "starts": []}))
    lines = [
        {
            "step": step,
            "split": "train",
            "loss": loss,
            "top1_error": training_error,
            "lr": 0.1,
            "images_per_second": 1_000.0,
        }
        for step in range(100, spec.steps + 1, 100)
    ]
    lines.append(
        {"step": spec.steps, "split": split, "loss": 1.0, "top1_error": test_error, "images": 10_000, "final": True}
    )
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def seeded(name, seed=0):
    return dataclasses.replace(recipe(f"cifar10.{name}"), seed=seed)


def row_of(outcome, run, meaning="test error"):
    return next(row for row in outcome.rows if row.row.run == run and row.row.meaning.startswith(meaning))


def settings(folder, **fields):
    return Settings(run_root=folder, roots=(), **fields)


@pytest.mark.parametrize(("error", "verdict"), [(8.75, "PASS"), (9.5, "PASS"), (7.96, "PASS"), (9.6, "FAIL")])
def test_a_full_run_stands_beside_the_papers_number(tmp_path, error, verdict):
    write_run(tmp_path, seeded("resnet20"), error)
    row = row_of(reproduce("table6", settings(tmp_path)), "ResNet-20")
    assert (row.ours, row.verdict) == (error, verdict)
    assert row.delta == pytest.approx(error - 8.75)


def test_a_run_in_bf16_counts_and_says_so(tmp_path):
    write_run(tmp_path, dataclasses.replace(seeded("resnet20"), precision="bf16"), 8.6)
    outcome = reproduce("table6", settings(tmp_path))
    assert row_of(outcome, "ResNet-20").ours == 8.6
    (run,) = outcome.to_json()["runs"]
    assert run["precision"] == "bf16"
    # Where the number stands, too.
    assert row_of(outcome, "ResNet-20").to_json()["precision"] == "bf16"
    assert "  ResNet-20 (bf16) " in outcome_text(outcome, 100)


def test_a_run_in_fp32_needs_no_mention(tmp_path):
    write_run(tmp_path, seeded("resnet20"), 8.6)
    outcome = reproduce("table6", settings(tmp_path))
    assert row_of(outcome, "ResNet-20").to_json()["precision"] == "fp32"
    assert "ResNet-20 (fp32)" not in outcome_text(outcome, 100)


def test_a_shortened_run_fills_no_row_and_is_mentioned(tmp_path):
    directory = write_run(tmp_path, shorten(seeded("resnet20"), 6_400), 14.19)
    outcome = reproduce("table6", settings(tmp_path))
    assert row_of(outcome, "ResNet-20").ours is None
    (note,) = outcome.notes
    assert "6,400 of 64,000" in note
    assert str(directory) in note


def test_runs_elsewhere_are_found_and_never_trained_again(tmp_path):
    write_run(tmp_path / "others", seeded("resnet20"), 8.5, path="deeper/down")
    found = reproduce("table6", Settings(run_root=tmp_path / "runs", roots=(tmp_path / "others",)))
    assert row_of(found, "ResNet-20").ours == 8.5
    assert not (tmp_path / "runs").exists()


def test_five_seeds_are_shown_one_by_one_with_best_mean_and_spread(tmp_path):
    errors = [6.5, 6.7, 6.43, 6.61, 6.9]
    for seed, error in enumerate(errors):
        write_run(tmp_path, seeded("resnet110", seed), error)
    outcome = reproduce("table6", settings(tmp_path))
    best, mean = row_of(outcome, "ResNet-110, best of 5 seeds"), row_of(outcome, "ResNet-110, mean of 5 seeds")
    assert best.ours == min(errors)
    assert mean.ours == pytest.approx(statistics.fmean(errors))
    assert mean.verdict == "PASS"
    document = mean.to_json()
    assert [one["value"] for one in document["seeds"]] == errors
    assert document["spread"] == pytest.approx(statistics.stdev(errors))
    text = outcome_text(outcome, 120)
    assert "6.43 (6.63 ± 0.18)" in text
    assert "seeds 0, 1, 2, 3, 4" in text
    assert "ResNet-110, mean of 5 seeds: 6.50  6.70  6.43  6.61  6.90" in text


def test_fewer_seeds_than_planned_are_shown_and_not_judged(tmp_path):
    write_run(tmp_path, seeded("resnet110", 3), 12.0)
    row = row_of(reproduce("table6", settings(tmp_path)), "ResNet-110, mean of 5 seeds")
    assert (row.ours, row.verdict) == (12.0, "REPORT")
    assert row.reason.startswith("1 of 5 seeds")
    text = outcome_text(reproduce("table6", settings(tmp_path)), 120)
    not_run, remarks = text.partition("\nremarks\n")[::2]
    assert "1 of 5 seeds" not in not_run
    assert "ResNet-110, mean of 5 seeds: 1 of 5 seeds" in remarks


def test_a_row_about_five_seeds_is_not_judged_by_one_that_was_asked_for(tmp_path):
    write_run(tmp_path, seeded("resnet110", 0), 6.5)
    row = row_of(reproduce("table6", settings(tmp_path, seeds=(0,))), "ResNet-110, mean of 5 seeds")
    assert (row.ours, row.verdict, row.reason) == (6.5, "REPORT", "1 of 5 seeds")


def test_seeds_that_are_asked_for_replace_those_of_the_experiment(tmp_path):
    write_run(tmp_path, seeded("resnet20", 4), 8.0)
    write_run(tmp_path, seeded("resnet20", 9), 9.0)
    row = row_of(reproduce("table6", settings(tmp_path, seeds=(4, 9))), "ResNet-20")
    assert row.ours == 8.5
    assert [one.seed for one in row.seeds] == [4, 9]


def test_an_error_of_another_split_is_no_test_error(tmp_path):
    write_run(tmp_path, seeded("resnet20"), 8.5, split="validation")
    row = row_of(reproduce("table6", settings(tmp_path)), "ResNet-20")
    assert row.ours is None
    assert "no test error" in row.reason


@pytest.mark.parametrize("error", ["8.5", None, float("nan"), [8.5]])
def test_a_test_error_that_is_no_number_fills_no_row(tmp_path, error):
    write_run(tmp_path, seeded("resnet20"), error)
    row = row_of(reproduce("table6", settings(tmp_path)), "ResNet-20")
    assert row.ours is None
    assert "no test error" in row.reason


def test_a_run_that_has_ended_with_a_damaged_log_leaves_its_row_empty(tmp_path, monkeypatch):
    from resnets import api

    plan = PlannedRun(name="ResNet-8", spec=shorten(recipe("cifar10.resnet8"), 100))
    directory = write_run(tmp_path, plan.spec, 50.0)
    (directory / "metrics.jsonl").write_text("damaged")
    monkeypatch.setattr(api, "train", lambda *args, **fields: None)
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0), budget="cpu")
    (row,) = fill("mine", planned, settings(tmp_path, budget="cpu")).rows
    assert row.ours is None
    assert row.reason == f"{directory} has ended, and its log has no final test that can be read"


def degradation(folder, losses):
    for name, loss in losses.items():
        write_run(folder, on_cpu(name).spec, 50.0, loss=loss)
    outcome = reproduce("degradation", settings(folder, budget="cpu"))
    return {row.row.run: row for row in outcome.rows if row.row.meaning.startswith("training loss")}


def test_degradation_in_small_passes_where_plain_nets_degrade_and_residual_ones_do_not(tmp_path):
    rows = degradation(tmp_path, {"plain20": 1.80, "plain56": 2.20, "resnet20": 1.70, "resnet56": 1.75})
    assert {row.verdict for row in rows.values()} == {"PASS"}
    assert rows["plain-56 - plain-20"].ours == pytest.approx(0.40)
    assert rows["ResNet-56 - plain-56"].ours == pytest.approx(-0.45)


def test_degradation_in_small_fails_where_the_residual_net_degrades_as_the_plain_one(tmp_path):
    rows = degradation(tmp_path, {"plain20": 1.80, "plain56": 2.20, "resnet20": 1.70, "resnet56": 2.20})
    assert rows["plain-56 - plain-20"].verdict == "PASS"
    assert rows["ResNet-56 - plain-56"].verdict == "FAIL"
    assert rows["ResNet-56 - ResNet-20"].verdict == "FAIL"


def test_degradation_in_small_fails_where_depth_does_not_matter(tmp_path):
    rows = degradation(tmp_path, dict.fromkeys(("plain20", "plain56", "resnet20", "resnet56"), 1.8))
    assert rows["plain-56 - plain-20"].verdict == "FAIL"


@pytest.mark.parametrize(
    ("errors", "verdict"), [((5, 6, 7, 8), "PASS"), ((5, 6, 6, 8), "FAIL"), ((5, 6, 5, 8), "FAIL")]
)
def test_the_training_error_of_plain_nets_grows_strictly_with_depth(tmp_path, errors, verdict):
    for depth, error in zip((20, 32, 44, 56), errors, strict=True):
        write_run(tmp_path, seeded(f"plain{depth}"), 9.0, training_error=float(error))
    row = row_of(reproduce("figure6", settings(tmp_path)), "plain-44 - plain-32", "training error")
    assert row.verdict == verdict


def test_pictures_are_drawn_from_the_runs_that_are_there(tmp_path):
    for name in ("plain20", "plain44"):
        write_run(tmp_path, seeded(name), 9.0, training_error=7.0)
    outcome = reproduce("figure6", settings(tmp_path))
    assert [path.name for path in outcome.pictures] == ["figure6-plain.png"]
    assert outcome.pictures[0].read_bytes().startswith(b"\x89PNG")
    assert any("without plain-32, plain-56" in note for note in outcome.notes)


def experiment_of(**fields):
    row = {"run": "a", "meaning": "number", "rule": Report(why="test"), "source": "test"} | fields
    return Experiment(title="title", claim="claim", rows=(Row(**row),))


def unavailable():
    raise Unavailable("the part is not there")


@pytest.mark.parametrize(
    ("ours", "reason"),
    [(NotRun(reason="needs a detector"), "needs a detector"), (Computed(value=unavailable), "the part is not there")],
)
def test_what_cannot_be_had_stays_empty_with_its_reason(tmp_path, ours, reason):
    planned = experiment_of(ours=ours, rule=Within(tolerance=1, why="test"), paper=76.4)
    (row,) = fill("mine", planned, settings(tmp_path)).to_json()["rows"]
    assert (row["ours"], row["paper"], row["delta"], row["verdict"], row["reason"]) == (
        None,
        76.4,
        None,
        "REPORT",
        reason,
    )


def test_a_run_kept_without_weights_does_not_fill_a_row_that_needs_them(tmp_path):
    write_run(tmp_path, seeded("resnet20"), 8.5)
    plan = PlannedRun(name="ResNet-20", spec=recipe("cifar10.resnet20"))
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0, needs_weights=True), budget="full")
    (row,) = fill("mine", planned, settings(tmp_path)).rows
    assert row.ours is None
    assert "without its weights" in row.reason


def state_of(name, folder, monkeypatch):
    monkeypatch.setattr("resnets.paper.core.listing.default_roots", lambda: ())
    monkeypatch.setattr("resnets.paper.core.listing.experiment_names", lambda: [name])
    (state,) = states(folder)
    return state


def test_the_list_counts_rows_that_are_read_from_weights_and_images_apart(tmp_path, monkeypatch):
    directory = write_run(tmp_path, seeded("plain20"), 9.0)
    rows = sum(isinstance(row.ours, FromRuns) and row.budget == "full" for row in experiment("figure7").rows)
    state = state_of("figure7", tmp_path, monkeypatch)
    assert (state.counts["full"].possible, state.counts["full"].filled, state.mark) == (rows, 0, " ")
    (directory / "model").mkdir()
    (directory / "model" / "config.json").touch()
    alone = sum(
        isinstance(row.ours, FromRuns)
        and [plan.name for plan in row.ours.runs] == ["plain-20"]
        and row.budget == "full"
        for row in experiment("figure7").rows
    )
    # The images may not be here: nothing is loaded, and no row is called filled.
    state = state_of("figure7", tmp_path, monkeypatch)
    assert (state.counts["full"].filled, state.counts["full"].with_images) == (0, alone)
    assert state.cell("full") == f"0/{rows - alone} +{alone}"
    assert state.mark == "/"


def test_the_list_counts_no_row_whose_run_does_not_have_the_number(tmp_path, monkeypatch):
    write_run(tmp_path, recipe("imagenet.plain18"), 27.0, split="validation")
    assert state_of("table2", tmp_path, monkeypatch).counts["full"].filled == 0
    write_run(tmp_path, seeded("resnet20"), 8.5, split="validation")
    assert state_of("table6", tmp_path, monkeypatch).counts["full"].filled == 0


@pytest.mark.parametrize(("loss", "mark", "failed"), [(2.2, "/", 0), (1.8, "!", 2)])
def test_the_list_marks_a_claim_that_fails(tmp_path, monkeypatch, loss, mark, failed):
    for name, own in {"plain20": 1.80, "plain56": loss, "resnet20": 1.70, "resnet56": 1.75}.items():
        write_run(tmp_path, on_cpu(name).spec, 50.0, loss=own)
    state = state_of("degradation", tmp_path, monkeypatch)
    assert state.counts["cpu"].filled == state.counts["cpu"].possible
    assert (state.mark, state.counts["cpu"].failed) == (mark, failed)
    assert state.to_json()["state"] == {"/": "partly", "!": "failed"}[mark]


def damaged(*arguments):
    raise ModelError("model.safetensors is damaged.\nsecond line")


def test_a_damaged_run_is_the_reason_of_its_row_and_of_its_picture(tmp_path):
    write_run(tmp_path, seeded("plain20"), 9.0)
    plan = PlannedRun(name="plain-20", spec=recipe("cifar10.plain20"))
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=damaged), budget="full")
    picture = Picture(name="mine", title="title", runs=(plan,), budget="full", draw=damaged)
    outcome = fill("mine", dataclasses.replace(planned, pictures=(picture,)), settings(tmp_path))
    assert (outcome.rows[0].ours, outcome.rows[0].reason) == (None, "model.safetensors is damaged.")
    assert outcome.notes == ("mine is not drawn: model.safetensors is damaged.",)


def test_a_damaged_checkpoint_is_the_reason_of_its_row(tmp_path, monkeypatch):
    from resnets import api

    monkeypatch.setattr(api, "train", lambda *args, **fields: damaged())
    plan = PlannedRun(name="ResNet-8", spec=shorten(recipe("cifar10.resnet8"), 100))
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0), budget="cpu")
    (row,) = fill("mine", planned, settings(tmp_path, budget="cpu")).rows
    assert (row.ours, row.reason) == (None, "model.safetensors is damaged.")


@pytest.mark.parametrize(
    ("error", "has_to_train", "verdict"),
    [
        (DivergedError("The loss or a weight is not a finite number at step 7; keep calm."), True, "FAIL"),
        (DivergedError("The loss or a weight is not a finite number at step 7; keep calm."), False, "REPORT"),
        (TrainingError("The checkpoint of step 7 could not be written to x: the disk is full."), True, "REPORT"),
    ],
)
def test_a_net_that_cannot_be_trained_fails_the_claim_that_it_can(tmp_path, monkeypatch, error, has_to_train, verdict):
    from resnets import api

    def stopped(*args, **fields):
        raise error

    monkeypatch.setattr(api, "train", stopped)
    plan = PlannedRun(name="ResNet-8", spec=shorten(recipe("cifar10.resnet8"), 100))
    ours = FromRuns(runs=(plan,), read=lambda run: 1.0, has_to_train=has_to_train)
    planned = experiment_of(ours=ours, budget="cpu", rule=AtMost(limit=50, why="test"))
    outcome = fill("mine", planned, settings(tmp_path, budget="cpu"))
    (row,) = json.loads(json.dumps(outcome.to_json(), allow_nan=False))["rows"]
    assert (row["ours"], row["verdict"]) == (None, verdict)
    assert row["reason"].startswith(f"training ended: {error}")
    assert outcome.counts()["FAIL"] == (verdict == "FAIL")
    assert str(error) in " ".join(outcome_text(outcome, 200).split())


def begun(folder, spec, step, *, checkpoint=True):
    """Write a run that is at a step."""
    write_run(folder, spec, 50.0, path="begun")
    line = {"step": step, "split": "train", "loss": 1.0, "top1_error": 50.0}
    (folder / "begun" / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    if checkpoint:
        (folder / "begun" / "checkpoints").mkdir()
        torch.save({"schema_version": SCHEMA_VERSION}, folder / "begun" / "checkpoints" / f"step-{step:08d}.pt")
    return folder / "begun"


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def trained(monkeypatch):
    """The spec and the folder of each run that would be trained."""
    from resnets import api

    calls = []
    monkeypatch.setattr(api, "train", lambda spec, *, run, **fields: calls.append((spec, run)))
    return calls


def test_an_unfinished_run_below_the_run_root_goes_on_by_its_own_spec(tmp_path, trained):
    plan = PlannedRun(name="ResNet-8", spec=shorten(recipe("cifar10.resnet8"), 200))
    own = dataclasses.replace(plan.spec, precision="bf16", evaluate_every_steps=77)
    there = begun(tmp_path, own, 100)
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0), budget="full")
    (row,) = fill("mine", planned, settings(tmp_path)).rows
    assert row.reason == f"{there} is at step 100 of 200; --budget full --precision bf16 goes on with it"
    fill("mine", planned, settings(tmp_path, budget="full", precision="bf16"))
    assert trained == [(own, there)]
    # In another precision it would be another run.
    fill("mine", planned, settings(tmp_path, budget="full"))
    assert trained[1] == (plan.spec, tmp_path / directory_name(plan.spec))


@pytest.mark.parametrize(("own", "flags"), [("fp32", ""), ("bf16", " --precision bf16")])
def test_an_unfinished_run_elsewhere_goes_on_in_a_copy_below_the_run_root(tmp_path, trained, own, flags):
    plan = PlannedRun(name="ResNet-8", spec=shorten(recipe("cifar10.resnet8"), 200))
    own_spec = dataclasses.replace(plan.spec, precision=own, evaluate_every_steps=77)
    there = begun(tmp_path / "results", own_spec, 100)
    before = files(there)
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0), budget="full")
    root = tmp_path / "runs"

    def outcome(**fields):
        said = []
        where = Settings(run_root=root, roots=(tmp_path / "results",), say=said.append, **fields)
        return fill("mine", planned, where), said

    filled, _ = outcome()
    far = f"{there} is at step 100 of 200"
    assert filled.rows[0].reason == f"{far}; --budget full{flags} goes on with a copy of it below {root}"
    assert not root.exists()
    filled, said = outcome(budget="full", precision=own)
    copy = root / directory_name(own_spec)
    assert trained == [(own_spec, copy)]
    assert files(copy) == files(there) == before
    note = f"{there} is not finished; a copy of it goes on in {copy}"
    assert filled.notes == (note,)
    assert said[0] == note
    # The copy goes on from now on, however far the other is.
    begun_copy = {"step": 50, "split": "train", "loss": 1.0}
    (copy / "metrics.jsonl").write_text(json.dumps(begun_copy) + "\n")
    filled, _ = outcome(budget="full", precision=own)
    assert trained[1:] == [(own_spec, copy)]
    assert filled.notes == ()


def test_an_unfinished_run_elsewhere_without_a_checkpoint_stands_in_no_ones_way(tmp_path, trained):
    plan = PlannedRun(name="ResNet-8", spec=shorten(recipe("cifar10.resnet8"), 200))
    begun(tmp_path / "results", plan.spec, 0, checkpoint=False)
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0), budget="full")
    here = Settings(run_root=tmp_path / "runs", roots=(tmp_path / "results",))
    (row,) = fill("mine", planned, here).rows
    assert row.reason == "no finished run of 200 iterations; --budget full trains it"
    outcome = fill("mine", planned, dataclasses.replace(here, budget="full"))
    assert trained == [(plan.spec, tmp_path / "runs" / directory_name(plan.spec))]
    assert outcome.notes == ()


@pytest.mark.parametrize("damage", ["checkpoint", "log"])
def test_an_unfinished_run_elsewhere_that_cannot_be_copied_is_trained_anew(tmp_path, trained, damage):
    plan = PlannedRun(name="ResNet-8", spec=shorten(recipe("cifar10.resnet8"), 200))
    there = begun(tmp_path / "results", plan.spec, 100)
    if damage == "checkpoint":
        (there / "checkpoints" / "step-00000100.pt").write_bytes(b"cut")
    else:
        (there / "metrics.jsonl").unlink()
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0), budget="full")
    here = Settings(run_root=tmp_path / "runs", roots=(tmp_path / "results",), budget="full")
    (note,) = fill("mine", planned, here).notes
    assert note.startswith(f"{there} is not finished and cannot be gone on with, so it is trained anew: ")
    anew = tmp_path / "runs" / directory_name(plan.spec)
    assert trained == [(plan.spec, anew)]
    assert not anew.exists() or files(anew) == {}


def test_an_unfinished_run_on_imagenet_says_what_goes_on_with_it(tmp_path):
    there = begun(tmp_path / "runs", recipe("imagenet.plain18"), 100)
    far = f"{there} is at step 100 of 600,000"
    root = tmp_path / "runs"
    row = row_of(reproduce("figure4", settings(root)), "plain-18", "validation error")
    images = "--data FOLDER goes on with it, where FOLDER has the same images, of 1,000 classes"
    assert row.reason == f"{far}; resnets train --from {there / 'config.json'} --run {there} {images}"
    # Only below the run root is written to.
    here, copy = Settings(run_root=tmp_path / "own", roots=(root,)), tmp_path / "own" / "begun"
    row = row_of(reproduce("figure4", here), "plain-18", "validation error")
    command = f"resnets train --from {copy / 'config.json'} --run {copy} {images}"
    assert row.reason == f"{far}; copy it to {copy}, and {command}"


def test_an_unfinished_run_in_small_is_of_the_images_of_its_own_classes(tmp_path):
    begun(tmp_path, figure4.SMALL["plain-18"].spec, 100)
    rows = reproduce("figure4", settings(tmp_path, budget="cpu")).rows
    (reason,) = (row.reason for row in rows if (row.row.run, row.row.budget) == ("plain-18", "cpu"))
    assert reason.endswith("where FOLDER has the same images, of 20 classes")


def test_a_row_read_from_runs_is_not_of_the_budget_that_trains_none():
    plan = PlannedRun(name="ResNet-20", spec=recipe("cifar10.resnet20"))
    with pytest.raises(SpecError, match="none are trained at budget check; give the row budget cpu, gpu or full"):
        experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0))


@pytest.mark.parametrize("budget", ["check", "cpu", "full"])
def test_the_list_trains_nothing(tmp_path, trained, budget):
    plan = PlannedRun(name="ResNet-20", spec=recipe("cifar10.resnet20"))
    ours = FromRuns(runs=(plan,), read=lambda run: 1.0)
    row = Row(run="a", meaning="number", ours=ours, rule=Report(why="test"), source="test", budget=budget)
    assert _count([row], Workshop(settings(tmp_path, budget=budget))).filled == 0
    assert trained == []


def test_the_example_of_a_table_leaves_a_row_empty_whose_run_has_no_error(tmp_path):
    code = resnets.paper.__doc__.partition("```python\n")[2].partition("```")[0]
    names = {one.__name__: one for one in (Experiment, FromRuns, PlannedRun, Row, Within, recipe)}
    exec(code, names)
    assert names["test_error"] is cifar.test_error
    write_run(tmp_path, seeded("resnet20"), None)
    write_run(tmp_path, seeded("resnet56"), 7.0)
    first, second = fill("mine", names["EXPERIMENT"], settings(tmp_path)).rows
    assert first.ours is None
    assert first.reason.endswith("has no test error of its final weights")
    assert second.ours == 7.0


def test_a_claim_that_is_not_a_number_fails(tmp_path):
    planned = experiment_of(ours=Computed(value=lambda: float("nan")), rule=AtLeast(limit=0, why="test"))
    outcome = fill("mine", planned, settings(tmp_path))
    assert outcome.rows[0].verdict == "FAIL"
    (row,) = json.loads(json.dumps(outcome.to_json(), allow_nan=False))["rows"]
    assert (row["ours"], row["verdict"], row["reason"]) == (None, "FAIL", "ours is nan, which JSON cannot hold")
    assert "nan" in outcome_text(outcome, 80)


def test_a_picture_that_cannot_be_written_is_said_and_the_rows_are_there(tmp_path):
    write_run(tmp_path / "runs", seeded("plain20"), 9.0)
    (tmp_path / "file").touch()
    outcome = reproduce("figure6", Settings(run_root=tmp_path / "file", roots=(tmp_path / "runs",)))
    assert row_of(outcome, "plain-20").ours == 9.0
    assert outcome.pictures == ()
    assert any("figure6-plain is not drawn" in note and "cannot be written" in note for note in outcome.notes)


def test_data_that_are_not_here_leave_the_row_empty_unless_their_place_was_given(tmp_path, monkeypatch):
    from resnets import api
    from resnets.specs.errors import DataError

    def no_data(*args, **fields):
        raise DataError("CIFAR-10 cannot be downloaded.\nsecond line")

    monkeypatch.setattr(api, "train", no_data)
    row = row_of(reproduce("table6", settings(tmp_path, budget="cpu")), "ResNet-8, 2,000 iterations of 64")
    assert row.ours is None
    assert row.reason == "the data are not here: CIFAR-10 cannot be downloaded."
    with pytest.raises(DataError):
        reproduce("table6", settings(tmp_path, budget="cpu", data_root=tmp_path))


def test_a_download_that_failed_is_not_tried_again_by_the_same_command(tmp_path, monkeypatch):
    from resnets import api
    from resnets.specs.errors import DataError

    tried = []

    def no_data(spec, **fields):
        tried.append(spec.dataset)
        raise DataError(f"CIFAR-{spec.dataset.num_classes} cannot be downloaded, try {len(tried)}.")

    monkeypatch.setattr(api, "train", no_data)
    here = settings(tmp_path, budget="cpu")
    names = ["degradation", "depth_sweep", "table6"]
    outcomes = list(reproduce_each(names, here))
    assert [outcome.name for outcome in outcomes] == names
    assert len(tried) == 1
    reasons = {row.reason for outcome in outcomes for row in outcome.rows if row.row.budget == "cpu"}
    assert "the data are not here: CIFAR-10 cannot be downloaded, try 1." in reasons
    assert not any("try 2" in reason for reason in reasons)
    # Another command may have more luck.
    reproduce("degradation", here)
    assert len(tried) == 2
    hundred = PlannedRun(name="n", spec=dataclasses.replace(on_cpu("resnet20").spec, dataset=Cifar(num_classes=100)))
    ten = PlannedRun(name="n", spec=on_cpu("resnet20").spec)
    for plans in ([ten, ten], [ten, hundred]):
        before = len(tried)
        planned = experiment_of(ours=NotRun(reason=""))
        rows = [
            dataclasses.replace(planned.rows[0], ours=FromRuns(runs=(plan,), read=lambda run: 1.0), budget="cpu")
            for plan in plans
        ]
        fill("mine", dataclasses.replace(planned, rows=tuple(rows)), here)
        assert len(tried) - before == len({plan.spec.dataset for plan in plans})


def test_a_run_that_another_process_trains_leaves_its_row_empty(tmp_path, monkeypatch):
    from resnets import api
    from resnets.specs.errors import RunError

    def locked(*args, run, **fields):
        raise RunError(f"Another process is training in {run}; wait for it.")

    monkeypatch.setattr(api, "train", locked)
    plan = PlannedRun(name="ResNet-8", spec=shorten(recipe("cifar10.resnet8"), 100))
    planned = experiment_of(ours=FromRuns(runs=(plan,), read=lambda run: 1.0), budget="cpu")
    # A folder of our own that cannot be trained in is a mistake of the command; one that was begun elsewhere is not.
    with pytest.raises(RunError):
        fill("mine", planned, settings(tmp_path, budget="cpu"))
    there = begun(tmp_path, plan.spec, 50)
    (row,) = fill("mine", planned, settings(tmp_path, budget="cpu")).rows
    assert row.ours is None
    assert row.reason.startswith("Another process is training in")
    assert str(there) in row.reason


def test_sigterm_between_two_runs_says_how_to_go_on(tmp_path):
    def stop():
        os.kill(os.getpid(), signal.SIGTERM)
        return 0.0

    planned = experiment_of(ours=Computed(value=stop))
    with pytest.raises(InterruptedRunError, match=r"Go on with: resnets reproduce x$") as stopped:
        fill("mine", planned, settings(tmp_path, command="resnets reproduce x"))
    assert stopped.value.exit_code == 75
