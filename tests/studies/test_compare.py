"""A comparison from its runs to its result: paired, resumable, and refused where it would compare nothing."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import resnets
from resnets.artifacts.found_runs import FoundRun, find_runs
from resnets.artifacts.run_log import RunLog
from resnets.data.batches import training_batches
from resnets.data.digits import open_digits
from resnets.data.open import open_dataset
from resnets.data.preprocess import preprocess_for
from resnets.metrics.paired import paired_difference
from resnets.models.build import build
from resnets.specs.data import Cifar, Digits, ImageFolder, PadCrop
from resnets.specs.errors import DivergedError, ModelError, RunError, TrainingError, UserError
from resnets.specs.finetune import GivenWeights
from resnets.specs.model import ResNetSpec
from resnets.specs.optim import Cosine
from resnets.specs.run import Machine
from resnets.studies import compare as study
from resnets.studies.differing import differing_fields, warnings
from resnets.studies.reuse import finished_elsewhere

CPU = Machine(device="cpu", threads=1, keep_checkpoints=1)


def short(name, **fields):
    return resnets.shorten(dataclasses.replace(resnets.recipe(name), **fields), 3)


A, B = short("digits.resnet8"), short("digits.plain8")


def run_study(folder, a=A, b=B, **options):
    return resnets.compare(a, b, run=folder, machine=CPU, quiet=True, **{"seeds": 2, "reuse": False, **options})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study of two seeds; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    return folder, run_study(folder)


@pytest.fixture
def copied(done, tmp_path):
    return shutil.copytree(done[0], tmp_path / "study")


def test_every_run_is_that_of_train_with_the_same_seed(done, tmp_path):
    folder, comparison = done
    alone = resnets.train(dataclasses.replace(B, seed=1), run=tmp_path / "alone", machine=CPU, quiet=True)
    assert comparison.outcomes["b"][1].top1_error == alone.metrics["top1_error"]
    ours = torch.load(folder / "b-seed1" / "checkpoints" / "step-00000003.pt", weights_only=True)["model"]
    theirs = torch.load(tmp_path / "alone" / "checkpoints" / "step-00000003.pt", weights_only=True)["model"]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_both_sides_of_a_seed_see_the_same_images_in_the_same_order(done):
    _, comparison = done
    assert comparison.specs["a"].augment == PadCrop(pad_px=1, flip=False)
    dataset = open_dataset(Digits())
    seen = []
    for side in ("a", "b"):
        spec = dataclasses.replace(comparison.specs[side], seed=1)
        preprocessor = preprocess_for(spec.dataset, dataset.splits["train"], None)
        batches = training_batches(
            dataset.splits["train"], preprocessor, spec,
            statistics=None, rank=0, world_size=1, device=torch.device("cpu"), channels_last=False, workers=0,
        )  # fmt: skip
        seen.append([batch.images.clone() for batch in itertools.islice(batches.batches(0), 3)])
        batches.close()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*seen, strict=True))


def test_a_plain_and_a_residual_net_of_a_seed_start_from_the_same_weights():
    ours, theirs = (build(spec.model, seed=3).state_dict() for spec in (A, B))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_result_is_that_of_the_runs(done):
    folder, comparison = done
    document = comparison.document()
    assert json.loads((folder / "compare.json").read_text()) == json.loads(json.dumps(document))
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert document["differing"] == ['model.shortcut: "A" -> "none"']
    assert [entry["seed"] for entry in document["seeds"]] == [0, 1]
    for entry in document["seeds"]:
        for side in ("a", "b"):
            stored = json.loads((folder / f"{side}-seed{entry['seed']}" / "model" / "config.json").read_text())
            assert entry[side]["top1_error"] == stored["metrics"]["top1_error"]
            assert entry[side]["seconds"] > 0
        assert entry["difference"] == entry["b"]["top1_error"] - entry["a"]["top1_error"]
    errors = [[entry[side]["top1_error"] for entry in document["seeds"]] for side in ("a", "b")]
    expected = paired_difference(*errors)
    assert document["test_error"]["difference"] == expected.mean
    assert document["test_error"]["interval"] == (None if expected.interval is None else list(expected.interval))
    assert document["a"]["parameters"] == document["b"]["parameters"] == 75_002
    assert document["images"] == 360
    pairs = [(entry["a"], entry["b"]) for entry in document["seeds"]]
    ratios = [b["seconds"] / a["seconds"] for a, b in pairs]
    assert document["time_ratio"] == pytest.approx(sum(ratios) / 2, abs=1e-3)  # the median of two
    assert comparison.labels == {"a": "digits.resnet8", "b": "digits.plain8"}
    twice = dataclasses.replace(comparison, specs={"a": A, "b": dataclasses.replace(A, label_smoothing=0.1)})
    assert twice.labels["b"] == "digits.resnet8, label_smoothing 0.1"


def test_the_same_command_trains_nothing_again_and_more_seeds_add_to_it(copied, monkeypatch):
    trained = []
    train = study.api.train
    monkeypatch.setattr(study.api, "train", lambda spec, **options: trained.append(options) or train(spec, **options))
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*.pt")}
    times = (copied / "study.json").read_text()
    run_study(copied)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*.pt")} == before
    assert (copied / "study.json").read_text() == times
    comparison = run_study(copied, seeds=3)
    assert len(comparison.seeds) == 3
    assert [call["run"].name for call in trained[4:]] == [
        "a-seed0",
        "b-seed0",
        "b-seed1",
        "a-seed1",
        "a-seed2",
        "b-seed2",
    ]
    assert comparison.outcomes["a"][2].seconds > 0


@pytest.mark.parametrize("seeds", range(1, 7))
def test_a_study_that_is_left_early_is_balanced_to_one_run(seeds):
    order = list(study.runs_in_order(4, seeds))
    assert set(order) == set(itertools.product("ab", range(4, 4 + seeds)))
    for length in range(len(order) + 1):
        sides = [side for side, _ in order[:length]]
        assert abs(sides.count("a") - sides.count("b")) <= 1


def test_a_run_that_was_killed_is_trained_on_and_is_not_timed(copied):
    run = copied / "a-seed0"
    shutil.rmtree(run / "model")
    document = json.loads((copied / "study.json").read_text())
    document["runs"]["a-seed0"]["open"] = True
    (copied / "study.json").write_text(json.dumps(document))
    comparison = run_study(copied)
    assert comparison.outcomes["a"][0].seconds is None
    assert comparison.outcomes["a"][1].seconds is not None
    assert comparison.document()["a"]["seconds"] == pytest.approx(comparison.outcomes["a"][1].seconds, abs=0.1)


@pytest.fixture
def elsewhere(done, tmp_path, monkeypatch):
    """The finished study as one among other runs, where a new one begins; with the runs that are trained from here on."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(done[0], tmp_path / "runs" / "other")
    trained = []
    train = study.api.train
    monkeypatch.setattr(
        study.api, "train", lambda spec, **options: trained.append(options["run"]) or train(spec, **options)
    )
    return trained


