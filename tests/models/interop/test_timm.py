import json
import shutil

import pytest
import torch
import torchvision

from resnets.models.interop.foreign import Hints
from resnets.models.interop.timm import obstacle, read, read_config, write
from resnets.specs.catalogue import model_spec, names
from resnets.specs.errors import ModelError
from resnets.specs.preprocess import Preprocess


@pytest.fixture
def folder(net, outgoing, tmp_path):
    model, path = net(model_spec("resnet18-v1.5", num_classes=5)), tmp_path / "model"
    write(path, outgoing(model, licence="apache-2.0"))
    return path, model


def edit(path, **changes):
    config = json.loads((path / "config.json").read_text())
    for key, value in changes.items():
        target = config if key in config or key == "model_args" else config["pretrained_cfg"]
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value
    (path / "config.json").write_text(json.dumps(config))


def test_timm_expresses_v1_5_and_nothing_else_of_the_catalogue():
    expressible = {name for name in names() if obstacle(model_spec(name)) is None}
    assert expressible == {f"resnet{depth}-v1.5" for depth in (18, 34, 50, 101, 152)}


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_ours_to_timm_to_ours_is_bit_exact(net, outgoing, tmp_path, equal_weights, depth):
    model = net(model_spec(f"resnet{depth}-v1.5", num_classes=4))
    sent = outgoing(
        model,
        licence="cc-by-4.0",
        preprocess=Preprocess(
            resize_px=235, crop_px=224, mean=(127.5, 116.28, 1.25), std=(58.395, 57.12, 57.375), interpolation="bicubic"
        ),
    )
    write(tmp_path / "model", sent)
    back = read(tmp_path / "model", Hints())
    assert equal_weights(back.weights, model.state_dict())
    assert (back.spec, back.classes, back.licence) == (model.spec, sent.classes, "cc-by-4.0")
    assert back.preprocess == sent.preprocess


@pytest.mark.parametrize("crop", [32, 64, 160, 176, 224, 225, 256, 288, 320, 448])
def test_every_pair_of_sizes_survives(crop):
    from resnets.models.interop.timm import config_for

    spec = model_spec("resnet18-v1.5", num_classes=1)
    for resize in range(crop, 2 * crop + 1):
        sent = Preprocess(resize_px=resize, crop_px=crop, mean=(0.0,) * 3, std=(255.0,) * 3)
        config = json.loads(json.dumps(config_for(spec, sent, ("a",), "")))
        assert read_config(config, "config.json")[1] == sent


