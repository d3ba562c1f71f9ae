"""Rows of Tables 2 to 4 are filled from evaluations that lie in a finished run, and from no others."""

import dataclasses
import json

import pytest
import torch

import resnets
from resnets.artifacts.found_runs import FoundRun
from resnets.artifacts.model_folder import StoredModel
from resnets.artifacts.run_log import read_run_log
from resnets.data.preprocess import Preprocessor
from resnets.paper import table2, table3, table4
from resnets.paper.core.execute import fill
from resnets.paper.core.experiment import FromRuns, Unavailable
from resnets.paper.core.imagenet import error_under, evaluations, on_imagenet
from resnets.paper.core.render import outcome_text
from resnets.paper.core.workshop import Settings
from resnets.specs import io
from resnets.specs.catalogue import model_name, model_spec
from resnets.specs.preprocess import Preprocess
from resnets.specs.protocol import PROTOCOLS, Dense


def evaluation(protocol="ten-crop", net="resnet34-a", **fields):
    settings = json.loads(json.dumps(dataclasses.asdict(PROTOCOLS[protocol])))
    if protocol == "dense":
        settings["shorter_sides_px"] = [list(Dense().scales_px)]
    return {
        "models": [net],
        "split": "validation",
        "protocol": protocol,
        "settings": settings,
        "images": 50_000,
        "top1_error": 25.1,
        "top5_error": 7.8,
        **fields,
    }


def with_setting(protocol, **fields):
    document = evaluation(protocol)
    return document | {"settings": document["settings"] | fields}


# What `resnets evaluate` says of a checkpoint, word for word.
UNFINISHED = resnets.Classifier(
    StoredModel(
        model=torch.nn.Identity(),
        spec=model_spec("resnet34-a"),
        preprocessor=Preprocessor(Preprocess(resize_px=256, crop_px=224)),
        classes=(),
        metrics={"finished": False, "steps": 5, "of": 10},
    )
).unfinished