def test_runs_that_are_finished_elsewhere_are_taken_from_there(done, elsewhere, capsys):
    wider = dataclasses.replace(B, label_smoothing=0.1)
    comparison = resnets.compare(A, wider, seeds=2, run="runs/new", machine=CPU)
    assert [str(path) for path in elsewhere] == ["runs/new/b-seed0", "runs/new/b-seed1"]
    taken = comparison.outcomes["a"]
    assert [str(outcome.path) for outcome in taken] == ["runs/other/a-seed0", "runs/other/a-seed1"]
    assert [outcome.top1_error for outcome in taken] == [outcome.top1_error for outcome in done[1].outcomes["a"]]
    assert capsys.readouterr().err.count("is the same run; it is taken from there") == 2
    document = comparison.document()
    assert [entry[side]["reused"] for entry in document["seeds"] for side in ("a", "b")] == [True, False] * 2
    # Trained at another time, perhaps on another machine: no speed to compare with.
    assert document["a"]["images_per_second"] is document["speed_ratio"] is document["time_ratio"] is None
    assert document["b"]["images_per_second"] > 0
    # The study is gone on with as any other, also after the other one is gone.
    shutil.rmtree("runs/other")
    again = run_study("runs/new", A, wider, reuse=True)
    assert [path.name for path in elsewhere[2:]] == ["a-seed0", "b-seed0", "b-seed1", "a-seed1"]
    assert again.tested == comparison.tested


