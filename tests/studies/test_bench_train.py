"""The training and the prediction benchmark in small, in this process: their rows, and that all do the same work."""

import functools
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import resnets
from resnets.engine.device import use
from resnets.recipes.find import recipe
from resnets.specs.data import Color, Mix, NoPolicy
from resnets.specs.errors import DeviceError, UserError
from resnets.specs.run import Machine
from resnets.studies import bench_nets, bench_predict, bench_steps, bench_train
from resnets.studies.bench import Need, benchmark
from resnets.studies.bench_nets import NetAlone, UsualPrediction
from resnets.studies.bench_steps import OurTraining, UsualTraining, usual_transform

CPU = Machine(device="cpu", workers=0)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    def here(systems, **options):
        return benchmark(systems, **options | {"own_process": False})

    for module in (bench_train, bench_predict):
        monkeypatch.setattr(module, "benchmark", here)


def train(name, **options):
    return bench_train.bench_train(name, **{"rounds": 1, "steps": 1, "machine": CPU, "quiet": True} | options)


def test_ours_and_the_usual_way_at_its_best_are_measured_in_each_precision():
    found = train("digits.resnet8", batch=16)
    names = ["usual, fp32", "usual, fp32, NHWC", "resnets, fp32", "usual, bf16, NHWC", "resnets, bf16"]
    assert [row.system for row in found.rows] == names
    assert all(row.images_per_second is not None for row in found.rows), [row.reason for row in found.rows]
    facts = found.rows[-1].facts
    assert (facts["precision"], facts["channels_last"], facts["compile"]) == ("bf16", True, False)
    assert found.settings["data"] == "images"


def test_both_sides_compute_in_full_fp32_and_the_one_row_that_does_not_says_so(monkeypatch):
    convolutions, cudnn, make = [], torch.backends.cudnn, bench_steps.fixed_batch
    monkeypatch.setattr(cudnn, "allow_tf32", True)  # and it is so again in the end
    monkeypatch.setattr(bench_train, "has_tf32", lambda device: True)
    monkeypatch.setattr(bench_steps, "use", lambda device: use(torch.device("cuda")))
    monkeypatch.setattr(bench_steps, "set_up", lambda device, machine: use(torch.device("cuda")))

    def seen(*arguments):
        convolutions.append(cudnn.conv.fp32_precision)
        return make(*arguments)

    monkeypatch.setattr(bench_steps, "fixed_batch", seen)
    rows = train("digits.resnet8", batch=2, precisions=["fp32"], step_only=True).rows
    assert [row.system for row in rows] == ["usual, fp32", "usual, TF32", "usual, fp32, NHWC", "resnets, fp32"]
    assert convolutions == ["ieee", "tf32", "ieee", "ieee"]
    assert [row.facts["precision"] for row in rows] == ["fp32", "tf32", "fp32", "fp32"]
    assert [row.system for row in rows if "TF32" in row.note] == ["usual, TF32"]


def test_the_ladder_adds_one_measure_after_the_other():
    usable = ["fp32", "bf16"]
    systems = bench_train.ladder_systems(_common(recipe("cifar10.resnet8")), 0, torch.device("cpu"), usable)
    settings = [(one.precision, one.channels_last, getattr(one, "keep_memory", False), one.compile) for one in systems]
    assert settings == [
        ("fp32", False, False, False),
        ("fp32", False, False, False),
        ("fp32", True, False, False),
        ("fp32", True, True, False),
        ("fp32", True, True, True),
        ("bf16", True, True, False),
        ("bf16", True, True, True),
    ]
    assert len({one.name for one in systems}) == len(systems)


@pytest.mark.parametrize(
    ("kind", "usable", "names"),
    [
        ("mps", ["fp32"], ["... compiled"]),
        ("cuda", ["fp32"], ["... NHWC", "... compiled"]),
        ("cuda", ["fp32", "bf16"], ["... NHWC", "... compiled", "... bf16, not compiled", "... bf16, compiled"]),
    ],
)
def test_the_ladder_has_no_measure_that_the_device_cannot_take(kind, usable, names):
    systems = bench_train.ladder_systems(_common(recipe("cifar10.resnet8")), 0, torch.device(kind), usable)
    assert [one.name for one in systems[2:]] == names
    assert all(one.channels_last == (kind == "cuda") for one in systems[2:])