def test_timm_builds_what_is_written_and_gives_our_logits(folder):
    timm = pytest.importorskip("timm")
    path, model = folder
    theirs = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(theirs(images), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    data = timm.data.resolve_model_data_config(theirs)
    assert (tuple(data["input_size"]), data["crop_pct"], data["interpolation"]) == ((3, 224, 224), 0.875, "bilinear")
    assert data["mean"] == [0.485, 0.456, 0.406]
    assert data["std"] == [0.229, 0.224, 0.225]
    assert theirs.pretrained_cfg["label_names"][4] == "class 4"


def test_the_reference_is_torchvisions_net(folder):
    path, model = folder
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    theirs.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(read(path, Hints()).reference(images), theirs(images))


def test_a_bare_state_dict_lacks_preprocessing_and_names_but_not_the_variant(folder):
    path, model = folder
    foreign = read(path / "model.safetensors", Hints())
    assert foreign.spec == model.spec
    assert (foreign.preprocess, foreign.classes, foreign.licence) == (None, None, "")


def test_an_older_config_of_one_level_is_read(folder):
    path, model = folder
    config = json.loads((path / "config.json").read_text())
    flat = {"architecture": "resnet18", "labels": config["label_names"], **config["pretrained_cfg"]}
    (path / "config.json").write_text(json.dumps(flat))
    foreign = read(path, Hints())
    assert foreign.spec == model.spec
    assert foreign.preprocess.crop_px == 224
    assert foreign.classes[0] == "class 0"


def test_the_licence_of_the_model_card_counts_where_the_config_has_none(folder):
    path, _ = folder
    edit(path, license=None)
    (path / "README.md").write_text("---\ntags:\n- timm\nlicense: mit\n---\n# A net\nlicense: other\n")
    assert read(path, Hints()).licence == "mit"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "resnet50d"}, "resnet50d"),
        ({"architecture": "resnet34"}, "names resnet34"),
        ({"architecture": ["resnet18"]}, "architecture"),
        ({"model_args": {"output_stride": 8}}, "output_stride"),
        ({"custom_load": True}, "custom_load"),
        ({"label_offset": 1}, "label_offset"),
        ({"input_size": [1, 224, 224]}, "square RGB"),
        ({"input_size": [3, 224, 200]}, "square RGB"),
        ({"input_size": [3, 10**9, 10**9]}, "4096"),
        ({"crop_pct": 0}, "crop_pct"),
        ({"crop_pct": 1.2}, "crop_pct"),
        ({"crop_pct": 10**400}, "crop_pct"),
        ({"crop_mode": "squash"}, "squash"),
        ({"interpolation": "lanczos"}, "lanczos"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"std": [0, 0.1, 0.1]}, "std"),
        ({"std": [0.001, 0.1, 0.1]}, "config.json: std is"),
        ({"mean": [123.0, 116.0, 103.0]}, "config.json: mean is"),
        ({"std": [58.0, 57.0, 57.0]}, "config.json: std is"),
        ({"label_names": ["a", "b\x1b", "c"]}, "label_names[1] has the control character U+001B"),
        ({"license": "mit\x1b"}, "license has the control character U+001B"),
        ({"mean": ["a", "b", "c"]}, "mean"),
        ({"label_names": "abc"}, "label_names"),
        ({"model_args": {"global_pool": "max"}}, "global_pool"),
    ],
)
def test_a_config_that_cannot_be_kept_is_refused(folder, change, words):
    path, _ = folder
    edit(path, **change)
    with pytest.raises(ModelError) as caught:
        read(path, Hints())
    assert words in str(caught.value)


def test_a_deep_stem_is_refused_by_its_names(folder):
    path, model = folder
    weights = model.state_dict()
    weights["conv1.0.weight"] = weights.pop("conv1.weight")
    (path / "model.safetensors").unlink()
    torch.save(weights, path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="ResNet-C, -D"):
        read(path, Hints())


def test_a_folder_without_weights_is_refused(folder):
    path, _ = folder
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"none of model\.safetensors"):
        read(path, Hints())


@pytest.mark.parametrize(
    ("name", "preprocess", "words"),
    [
        ("resnet18", None, "pads the pooling after conv1"),
        ("resnet18-v1.5", {"mean_image": True}, "mean image"),
        ("resnet18-v1.5", {"color": "bgr"}, "takes bgr"),
    ],
)
def test_what_timm_lacks_is_refused_and_nothing_is_written(net, outgoing, tmp_path, name, preprocess, words):
    sent = Preprocess(resize_px=32, crop_px=32, **(preprocess or {}))
    with pytest.raises(ModelError, match=words):
        write(tmp_path / "model", outgoing(net(model_spec(name, num_classes=2)), preprocess=sent))
    assert not list(tmp_path.iterdir())


def test_10_000_damaged_configs_are_refused_or_understood(folder, mutated):
    path, _ = folder
    edit(path, num_classes=None)
    content = (path / "config.json").read_bytes()
    refused = 0
    for _, damaged in zip(range(10_000), mutated(content), strict=False):
        try:
            config = json.loads(damaged)
        except (ValueError, RecursionError):
            refused += 1
            continue
        if not isinstance(config, dict):
            continue
        try:
            architecture, preprocess, classes, _ = read_config(config, "config.json")
        except ModelError:
            refused += 1
            continue
        assert architecture == config["architecture"]
        inner = config.get("pretrained_cfg", config)
        if preprocess is not None:
            assert preprocess.crop_px == inner["input_size"][1]
            assert preprocess.mean == tuple(round(value * 255, 10) for value in inner["mean"])
        assert classes is None or list(classes) in (config.get("label_names"), inner.get("label_names"))
    assert 1_000 < refused < 10_000
    shutil.rmtree(path)
