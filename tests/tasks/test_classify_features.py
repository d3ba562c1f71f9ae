"""Features out of any stage, in Python and as a file."""

import json
import os
import types

import numpy as np
import pytest
import torch
from PIL import Image

import resnets
from resnets.artifacts.model_folder import StoredModel, load_model, save_model
from resnets.cli.main import main
from resnets.data.decode import read_image
from resnets.data.preprocess import Preprocessor
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import DataError, ImageError, ModelError, UserError
from resnets.specs.preprocess import Preprocess
from resnets.tasks.classify import features as module


def small_net(name="cifar-resnet8", **fields):
    spec = model_spec(name, num_classes=3, **fields)
    model = build(spec, seed=0).eval()
    for key, value in model.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    preprocess = Preprocess(resize_px=36, crop_px=32, mean=(120.0,) * 3, std=(60.0,) * 3)
    return StoredModel(
        model=model, spec=spec, preprocessor=Preprocessor(preprocess), classes=("blue", "green", "red"), metrics={}
    )


@pytest.fixture
def net(tmp_path):
    save_model(tmp_path / "net", small_net())
    return resnets.load(tmp_path / "net")


@pytest.fixture
def images(tmp_path):
    """Forty photographs of different sizes, more than a batch."""
    random = np.random.default_rng(0)
    paths = []
    for index in range(40):
        path = tmp_path / "images" / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        height, width = random.integers(36, 60, 2)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def test_the_default_is_the_input_of_the_last_layer(net, images):
    values = net.features(images)
    assert values.shape == (40, 64)
    assert values.dtype == np.float32
    logits = values @ net.model.fc.weight.detach().numpy().T + net.model.fc.bias.detach().numpy()
    seen = net.predict(images, top_k=3)
    for row, ranked in zip(logits.astype(np.float64), seen, strict=True):
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        for one in ranked:
            assert one.probability == pytest.approx(probabilities[one.index], abs=1e-5)


@pytest.mark.parametrize(("stage", "layers", "shape"), [("conv2_x", 1, (16, 32, 32)), ("conv4_x", 3, (64, 8, 8))])
def test_a_stage_is_the_output_of_its_layer(net, images, stage, layers, shape):
    maps = net.features(images[:3], stage=stage, pooled=False)
    assert maps.shape == (3, *shape)
    assert maps.dtype == np.float32
    assert net.model.feature_shapes()[stage].channels == shape[0]
    for path, found in zip(images, maps, strict=False):
        pixels = torch.from_numpy(net.stored.preprocessor.read(path)).permute(2, 0, 1)[None].double()
        x = (pixels - 120) / 60
        double = load_model(path.parent.parent / "net").model.double()
        with torch.no_grad():
            x = torch.relu(double.bn1(double.conv1(x)))
            for number in range(1, layers + 1):
                x = double.get_submodule(f"layer{number}")(x)
        np.testing.assert_allclose(found, x[0].numpy(), rtol=0, atol=1e-4)
    pooled = net.features(images[:3], stage=stage)
    np.testing.assert_allclose(pooled, maps.mean(axis=(2, 3), dtype=np.float64), rtol=0, atol=1e-5)


def test_every_image_is_decoded_once_and_batches_make_no_difference(net, images, monkeypatch):
    alone = np.concatenate([net.features(path, stage="conv3_x") for path in images[:5]])
    read = []
    monkeypatch.setattr(
        "resnets.data.preprocess.read_image", lambda path, **rest: (read.append(path), read_image(path, **rest))[1]
    )
    together = net.features(images, stage="conv3_x")
    assert read == images
    np.testing.assert_allclose(together[:5], alone, rtol=0, atol=1e-5)


def test_single_images_arrays_and_tensors_are_taken(net, images):
    with Image.open(images[0]) as image:
        array = np.asarray(image)
        whole = net.features([images[0], str(images[0]), image, array, torch.from_numpy(array.copy()).permute(2, 0, 1)])
        assert net.features(image).shape == (1, 64)
    assert np.array_equal(whole, np.repeat(whole[:1], 5, axis=0))
    assert net.features([]).shape == (0, 64)
    assert net.features([], stage="conv2_x", pooled=False).shape == (0, 16, 32, 32)
    assert net.features([]).dtype == np.float32
    with pytest.raises(DataError, match="no image"):
        net.features([3])