def test_a_precision_that_the_device_does_not_have_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(bench_train, "choose_device", lambda name: torch.device("mps"))
    with pytest.raises(DeviceError, match="bf16 is not supported on mps"):
        train("digits.resnet8", precisions=["bf16"])


def test_images_of_the_usual_way_can_be_sent_to_workers_that_were_not_forked():
    spec, split = bench_steps.split_for(UsualTraining(name="a", **_common(recipe("cifar10.resnet8"))))
    assert split is not None
    images = bench_steps._Images(spec, split)
    assert len(pickle.loads(pickle.dumps(images))) == len(images)


def _common(spec, **changes):
    common = {"spec": spec, "root": None, "data": "noise", "device": "cpu", "workers": 0, "steps": 1, "images": 8}
    return common | changes


def test_compiled_nets_are_measured_for_both_sides_where_asked():
    common = _common(recipe("cifar10.resnet8"))
    systems = bench_train.training_systems(common, ["bf16"], 0, channels_last=True, compiled=True)
    assert [(type(one).__name__, one.name) for one in systems if one.compile] == [
        ("UsualTraining", "usual, bf16, compiled"),
        ("OurTraining", "resnets, bf16, compiled"),
    ]


def test_a_folder_is_read_and_without_one_the_step_alone_is_measured(photos):
    spec = recipe("folder.scratch")
    spec = replace(spec, dataset=replace(spec.dataset, image_px=32, resize_px=36))
    read = train(spec, data=photos, batch=2, precisions=["fp32"], only=["resnets"])
    assert (read.settings["data"], [row.system for row in read.rows]) == ("images", ["usual, fp32", "resnets, fp32"])
    assert all(row.images_per_second is not None for row in read.rows), [row.reason for row in read.rows]
    alone = train(spec, batch=2, precisions=["fp32"], only=["resnets"])
    assert (alone.settings["data"], alone.settings["workers"]) == ("none", 0)
    assert all(row.images_per_second is not None for row in alone.rows), [row.reason for row in alone.rows]


def test_what_only_ours_has_is_left_out():
    spec = replace(recipe("imagenet.resnet18"), ema_decay=0.9, erase_probability=0.5)
    spec = bench_train.comparable(spec, 32)
    assert (spec.color, spec.policy, spec.mix) == (Color(), NoPolicy(), Mix())
    assert (spec.ema_decay, spec.erase_probability, spec.global_batch) == (0.0, 0.0, 32)
    assert bench_train.comparable(recipe("folder.finetune"), None).dataset.image_px == 224


def test_both_steps_lower_the_loss_on_one_batch(monkeypatch):
    spec = bench_train.comparable(recipe("cifar10.resnet8"), 16)
    torch.manual_seed(0)
    images, labels = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    monkeypatch.setattr(bench_steps, "fixed_batch", lambda *_: (images, labels))
    built = []
    for name in ("build", "usual_model"):
        make = getattr(bench_steps, name)
        monkeypatch.setattr(bench_steps, name, lambda *a, make=make, **k: built.append(make(*a, **k)) or built[-1])
    for kind in (OurTraining, UsualTraining):
        prepared = kind(name="a", **_common(spec, data="none", steps=8)).prepare()
        model = built[-1].train()
        before = torch.nn.functional.cross_entropy(model(images), labels).item()
        assert prepared.run(0) > 0
        assert torch.nn.functional.cross_entropy(model(images), labels).item() < before


@pytest.mark.parametrize(("name", "shape"), [("cifar10.resnet8", (3, 32, 32)), ("imagenet.resnet18", (3, 224, 224))])
def test_the_usual_transforms_give_normalised_crops_of_the_recipe(name, shape):
    image = Image.fromarray(np.full((300, 400, 3), 124, np.uint8))
    crop = usual_transform(recipe(name))(image)
    assert crop.shape == shape
    if shape[1] == 224:  # nothing is padded
        assert crop.abs().max() < 0.4


