"""Caffe's files through the whole conversion: read, completed, proven on images, written, read back."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from resnets.artifacts.completion import read_mean_image
from resnets.artifacts.conversion import convert, import_foreign
from resnets.artifacts.formats import FORMATS
from resnets.artifacts.model_folder import StoredModel, load_model, save_model
from resnets.data.preprocess import Preprocessor
from resnets.models.build import build
from resnets.models.interop.caffe import read_mean, write_mean
from resnets.models.interop.foreign import Hints
from resnets.specs.errors import ModelError
from resnets.specs.model import ResNetSpec
from resnets.specs.preprocess import Preprocess

SPEC = ResNetSpec(
    block="bottleneck", blocks=(1, 1), widths=(4, 8), stem="7x7", stem_pool="official", shortcut="B", num_classes=3
)
NAMES = ("cat", "dog", "owl")


@pytest.fixture
def mean_image():
    return np.random.default_rng(0).uniform(90, 130, (256, 256, 3)).astype(np.float32)


@pytest.fixture
def stored(mean_image):
    """A trained net, with counters of batches, that subtracts a mean image."""
    model = build(SPEC, seed=0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.num_batches_tracked.fill_(600_000)
            norm.running_var.uniform_(0.5, 1.5)
    preprocess = Preprocess(resize_px=256, crop_px=224, mean_image=True)
    return StoredModel(
        model=model.eval(), spec=SPEC, preprocessor=Preprocessor(preprocess, mean_image[16:240, 16:240].copy()),
        classes=NAMES, metrics={}, licence="CC BY 4.0",
    )  # fmt: skip


def test_a_net_goes_to_caffe_and_comes_back_with_its_mean_image(stored, tmp_path):
    written = convert(stored, tmp_path / "caffe", to="caffe")
    assert {file.name for file in (tmp_path / "caffe").iterdir()} == {
        "net.caffemodel", "deploy.prototxt", "mean.binaryproto",
    }  # fmt: skip
    assert written.proof.max_difference <= 1e-4 * written.proof.largest_logit
    back = convert(tmp_path / "caffe", tmp_path / "ours", Hints(classes=NAMES, licence="CC BY 4.0"))
    assert back.source_format == "caffe"
    again = load_model(tmp_path / "ours")
    assert again.spec == SPEC
    assert again.preprocessor.same_as(stored.preprocessor)
    assert again.licence == stored.licence
    for name, value in stored.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(again.model.state_dict()[name], value), name


def test_a_file_alone_asks_for_its_mean_and_takes_the_centre_of_a_larger_one(stored, mean_image, tmp_path):
    convert(stored, tmp_path / "caffe", to="caffe")
    path = tmp_path / "caffe" / "net.caffemodel"
    (tmp_path / "caffe" / "mean.binaryproto").unlink()
    with pytest.raises(ModelError, match="--mean-image FILE"):
        import_foreign(path, Hints(classes=NAMES))
    write_mean(tmp_path / "mean.binaryproto", mean_image)
    large = np.ascontiguousarray(read_mean(tmp_path / "mean.binaryproto")[:, :, ::-1])
    again = import_foreign(path, Hints(classes=NAMES, mean_image=large))
    assert again.preprocessor.same_as(stored.preprocessor)


def test_a_mean_image_that_lies_beside_a_net_is_named_and_not_guessed(stored, tmp_path):
    preprocess = Preprocess(resize_px=73, crop_px=64, mean_image=True)
    image = np.random.default_rng(1).uniform(90, 130, (64, 64, 3)).astype(np.float32)
    small = dataclasses.replace(stored, preprocessor=Preprocessor(preprocess, image))
    folder = tmp_path / "two words"
    convert(small, folder, to="caffe")
    named = f"--mean-image '{folder}/mean.binaryproto', which lies there,"
    for path in (folder, folder / "net.caffemodel"):
        with pytest.raises(ModelError) as caught:
            import_foreign(path, Hints(classes=NAMES))
        assert f"; or {named} in the place of both)" in str(caught.value)
        with pytest.raises(ModelError) as caught:
            import_foreign(path, Hints(classes=NAMES, std=(58.4, 57.1, 57.4)))
        assert f"; or {named} in the place of it)" in str(caught.value)
    again = import_foreign(folder, Hints(classes=NAMES, mean_image=read_mean_image(folder / "mean.binaryproto", None)))
    assert again.preprocessor.same_as(small.preprocessor)


def test_a_net_for_bgr_images_goes_to_caffe_as_it_is(stored, tmp_path):
    first = stored.model.state_dict()["conv1.weight"]
    preprocess = dataclasses.replace(stored.preprocessor.spec, color="bgr")
    bgr = dataclasses.replace(stored, preprocessor=Preprocessor(preprocess, stored.preprocessor.mean_image))
    convert(bgr, tmp_path / "caffe", to="caffe")
    again = import_foreign(tmp_path / "caffe", Hints(classes=NAMES))
    assert again.preprocessor.spec.color == "rgb"
    assert torch.equal(again.model.state_dict()["conv1.weight"], first.flip(1))
    assert np.array_equal(again.preprocessor.mean_image, stored.preprocessor.mean_image[:, :, ::-1])


def test_nothing_stays_of_a_net_that_caffe_cannot_express(stored, tmp_path):
    spec = dataclasses.replace(SPEC, shortcut="A")
    save_model(tmp_path / "ours", dataclasses.replace(stored, model=build(spec, seed=0).eval(), spec=spec))
    with pytest.raises(ModelError, match="option A"):
        convert(load_model(tmp_path / "ours"), tmp_path / "caffe", to="caffe")
    assert [file.name for file in tmp_path.iterdir()] == ["ours"]


def test_a_mean_image_that_does_not_read_back_is_refused(stored, tmp_path, monkeypatch):
    entry = FORMATS["caffe"]

    def write(path, net):
        entry.write(path, net)
        write_mean(path / "mean.binaryproto", net.mean_image + np.float32(0.5))

    monkeypatch.setitem(FORMATS, "caffe", entry._replace(write=write))
    with pytest.raises(ModelError, match=r"mean\.binaryproto is not the mean image"):
        convert(stored, tmp_path / "caffe", to="caffe")
    assert not list(tmp_path.iterdir())


def test_a_mean_image_of_one_channel_has_no_place_in_caffe(stored, tmp_path):
    spec = dataclasses.replace(SPEC, in_channels=1)
    preprocess = Preprocess(resize_px=64, crop_px=64, color="gray", mean=(0.0,), std=(1.0,), mean_image=True)
    image = np.full((64, 64, 1), 100.0, dtype=np.float32)
    gray = dataclasses.replace(
        stored, spec=spec, model=build(spec, seed=0).eval(), preprocessor=Preprocessor(preprocess, image)
    )
    with pytest.raises(ModelError, match="its mean image has one channel"):
        convert(gray, tmp_path / "caffe", to="caffe")
    assert not list(tmp_path.iterdir())


def test_the_mean_image_beside_an_rgb_net_keeps_its_order(stored, tmp_path):
    convert(stored, tmp_path / "caffe", to="caffe")
    as_bgr = import_foreign(tmp_path / "caffe", Hints(classes=NAMES))
    as_rgb = import_foreign(tmp_path / "caffe", Hints(classes=NAMES, color="rgb"))
    # The same bytes, read in the order that the net is said to take.
    assert np.array_equal(as_rgb.preprocessor.mean_image, as_bgr.preprocessor.mean_image[:, :, ::-1])
    assert torch.equal(as_rgb.model.conv1.weight, as_bgr.model.conv1.weight.flip(1))