def test_features_each_goes_on_at_an_unreadable_image(net, images, tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        net.features([images[0], tmp_path / "text.jpg"])
    first, broken, last = net.features_each([images[0], tmp_path / "text.jpg", images[1]])
    assert broken.path.endswith("text.jpg")
    np.testing.assert_allclose(np.stack([first, last]), net.features(images[:2]), rtol=0, atol=1e-6)


def test_a_stage_that_does_not_exist_is_named_with_the_nearest(net):
    with pytest.raises(UserError, match=r"no stage 'conv4x'.*conv2_x, conv3_x, conv4_x.*Did you mean conv4_x"):
        net.features([], stage="conv4x")
    with pytest.raises(UserError, match="conv5_x"):
        net.features_each([], stage="conv5_x")


@pytest.mark.parametrize("features", [None, lambda x: x, lambda x: {}, lambda x: {"last": x.mean(dim=(2, 3))}])
def test_a_model_without_features_is_refused(net, features):
    own = torch.nn.Conv2d(3, 4, 3)
    if features is not None:
        own.features = features
    stored = types.SimpleNamespace(model=own, preprocessor=net.stored.preprocessor, name="own", classes=())
    with pytest.raises(ModelError, match=r"Conv2d has no features: give it a method features\(x\)"):
        module.features(stored, [])


def test_vgg_gives_the_maps_before_its_pools(tmp_path, images):
    save_model(tmp_path / "vgg", small_net("vgg16", convs=(1, 1), widths=(4, 6), hidden=8))
    net = resnets.load(tmp_path / "vgg")
    assert net.features(images[:2]).shape == (2, 6)
    maps = net.features(images[:2], stage="conv1_x", pooled=False)
    assert maps.shape == (2, 4, 32, 32)
    assert (maps >= 0).all()


def run(arguments, capsys):
    code = main(arguments)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_the_file_holds_what_python_returns(net, images, tmp_path, capsys):
    out = tmp_path / "out.npz"
    folder = str(tmp_path / "images")
    code, text, _ = run(["predict", str(tmp_path / "net"), folder, "--features", str(out)], capsys)
    assert (code, text) == (0, f"{out}: 64 features of conv4_x an image, for 40 images (cifar-resnet8)\n")
    with np.load(out, allow_pickle=False) as file:
        assert file["features"].dtype == np.float32
        np.testing.assert_array_equal(file["features"], net.features(images))
        assert file["paths"].tolist() == [str(path) for path in images]
        assert (str(file["stage"]), str(file["model"])) == ("conv4_x", "cifar-resnet8")
    command = ["predict", str(tmp_path / "net"), folder, "--features", str(out), "--stage", "conv2_x", "--json"]
    code, text, _ = run(command, capsys)
    assert json.loads(text) == {
        "features": str(out),
        "images": 40,
        "channels": 16,
        "stage": "conv2_x",
        "model": "cifar-resnet8",
        "unreadable": [],
    }
    with np.load(out) as file:
        np.testing.assert_array_equal(file["features"], net.features(images, stage="conv2_x"))


def test_unreadable_images_are_named_and_the_rest_is_written(net, images, tmp_path, capsys):
    images[1].write_bytes(images[1].read_bytes()[:100])
    images[3].write_text("")
    out = tmp_path / "out.npz"
    command = ["predict", str(tmp_path / "net"), str(tmp_path / "images"), str(tmp_path / "no.jpg")]
    code, text, errors = run([*command, "--features", str(out), "--json"], capsys)
    assert code == 2
    gone = [str(images[1]), str(images[3]), str(tmp_path / "no.jpg")]
    assert [entry["path"] for entry in json.loads(text)["unreadable"]] == gone
    assert all(path in errors for path in gone)
    assert "3 of the images could not be read" in errors
    with np.load(out) as file:
        kept = [path for path in images if path not in (images[1], images[3])]
        assert file["paths"].tolist() == [str(path) for path in kept]
        np.testing.assert_allclose(file["features"], net.features(kept), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        (["--features", "out.npy"], ".npz"),
        (["--features", ""], ".npz"),
        (["--features", "missing/out.npz"], "does not exist"),
        (["--features", "folder.npz"], "folder"),
        (["--features", "images/00.png/out.npz"], "does not exist"),
        (["--features", "out.npz", "--stage", "conv_4x"], "Did you mean conv4_x"),
        (["--features", "out.npz", "--stage", ""], "no stage ''"),
        (["--features", "out.npz", "--top-k", "3"], "--top-k belongs to predictions"),
        (["--stage", "conv4_x"], "--features OUT.npz"),
    ],
)
def test_a_wrong_command_writes_nothing(net, images, tmp_path, monkeypatch, capsys, extra, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.npz").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, text, errors = run(["predict", "net", "images", *extra], capsys)
    assert (code, text) == (2, "")
    assert word in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_cannot_be_written_leaves_the_old_one(net, images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    command = ["predict", str(tmp_path / "net"), str(images[0]), "--features", str(out)]
    code, text, errors = run(command, capsys)
    assert (code, text) == (2, "")
    assert f"{out} cannot be written: No space left on device" in errors
    assert out.read_bytes() == b"old"
    assert not [path for path in tmp_path.iterdir() if ".tmp-" in path.name]


def test_a_folder_that_may_not_be_written_is_refused_before_the_model_is_loaded(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    command = ["predict", str(tmp_path / "nothing"), str(images[0]), "--features", str(tmp_path / "o.npz")]
    code, _, errors = run(command, capsys)
    assert code == 2
    assert f"you may not write into {tmp_path}" in errors


def test_no_readable_image_writes_no_file(net, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("x")
    command = ["predict", str(tmp_path / "net"), str(tmp_path / "text.jpg"), "--features", str(tmp_path / "o.npz")]
    code, _, errors = run(command, capsys)
    assert code == 2
    assert "No image of 1 could be read" in errors
    assert not (tmp_path / "o.npz").exists()