def test_shards_are_refused_where_the_usual_way_cannot_read_them(photos, tmp_path):
    resnets.prepare(photos, tmp_path / "shards", workers=0)
    with pytest.raises(UserError, match="holds shards"):
        train("folder.scratch", data=tmp_path / "shards")


def test_wrong_numbers_are_refused():
    with pytest.raises(UserError, match="--steps is 0"):
        train("digits.resnet8", steps=0)
    with pytest.raises(UserError, match="--batch is 0"):
        train("digits.resnet8", batch=0)
    with pytest.raises(UserError, match="--precision fp64"):
        train("digits.resnet8", precisions=["fp64"])
    with pytest.raises(DeviceError, match="tpu"):
        train("digits.resnet8", machine=Machine(device="tpu"))


predict = functools.partial(bench_predict.bench_predict, rounds=1, seconds=0.0, machine=CPU, quiet=True)


def test_predictions_are_measured_for_each_batch_from_files_and_of_the_net_alone():
    one, two = predict("cifar-resnet8", batches=[1, 2], precisions=["fp32", "bf16"])
    for found, batch in ((one, 1), (two, 2)):
        rows = {row.system: row for row in found.rows}
        assert all(row.images_per_second is not None for row in found.rows), [row.reason for row in found.rows]
        assert {row.facts["batch"] for row in found.rows} == {batch}
        assert rows["resnets predict, from files"].against == "script, from files"
        net = rows["resnets net, folded, NHWC"]
        assert (net.against, net.facts["folded"]) == ("usual net", True)
        assert net.facts["logit_difference"] < 1e-4
        assert rows["resnets net, folded, NHWC, bf16"].facts["precision"] == "bf16"
        assert net.call_ms[0] <= net.call_ms[1]
    assert "random" in one.notes[0]


def test_a_script_predicts_in_full_fp32_as_ours_does(monkeypatch, tmp_path):
    used = []
    monkeypatch.setattr(bench_nets, "use", used.append)
    source, *_ = bench_predict._model("cifar-resnet8", tmp_path)
    paths = bench_predict._photographs(None, tmp_path, 1)
    UsualPrediction(name="a", images=1, model=source, device="cpu", photographs=paths).prepare()
    assert used == [torch.device("cpu")]


def test_a_prediction_is_timed_until_the_device_has_ended_it(monkeypatch, tmp_path):
    waited = []
    monkeypatch.setattr(bench_nets, "wait_for", waited.append)
    source, *_ = bench_predict._model("cifar-resnet8", tmp_path)
    prepared = NetAlone(name="a", images=1, model=source, device="cpu", net="ours").prepare()
    prepared.run(0)
    assert waited == [torch.device("cpu")] * 2  # the first answer, which has a time of its own, and this one


def test_a_peer_that_is_not_installed_is_listed(monkeypatch):
    monkeypatch.setattr(bench_predict, "Need", lambda *_: Need("no_such_module_at_all", "no-such-package"))
    (found,) = predict("resnet18", batches=[1], only=["timm"])
    (row,) = [row for row in found.rows if "timm" in row.system]
    assert (row.reason, row.hint) == ("not installed", "pip install no-such-package")


def test_a_net_that_computes_something_else_fails(monkeypatch, tmp_path):
    monkeypatch.setattr("resnets.studies.bench_nets.usual_net", lambda stored: torch.nn.Sequential(torch.nn.Flatten()))
    source, stored, _ = bench_predict._model("cifar-resnet8", tmp_path)
    system = NetAlone(name="a", images=1, model=source, device="cpu", net="usual")
    assert stored.name == "cifar-resnet8"
    with pytest.raises(Exception, match=r"differ|size"):
        system.prepare()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "resnet51"}, "Did you mean resnet5?"),
        ({"batches": [0]}, "--batch is 0"),
        ({"batches": []}, "--batch names no size"),
        ({"seconds": -1.0}, "--seconds is -1"),
        ({"precisions": ["int3"]}, "--precision int3"),
        ({"rounds": 0}, "--rounds is 0"),
    ],
)
def test_wrong_input_of_predictions_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        predict(**{"model": "cifar-resnet8"} | options)