def test_a_study_may_consist_of_runs_from_elsewhere_and_be_given_again(done, elsewhere):
    for _ in range(2):
        assert run_study("runs/new", reuse=True).tested == done[1].tested
    assert elsewhere == []
    assert sorted(path.name for path in Path("runs/new").iterdir()) == ["compare.json", "compare.png", "study.json"]


def test_a_study_that_is_to_train_everything_takes_nothing_from_elsewhere(elsewhere):
    comparison = run_study("runs/new", seeds=1, reuse=False)
    assert [path.name for path in elsewhere] == ["a-seed0", "b-seed0"]
    assert not any(outcome.reused for side in comparison.outcomes.values() for outcome in side)


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(A, seed=2),
        dataclasses.replace(A, precision="bf16"),
        dataclasses.replace(A, evaluate_every_steps=2),
    ],
)
def test_a_run_of_another_spec_never_stands_for_one(elsewhere, other):
    found, images = find_runs([Path("runs")]), open_digits().fingerprint
    assert finished_elsewhere(A, found, Path("new"), images) is not None
    assert finished_elsewhere(A, found, Path("runs/other"), images) is None
    assert finished_elsewhere(other, found, Path("new"), images) is None


def test_a_run_whose_spec_does_not_say_all_about_it_is_trained(tmp_path):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(ResNetSpec):
        pass

    class Everything:
        def exactly(self, spec):
            return [FoundRun(path=tmp_path / name, spec=spec, log=RunLog()) for name in ("0", "1", "2")]

    for name in ("1", "2"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text(
            json.dumps({"format_version": 1, "model": {}, "dataset_fingerprint": name * 64})
        )
    for name in ("1", "2"):
        assert finished_elsewhere(A, Everything(), tmp_path / "new", name * 64).path == tmp_path / name
    assert finished_elsewhere(A, Everything(), tmp_path / "new", "3" * 64) is None
    for other in (
        dataclasses.replace(
            A, model=Mine(block="basic", blocks=(1,), widths=(8,), stem="3x3", shortcut="A")
        ),  # whose code may have changed
        dataclasses.replace(A, init=GivenWeights(source="model/")),
        short("folder.scratch"),
    ):
        assert finished_elsewhere(other, Everything(), tmp_path / "new", "1" * 64) is None


@pytest.mark.parametrize("other", ["0" * 64, None])
def test_a_run_from_elsewhere_on_other_images_is_trained_anew(elsewhere, other):
    config = Path("runs/other/a-seed0/model/config.json")
    document = json.loads(config.read_text()) | {"dataset_fingerprint": other}
    config.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    comparison = run_study("runs/new", seeds=1, reuse=True)
    assert [path.name for path in elsewhere] == ["a-seed0"]
    assert [comparison.outcomes[side][0].reused for side in "ab"] == [False, True]


def test_a_finished_study_is_no_answer_for_other_images(tmp_path):
    small = ImageFolder(image_px=32, resize_px=32)
    a = short("folder.scratch", dataset=small, model=A.model, global_batch=8)
    b = dataclasses.replace(a, label_smoothing=0.2)
    colours = {"cat": (200, 30, 30), "dog": (30, 200, 30)}
    for where in ("here", "there"):
        for name, colour in colours.items():
            (tmp_path / where / "photos" / name).mkdir(parents=True)
            for number in range(12 if where == "here" else 13):
                Image.new("RGB", (40, 40), colour).save(tmp_path / where / "photos" / name / f"{number}.png")
    run_study(tmp_path / "study", a, b, seeds=1, data=tmp_path / "here" / "photos")
    with pytest.raises(ModelError, match=r"was trained on other images than .*there"):
        run_study(tmp_path / "study", a, b, seeds=1, data=tmp_path / "there" / "photos")


def test_a_study_killed_in_its_first_run_is_gone_on_with(copied):
    for entry in copied.iterdir():
        if entry.name != "a-seed0":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    comparison = run_study(copied, seeds=1)
    assert comparison.outcomes["a"][0].seconds is None
    assert comparison.tested.interval is None
    assert "one seed" in comparison.sentences[0]


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        (A, B, {"seeds": 0}, "--seeds is 0; it is at least 1"),
        (A, B, {"first_seed": -1}, "seed is -1"),
        (A, "digits.resnt20", {}, "Did you mean digits.resnet20"),
        (A, short("cifar10.resnet20"), {}, "Digits and B on Cifar10.*--data"),
        (short("cifar10.resnet20"), short("cifar10.resnet20", dataset=Cifar(num_classes=100)), {}, "Cifar10 and B on"),
        (
            short("folder.scratch"),
            short("folder.scratch", dataset=ImageFolder(validation_fraction=0.2)),
            {},
            "divide the images differently.*dataset.validation_fraction",
        ),
        (A, B, {"data": "digitz"}, "digitz"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_and_nothing_is_written(tmp_path, a, b, options, words):
    with pytest.raises(UserError, match=words):
        run_study(tmp_path / "study", a, b, **options)
    assert not (tmp_path / "study").exists()


def test_a_side_that_cannot_be_trained_is_named(tmp_path):
    diverging = dataclasses.replace(B, optimizer=dataclasses.replace(B.optimizer, base_lr=1e30))
    with pytest.raises(TrainingError, match=r"B cannot be trained with seed 0.*not a finite number"):
        run_study(tmp_path / "study", A, diverging)


def test_a_run_that_diverged_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diverging = dataclasses.replace(B, optimizer=dataclasses.replace(B.optimizer, base_lr=1e30))
    run = tmp_path / "runs" / "one" / "b-seed0"
    with pytest.raises(DivergedError) as first:
        run_study(run.parent, A, diverging)
    assert str(first.value).endswith(f"It is kept in {run}; remove that folder to train it anew.")
    entries = (run / "metrics.jsonl").read_bytes()
    times = json.loads((run.parent / "study.json").read_text())["runs"]["b-seed0"]
    with pytest.raises(DivergedError, match=r"^B cannot be trained with seed 0.*step 2 ") as again:
        resnets.compare(A, diverging, run=run.parent, machine=dataclasses.replace(CPU, threads=2), quiet=True)
    assert str(again.value) == str(first.value)
    assert (run / "metrics.jsonl").read_bytes() == entries
    assert json.loads((run.parent / "study.json").read_text())["runs"]["b-seed0"] == times
    # Another study takes it from there, as it takes one that is finished.
    with pytest.raises(DivergedError, match="It is kept in runs/one/b-seed0; remove"):
        run_study(tmp_path / "runs" / "two", A, diverging, reuse=True)
    assert not (tmp_path / "runs" / "two" / "b-seed0").exists()
    with pytest.raises(DivergedError, match=r"It is kept in .*/two/b-seed0; remove"):
        run_study(tmp_path / "runs" / "two", A, diverging, reuse=False)


def test_a_run_that_diverged_on_other_images_says_nothing_of_these(tmp_path):
    log = tmp_path / "study" / "b-seed0" / "metrics.jsonl"
    diverging = dataclasses.replace(B, optimizer=dataclasses.replace(B.optimizer, base_lr=1e30))
    with pytest.raises(DivergedError):
        run_study(log.parents[1], A, diverging)
    log.write_text(log.read_text().replace(open_digits().fingerprint, "0" * 64))
    with pytest.raises(DivergedError):
        run_study(log.parents[1], A, diverging)
    assert open_digits().fingerprint in log.read_text()  # it was trained again


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        run_study(tmp_path / "study")


def test_the_size_of_the_images_may_be_what_differs():
    small, large = (
        short("folder.scratch", dataset=dataclasses.replace(resnets.recipe("folder.scratch").dataset, **size))
        for size in ({}, {"image_px": 64, "resize_px": 73})
    )
    study._check({"a": small, "b": large}, 1, 0, None)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, copied):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_text("")
    with pytest.raises(RunError, match=r"holds something else \(cat.jpg\)"):
        run_study(photos)
    with pytest.raises(RunError, match="is a file"):
        run_study(photos / "cat.jpg")
    assert [path.name for path in photos.iterdir()] == ["cat.jpg"]
    with pytest.raises(RunError, match=r'whose B is another \(model.shortcut: "none" -> "A"\)'):
        run_study(copied, A, A)
    with pytest.raises(RunError, match="holds something else"):
        run_study(copied / "a-seed0")


def test_damaged_runs_are_named_with_what_to_do(copied):
    metrics = copied / "b-seed1" / "metrics.jsonl"
    text = metrics.read_text()
    metrics.write_text("")
    with pytest.raises(RunError, match=r"b-seed1.*holds no errors. Delete .*b-seed1 and give the same command"):
        run_study(copied)
    metrics.write_text(text)
    config = copied / "a-seed1" / "model" / "config.json"
    document = json.loads(config.read_text())
    config.write_text(json.dumps(document | {"metrics": document["metrics"] | {"top1_error": "none"}}))
    with pytest.raises(ModelError, match=r"a-seed1.*garbles the errors"):
        run_study(copied)
    config.write_text(json.dumps(document | {"dataset_fingerprint": "0" * 64}))
    with pytest.raises(ModelError, match="a-seed1 is finished, and was trained on other images"):
        run_study(copied)
    config.write_text("{")
    with pytest.raises(ModelError, match="a-seed1"):
        run_study(copied)
    shutil.rmtree(copied / "a-seed1")
    assert run_study(copied).outcomes["a"][1].top1_error >= 0
    (copied / "study.json").write_text("[]")
    with pytest.raises(RunError, match=r"study\.json is damaged"):
        run_study(copied)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"seconds": "12 s"}, "seconds is '12 s'"),
        ({"seconds": None}, "seconds is None"),
        ({"seconds": True}, "seconds is True"),
        ({"seconds": -1}, "seconds is -1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": 10**400}, "seconds is 1000"),
        ({}, "lacks seconds"),
        ("12 s", "is '12 s'"),
    ],
)
def test_times_that_were_edited_by_hand_into_something_else_are_refused_in_a_line(copied, entry, words):
    shutil.rmtree(copied / "b-seed0" / "model")  # a run to go on with
    document = json.loads((copied / "study.json").read_text())
    document["runs"]["b-seed0"] = entry
    (copied / "study.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"study\.json is damaged: b-seed0 ") as refused:
        run_study(copied)
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_run_of_another_spec_in_its_place_is_refused(copied):
    for name in ("a-seed0", "a-seed1"):
        shutil.move(copied / name, copied / f"{name}.aside")
    shutil.move(copied / "a-seed1.aside", copied / "a-seed0")
    with pytest.raises(RunError, match=r"holds a run of another spec \(seed: 1 -> 0\)"):
        run_study(copied)


def test_fields_that_differ_are_named_and_a_net_of_another_class_is_one():
    cosine = dataclasses.replace(A, schedule=Cosine(), seed=4, recipe="mine")
    assert differing_fields(A, A) == []
    (line,) = differing_fields(A, cosine)
    assert line.startswith('schedule: "StepDecay(milestones_steps=[2], factor=0.1)" -> "Cosine(')
    assert len(differing_fields(short("digits.resnet8"), short("digits.highway8"))) == 1
    assert len(differing_fields(A, dataclasses.replace(cosine, label_smoothing=0.1))) == 2
    assert warnings(["one"]) == []
    assert "2 fields differ" in warnings(["one", "two"])[0]
    assert "Nothing differs" in warnings([])[0]


def test_repetitions_of_one_recipe_differ_by_nothing(tmp_path, capsys):
    comparison = resnets.compare(A, A, seeds=2, run=tmp_path / "same", machine=CPU)
    assert "warning: Nothing differs" in capsys.readouterr().err
    assert (comparison.tested.mean, comparison.tested.spread, comparison.tested.interval) == (0.0, 0.0, None)
    assert "A and B err equally with each of 2 seeds" in comparison.sentences[0]
    assert comparison.seeds_for_half is None


def test_the_default_folder_tells_studies_apart():
    recipe = resnets.recipe
    a, b = recipe("digits.resnet20"), recipe("digits.plain20")
    assert str(study.default_folder(a, b)) == "runs/compare-digits.resnet20-vs-digits.plain20"
    shortened = study.default_folder(resnets.shorten(a, 100), resnets.shorten(b, 100))
    assert str(shortened) == "runs/compare-digits.resnet20-vs-digits.plain20-100steps"
    changed = [dataclasses.replace(a, label_smoothing=share) for share in (0.1, 0.2)]
    folders = {study.default_folder(a, other) for other in (a, *changed)} | {study.default_folder(*changed)}
    assert len(folders) == 4
    named = dataclasses.replace(a, recipe="my.runs:mine/../..")
    assert study.default_folder(named, b, "photos/").parent.name == "runs"
