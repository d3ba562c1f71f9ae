"""What commands and functions set a device to, in order, without a GPU."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import resnets
from resnets.analysis import attribution, responses
from resnets.artifacts.model_folder import StoredModel
from resnets.cli import flags
from resnets.cli.main import main
from resnets.cli.train import _parser
from resnets.data.preprocess import Preprocessor
from resnets.data.sources import FolderFiles
from resnets.data.splits import FileSplit, ResidentSplit
from resnets.engine.distributed import Distributed
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.preprocess import Preprocess
from resnets.specs.protocol import PROTOCOLS
from resnets.tasks.classify import predict as prediction
from resnets.tasks.classify import score, train

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
QUICK = {"device": "cpu", "workers": 0, "checkpoint_every": 100}


@pytest.fixture
def stored():
    spec = model_spec("cifar-resnet8", num_classes=3)
    preprocessor = Preprocessor(Preprocess(resize_px=16, crop_px=16, mean=(120.0,) * 3, std=(60.0,) * 3))
    return StoredModel(
        model=build(spec, seed=0).eval(), spec=spec, preprocessor=preprocessor, classes=("a", "b", "c"), metrics={}
    )


@pytest.mark.parametrize(
    ("module", "compute"),
    [
        (prediction, lambda net: list(prediction.predict(net, IMAGES, device=CPU))),
        (attribution, lambda net: attribution.class_activation_maps(net, IMAGES, [0, 1, 2, 0])),
        (attribution, lambda net: attribution.grad_cam(net, IMAGES, [0, 1, 2, 0])),
        (responses, lambda net: responses.responses_on(net, ResidentSplit(images=IMAGES, labels=np.zeros(4, int)))),
    ],
)
def test_a_device_is_set_to_full_fp32_wherever_a_net_computes(stored, monkeypatch, module, compute):
    used = []
    monkeypatch.setattr(module, "use", used.append)
    compute(stored)
    assert used == [CPU]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_only_the_many_shapes_of_dense_testing_take_algorithms_untried(stored, tmp_path, monkeypatch, name):
    paths = tuple(tmp_path / f"{number}.png" for number in range(4))
    for path, pixels in zip(paths, IMAGES, strict=True):
        Image.fromarray(pixels).save(path)
    split = FileSplit(images=FolderFiles.of(paths), labels=np.zeros(4, int))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    tried = set()
    # What `_ViewScorer` prepares before its first image is one pass of one shape.
    monkeypatch.setattr(score, "_window", lambda *arguments: 4)
    stored.model.conv1.register_forward_hook(lambda *arguments: tried.add(torch.backends.cudnn.benchmark))
    batches = score.scored_batches(
        stored.model,
        split,
        stored.preprocessor,
        protocol=PROTOCOLS[name],
        ranks=Distributed(device=CPU),
        precision="fp32",
        channels_last=False,
        workers=0,
    )
    for _ in batches:
        assert torch.backends.cudnn.benchmark
    assert tried == {name != "dense"}


def test_training_evaluation_included_happens_in_the_deterministic_block(digits_spec, tmp_path, monkeypatch):
    order = []

    @contextmanager
    def block(device, machine):
        order.append(("begin", device, machine.deterministic))
        yield
        order.append("end")

    def noted(name, function):
        monkeypatch.setattr(train, name, lambda *given, **named: order.append(name) or function(*given, **named))

    monkeypatch.setattr(train, "deterministic", block)
    for name in ("set_up", "initial_state", "train_loop", "_finish"):
        noted(name, getattr(train, name))
    machine = resnets.Machine(**QUICK, deterministic=True)
    resnets.train(digits_spec, run=tmp_path / "run", machine=machine, quiet=True)
    assert order == ["set_up", ("begin", CPU, True), "initial_state", "train_loop", "_finish", "end"]


def test_on_the_cpu_deterministic_changes_no_bit_and_no_setting(digits_spec, tmp_path):
    runs = [tmp_path / "plain", tmp_path / "deterministic"]
    for run, wanted in zip(runs, (False, True), strict=True):
        machine = resnets.Machine(**QUICK, deterministic=wanted)
        resnets.train(digits_spec, run=run, machine=machine, quiet=True)
        assert not torch.are_deterministic_algorithms_enabled()
    plain, deterministic = (resnets.load(run).model.state_dict() for run in runs)
    assert all(torch.equal(value, deterministic[name]) for name, value in plain.items())


def test_the_flag_reaches_the_machine():
    assert flags.machine(_parser().parse_args(["digits.resnet8", "--deterministic"])).deterministic
    assert not flags.machine(_parser().parse_args(["digits.resnet8"])).deterministic


@pytest.mark.parametrize("command", ["train", "compare", "reproduce", "doctor"])
def test_what_trains_has_the_flag(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--deterministic" in capsys.readouterr().out