def finished_run(folder, plan, *documents):
    """Write a run directory as `resnets train` leaves it, with evaluations beside it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(io.to_json(plan.spec)))
    last = {"step": plan.spec.steps, "split": "validation", "final": True, "top1_error": 27.0, "images": 50_000}
    (folder / "metrics.jsonl").write_text(json.dumps(last) + "\n")
    for number, document in enumerate(documents):
        (folder / f"evaluation{number}.json").write_text(json.dumps(document))
    return FoundRun(path=folder, spec=plan.spec, log=read_run_log(folder / "metrics.jsonl"))


PLAN = on_imagenet("ResNet-34", "resnet34_a")


def test_an_error_is_read_under_its_protocol(tmp_path):
    several = evaluation("ten-crop") | {
        "protocols": {"center": evaluation("center", top1_error=26.7), "dense": evaluation("dense", top1_error=22.9)}
    }
    del several["protocol"]
    run = finished_run(tmp_path / "run", PLAN, evaluation(), several, ["no", "evaluation"])
    assert error_under("ten-crop", "top1_error")(run) == 25.1
    assert error_under("ten-crop", "top5_error")(run) == 7.8
    assert error_under("center", "top1_error")(run) == 26.7
    assert error_under("dense", "top1_error")(run) == 22.9


@pytest.mark.parametrize(
    ("document", "protocol", "reason"),
    [
        (evaluation("center"), "ten-crop", "not tested: resnets evaluate"),
        (evaluation(images=1_000), "ten-crop", "is over 1000 images of validation; the paper's are 50,000"),
        (evaluation(split="train"), "ten-crop", "50000 images of train"),
        (evaluation(models=["resnet34-a", "resnet50"]), "ten-crop", "an ensemble of 2"),
        (evaluation(net="resnet34"), "ten-crop", "is of resnet34; the run's net is resnet34-a"),
        (
            with_setting("dense", scales_px=[224, 256]),
            "dense",
            r"is with scales_px \[224, 256\]; this row's is \[224, 2",
        ),
        (with_setting("dense", scales_px=224), "dense", "is with scales_px 224"),
        (with_setting("dense", form="global"), "dense", "is with form global; this row's is window"),
        (with_setting("dense", flips=False), "dense", "is with flips False; this row's is True"),
        (with_setting("ten-crop", corners="square"), "ten-crop", "is with corners square; this row's is image"),
        (evaluation(settings={}), "ten-crop", "does not say with which corners"),
        (evaluation("dense", settings=None), "dense", "does not say with which scales_px"),
        (evaluation(notes=["x", 5, UNFINISHED]), "ten-crop", "is of a checkpoint from before the end of the run"),
        (evaluation(top1_error=None), "ten-crop", "has no top1_error"),
        (
            evaluation(recalibrate_images=6_400, precision="fp32"),
            "ten-crop",
            "is with BatchNorm statistics of 6400 training images, made anew",
        ),
        (evaluation(recalibrate_images=None), "ten-crop", "is with BatchNorm statistics of None"),
    ],
)
def test_evaluations_that_are_not_the_papers_fill_no_row(tmp_path, document, protocol, reason):
    run = finished_run(tmp_path / "run", PLAN, document)
    with pytest.raises(Unavailable, match=reason):
        error_under(protocol, "top1_error")(run)


def test_the_precision_of_a_test_stands_in_its_row_and_fp32_comes_first(tmp_path):
    plan = table2.RUNS["plain-34"]
    run = finished_run(tmp_path / "run", plan, evaluation(net="plain34", top1_error=28.6, precision="bf16"))

    def filled():
        outcome = fill("table2", table2.EXPERIMENT, Settings(run_root=tmp_path, roots=()))
        (row,) = [row for row in outcome.rows if row.row.run == "plain-34 (imagenet.plain34)"]
        return row, " ".join(outcome_text(outcome, 120).split())

    row, text = filled()
    assert (row.ours, row.tested_in, row.to_json()["test_precision"]) == (28.6, "bf16", "bf16")
    assert "plain-34 (imagenet.plain34) (tested in bf16)" in text
    # As evaluations were written before they had the field.
    (run.path / "later.json").write_text(json.dumps(evaluation(net="plain34", top1_error=28.5, recalibrate_images=0)))
    row, text = filled()
    assert (row.ours, row.tested_in) == (28.5, "fp32")
    assert "tested in" not in text


def test_the_gain_of_dense_testing_says_in_which_precisions_it_was_tested(tmp_path):
    documents = [
        evaluation(net="resnet50", top1_error=23.0, precision="fp16"),
        evaluation("dense", "resnet50", top1_error=20.9, precision="bf16"),
    ]
    finished_run(tmp_path / "run", table4.RUNS["ResNet-50"], *documents)
    outcome = fill("table4", table4.EXPERIMENT, Settings(run_root=tmp_path, roots=()))
    (gain,) = [row for row in outcome.rows if row.row.run == "ResNet-50"]
    assert gain.tested_in == "bf16, fp16"


def test_damaged_files_are_passed_over(tmp_path):
    run = finished_run(tmp_path / "run", PLAN, evaluation())
    (run.path / "damaged.json").write_text("{")
    (run.path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (run.path / "deep.json").write_text("[" * 100_000)
    assert len(list(evaluations(run.path))) == 1


def test_table_2_is_filled_from_finished_runs(tmp_path):
    errors = {"plain-18": 28.0, "plain-34": 28.6, "ResNet-18": 27.8, "ResNet-34": 26.0}
    for net, error in errors.items():
        plan = table2.RUNS[net]
        finished_run(tmp_path / net, plan, evaluation(net=model_name(plan.spec.model), top1_error=error))
    outcome = fill("table2", table2.EXPERIMENT, Settings(run_root=tmp_path, roots=()))
    filled = {row.row.run: row for row in outcome.rows if row.row.budget == "full"}
    assert filled["plain-34 (imagenet.plain34)"].ours == 28.6
    assert filled["plain-34 (imagenet.plain34)"].verdict == "PASS"
    assert filled["ResNet-34 (imagenet.resnet34_a)"].verdict == "FAIL"  # 0.97 off
    assert filled["plain-34 - plain-18"].ours == pytest.approx(0.6)
    assert filled["ResNet-18 - ResNet-34"].verdict == "FAIL"  # 1.8 of at least 2
    assert filled["plain-34 - ResNet-34"].verdict == "PASS"


def test_a_finished_run_that_was_not_tested_says_how_to_test_it(tmp_path):
    finished_run(tmp_path / "plain-18", table2.RUNS["plain-18"])
    outcome = fill("table2", table2.EXPERIMENT, Settings(run_root=tmp_path, roots=()))
    (row,) = [row for row in outcome.rows if row.row.run == "plain-18 (imagenet.plain18)"]
    assert row.ours is None
    assert "--protocol ten-crop --json >" in row.reason


@pytest.mark.parametrize(("planned", "protocol"), [(table2, "ten-crop"), (table3, "ten-crop"), (table4, "dense")])
@pytest.mark.parametrize("budget", ["check", "full"])
def test_a_model_folder_alone_fills_no_row_and_the_reason_says_what_goes_where(tmp_path, planned, protocol, budget):
    folder = tmp_path / "resnet50"
    folder.mkdir()
    # As the package writes it: neither the run that led to the weights nor the protocol of its errors.
    metrics = {"split": "validation", "images": 50_000, "top1_error": 22.9, "top5_error": 6.7}
    (folder / "config.json").write_text(json.dumps({"format_version": 1, "name": "resnet50", "metrics": metrics}))
    (folder / "evaluation.json").write_text(json.dumps(evaluation(protocol, "resnet50")))
    outcome = fill("table", planned.EXPERIMENT, Settings(run_root=tmp_path, roots=(), budget=budget))
    rows = [row for row in outcome.rows if isinstance(row.row.ours, FromRuns)]
    assert rows
    for row in rows:
        assert row.ours is None
        assert all(part in row.reason for part in ("metrics.jsonl", f"{protocol}.json", "a model folder alone"))


def test_an_evaluation_in_the_model_folder_of_a_run_is_read(tmp_path):
    run = finished_run(tmp_path / "run", PLAN)
    (run.path / "model").mkdir()
    (run.path / "model" / "config.json").write_text(json.dumps({"metrics": {"top1_error": 27.0}}))
    (run.path / "model" / "ten-crop.json").write_text(json.dumps(evaluation()))
    assert error_under("ten-crop", "top1_error")(run) == 25.1


def test_the_gain_of_dense_testing_needs_both_protocols(tmp_path):
    run = finished_run(tmp_path / "run", table4.RUNS["ResNet-50"], evaluation(net="resnet50", top1_error=23.0))
    outcome = fill("table4", table4.EXPERIMENT, Settings(run_root=tmp_path, roots=()))
    assert all(row.ours is None for row in outcome.rows if row.row.budget == "full")
    (run.path / "dense.json").write_text(json.dumps(evaluation("dense", "resnet50", top1_error=20.9, top5_error=5.3)))
    outcome = fill("table4", table4.EXPERIMENT, Settings(run_root=tmp_path, roots=()))
    (gain,) = [row for row in outcome.rows if row.row.run == "ResNet-50"]
    assert gain.ours == pytest.approx(2.1)
    assert gain.verdict == "PASS"
