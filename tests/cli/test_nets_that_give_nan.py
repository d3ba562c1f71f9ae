"""Nets whose scores are no finite numbers, tested and asked for predictions."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import resnets
from resnets.cli.main import main
from resnets.specs.errors import DivergedError, ModelError

QUICK = resnets.Machine(device="cpu", workers=0, threads=1, checkpoint_every=1)
EVALUATE = ["--data", "digits", "--device", "cpu", "--workers", "0"]


def strict(text):
    """Return a JSON document; NaN and Infinity, which Python reads, are no JSON."""

    def refused(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refused)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a rate so high that the loss is NaN at step 2; the weights of step 1 are finite, the scores are not."""
    run = tmp_path_factory.mktemp("diverged") / "run"
    spec = resnets.recipe("digits.resnet8")
    spec = dataclasses.replace(spec, steps=60, optimizer=dataclasses.replace(spec.optimizer, base_lr=3e18))
    with pytest.raises(DivergedError, match=r"at step 2 .*checkpoint of step 1"):
        resnets.train(spec, run=run, machine=QUICK, quiet=True)
    return run


@pytest.fixture
def diverged(trained, tmp_path, monkeypatch):
    """That run under a short name, and a folder of two images beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "dv")
    (tmp_path / "images").mkdir()
    for number in range(2):
        pixels = np.full((8, 8), 100 * number + 20, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return "dv"


@pytest.mark.parametrize("flags", [[], ["--json"], ["--features", "out.npz"]], ids=["table", "json", "features"])
def test_a_net_that_gives_nan_predicts_nothing(diverged, tmp_path, capsys, flags):
    assert main(["predict", diverged, "images", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "run that diverged at step 2; these are the weights of step 1 of 60." in err
    assert "gives NaN or infinity for images/0.png; its weights are damaged, or training diverged." in err
    assert not (tmp_path / "out.npz").exists()


def test_an_evaluation_says_that_the_net_gives_nan_and_counts_every_image(diverged, capsys):
    assert main(["evaluate", diverged, *EVALUATE]) == 0
    out, err = capsys.readouterr()
    assert "warning: dv: the net gives NaN for every image of the test split; its weights are of no use." in err
    assert "diverged at step 2" in out
    assert "nan" not in out.lower()
    table = out.split("error of each class")[1].split("images by true class")[0].splitlines()[2:]
    rows = [line.split() for line in table if line.strip()]
    assert sum(int(images) for _, images, *_ in rows) == 360
    assert {row[2] for row in rows} == {"100.00"}


def test_the_json_of_an_evaluation_is_json_where_the_loss_is_nan(diverged, capsys):
    for flags in ([], ["--save-scores", "scores.npz"]):
        assert main(["evaluate", diverged, *EVALUATE, "--json", *flags]) == 0
        out, err = capsys.readouterr()
        report = strict(out)
        assert (report["loss"], report["without_prediction"], report["images"]) == (None, 360, 360)
        assert sum(report["per_class_images"].values()) == 360
        assert len(report["warnings"]) == 1
        assert f"warning: {report['warnings'][0]}" in err


def spoilt(net, change):
    """Return the classifier with its scores changed: `change` takes the images and the logits."""

    class Spoilt(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net.model

        def forward(self, images):
            return change(images, self.inner(images))

    return resnets.api.Classifier(dataclasses.replace(net.stored, model=Spoilt().eval()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    spec = dataclasses.replace(resnets.recipe("digits.resnet8"), steps=2)
    resnets.train(spec, run=run, machine=QUICK, quiet=True)
    return run


def test_nan_for_some_images_is_named_where_it_is_met(finished):
    def change(images, logits):
        bright = images.flatten(1).mean(1) > 0
        return torch.where(bright[:, None], torch.nan, logits)

    net = spoilt(resnets.load(finished), change)
    report = resnets.evaluate(net, data="digits", machine=QUICK)
    some = report["without_prediction"]
    assert 0 < some < 360
    assert np.sum(report["confusion"]) == 360 - some
    assert f"gives NaN for {some} of 360 images of the test split" in report["warnings"][0]
    dark, bright = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    results = net.predict_each([dark, bright])
    assert len(next(results)) == 5
    with pytest.raises(ModelError, match="NaN or infinity for image 2;"):
        next(results)


def test_a_class_ruled_out_by_minus_infinity_has_probability_0(finished):
    def change(images, logits):
        return torch.cat([torch.full_like(logits[:, :1], -torch.inf), logits[:, 1:]], 1)

    net = spoilt(resnets.load(finished), change)
    ranked = net.predict(np.zeros((8, 8), np.uint8), top_k=10)[0]
    assert (ranked[-1].label, ranked[-1].probability) == ("0", 0)
    report = resnets.evaluate(net, data="digits", machine=QUICK)
    assert (report["loss"], report["without_prediction"]) == (None, 0)
    assert "the loss on the test split is not a finite number" in report["warnings"][0]


def test_a_net_that_works_gives_no_warning(finished):
    report = resnets.evaluate(finished, data="digits", machine=QUICK)
    assert (report["warnings"], report["without_prediction"]) == ([], 0)
    assert report["per_class_images"] == {
        name: sum(row) for name, row in zip(report["classes"], report["confusion"], strict=True)
    }
