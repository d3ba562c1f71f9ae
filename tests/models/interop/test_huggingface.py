import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from safetensors.torch import load_file, save_file

from resnets.models.build import build
from resnets.models.interop import huggingface
from resnets.models.interop.foreign import Hints
from resnets.models.interop.huggingface import (
    obstacle,
    our_name,
    read,
    read_config,
    read_preprocessor,
    their_name,
    write,
)
from resnets.specs.catalogue import model_spec, names
from resnets.specs.errors import ModelError
from resnets.specs.preprocess import Preprocess

CONVNEXT = {
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "do_normalize": True,
    "do_resize": True,
    "crop_pct": 0.875,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}
"""The preprocessing of the published ResNets."""


@pytest.fixture(params=["basic", "bottleneck", "bottleneck v1"])
def spec(request, small):
    block, _, version = request.param.partition(" ")
    return small(block=block, stride_on="1x1" if version or block == "basic" else "3x3")


@pytest.fixture
def folder(spec, net, outgoing, tmp_path):
    model, path = net(spec), tmp_path / "model"
    write(path, outgoing(model, licence="mit"))
    return path, model


def edit(file, **changes):
    values = json.loads(file.read_text())
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
    file.write_text(json.dumps(values))


def conv_norm(w, name, x, stride):
    kernel = w[f"{name}.convolution.weight"]
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(w[f"{name}.normalization.{part}"] for part in names))


def logits_by_hand(w, config, images):
    x = conv_norm(w, "resnet.embedder.embedder", images, 2).relu()
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    first = config["layer_type"] == "basic" or config["downsample_in_bottleneck"]
    for stage, depth in enumerate(config["depths"]):
        for block in range(depth):
            name, stride = f"resnet.encoder.stages.{stage}.layers.{block}", 2 if stage and not block else 1
            shortcut = conv_norm(w, f"{name}.shortcut", x, stride) if f"{name}.shortcut.convolution.weight" in w else x
            out = conv_norm(w, f"{name}.layer.0", x, stride if first else 1).relu()
            out = conv_norm(w, f"{name}.layer.1", out, 1 if first else stride)
            if config["layer_type"] == "bottleneck":
                out = conv_norm(w, f"{name}.layer.2", out.relu(), 1)
            x = (out + shortcut).relu()
    return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), w["classifier.1.weight"], w["classifier.1.bias"])


def test_it_expresses_both_strides_with_its_own_pool_and_nothing_else_of_the_catalogue():
    expressible = {name for name in names() if obstacle(model_spec(name)) is None}
    assert expressible == {f"resnet{depth}-v1.5" for depth in (18, 34, 50, 101, 152)}
    for depth in (50, 101, 152):
        assert obstacle(model_spec(f"resnet{depth}-v1.5", stride_on="1x1")) is None


@pytest.mark.parametrize("name", ["resnet18-v1.5", "resnet34-v1.5", "resnet50-v1.5", "resnet101-v1.5"])
def test_names_go_there_and_back(name):
    with torch.device("meta"):
        ours = list(build(model_spec(name)).state_dict())
    theirs = [their_name(key) for key in ours]
    assert len(set(theirs)) == len(ours)
    assert [our_name(key, "") for key in theirs] == ours


def test_ours_to_theirs_to_ours_is_bit_exact(folder, equal_weights):
    path, model = folder
    back = read(path, Hints())
    assert equal_weights(back.weights, model.state_dict())
    assert (back.classes, back.licence) == (("class 0", "class 1", "class 2"), "mit")
    assert back.preprocess == Preprocess(
        resize_px=256, crop_px=224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    )
    if model.spec.block == "bottleneck":
        assert back.spec == model.spec


@pytest.mark.parametrize("fallback", [True, False])
def test_the_reference_and_our_logits_equal_a_forward_pass_written_here(folder, monkeypatch, fallback):
    if fallback:
        monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    path, model = folder
    config, w = json.loads((path / "config.json").read_text()), load_file(path / "model.safetensors")
    images = torch.randn(2, 3, 47, 64)
    with torch.no_grad():
        expected = logits_by_hand(w, config, images)
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(read(path, Hints()).reference(images), expected, rtol=1e-5, atol=1e-6)


def test_the_place_of_the_stride_is_read_from_the_config(small, net, outgoing, tmp_path):
    model, path = net(small(block="bottleneck", stride_on="3x3")), tmp_path / "model"
    write(path, outgoing(model))
    edit(path / "config.json", downsample_in_bottleneck=True)
    back = read(path, Hints())
    assert back.spec.stride_on == "1x1"
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (back.reference(images) - model(images)).abs().max() > 1e-5


def test_transformers_builds_what_is_written_and_gives_our_logits(folder):
    transformers = pytest.importorskip("transformers")
    path, model = folder
    theirs, report = transformers.ResNetForImageClassification.from_pretrained(path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(theirs.eval()(images).logits, expected, rtol=0, atol=1e-5)
    assert theirs.config.id2label == {0: "class 0", 1: "class 1", 2: "class 2"}


@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (235, 224), (512, 448)])
def test_transformers_prepares_images_as_our_preprocessing_does(small, net, outgoing, tmp_path, resize, crop):
    transformers = pytest.importorskip("transformers")
    from resnets.data.preprocess import Preprocessor

    sent = Preprocess(
        resize_px=resize, crop_px=crop, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375),
        interpolation="bicubic",
    )  # fmt: skip
    write(tmp_path / "model", outgoing(net(small()), preprocess=sent))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "model")
    smooth = np.linspace(0, 255, 600 * 700 * 3).reshape(600, 700, 3).astype(np.uint8)
    image = Image.fromarray(smooth)
    theirs = processor(images=image, return_tensors="pt")["pixel_values"]
    ours = Preprocessor(sent)
    expected = ours.normalize(torch.from_numpy(ours.pixels(image)).permute(2, 0, 1).unsqueeze(0))
    assert theirs.shape == expected.shape
    assert (theirs - expected).abs().mean() < 0.02  # resamplers of Pillow and torchvision round differently
    assert read(tmp_path / "model", Hints()).preprocess == sent


def test_transformers_own_folders_are_read(small, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[16, 32], depths=[1, 2], num_labels=3, downsample_in_bottleneck=True
    )
    theirs = transformers.ResNetForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    back = read(tmp_path, Hints())
    assert back.spec == small(block="bottleneck", stride_on="1x1")
    assert back.classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert back.preprocess is None
    images = torch.randn(1, 3, 64, 64)
    model = build(back.spec).eval()
    model.load_state_dict(back.weights)
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs(images).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (CONVNEXT, {"resize_px": 256, "crop_px": 224, "interpolation": "bicubic"}),
        ({**CONVNEXT, "size": {"shortest_edge": 224}, "resample": 2}, {"resize_px": 256, "crop_px": 224}),
        (
            {**CONVNEXT, "feature_extractor_type": None, "image_processor_type": "BitImageProcessor", "size": 235,
             "do_center_crop": True, "crop_size": {"height": 200, "width": 200}},
            {"resize_px": 235, "crop_px": 200, "interpolation": "bicubic"},
        ),
    ],
)  # fmt: skip
def test_the_preprocessing_of_published_models_is_understood(values, expected):
    base = {"interpolation": "bilinear", "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    assert read_preprocessor(values, "p.json") == Preprocess(**{**base, **expected})


def test_without_rescaling_or_normalisation_the_statistics_are_those_of_the_pixels():
    values = {**CONVNEXT, "do_rescale": False, "image_mean": [104.0, 117.0, 123.0], "image_std": [1.0, 1.0, 1.0]}
    assert read_preprocessor(values, "p.json").mean == (104.0, 117.0, 123.0)
    plain = read_preprocessor({**CONVNEXT, "do_normalize": False}, "p.json")
    assert (plain.mean, plain.std) == ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 384}, "does not crop"),
        ({"size": {"height": 224, "width": 224}}, "size"),
        ({"size": 10**9}, "4096"),
        ({"crop_pct": 0}, "crop_pct 0"),
        ({"resample": 0}, "resample 0"),
        ({"resample": [3]}, "resample"),
        ({"do_resize": False}, "do_resize"),
        ({"feature_extractor_type": "CLIPFeatureExtractor"}, "does not crop"),
        ({"feature_extractor_type": "ViTFeatureExtractor"}, "ViTFeatureExtractor"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0, 0, 0]}, "std"),
        ({"rescale_factor": 0}, "p.json"),
        ({"do_rescale": "yes"}, "do_rescale"),
        ({"image_mean": [123.0, 116.0, 103.0]}, "p.json: image_mean is, for pixels multiplied by 0.00392157"),
        ({"image_mean": [-0.5, 0.5, 0.5]}, "p.json: image_mean"),
        ({"do_rescale": False}, "p.json: image_mean"),
        ({"do_rescale": False, "image_mean": [123.0, 116.0, 103.0]}, "p.json: image_std"),
        ({"image_std": [0.001, 0.2, 0.2]}, "p.json: image_std"),
        ({"image_std": [58.0, 57.0, 57.0]}, "p.json: image_std is, for pixels multiplied by 0.00392157"),
    ],
)
def test_preprocessing_that_cannot_be_kept_is_refused(change, words):
    with pytest.raises(ModelError) as caught:
        read_preprocessor({**CONVNEXT, **change}, "p.json")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        "LevitImageProcessor",
        "DeiTImageProcessor",
        "MobileViTImageProcessor",
        "convnextimageprocessor",
        None,
        3,
        ["x"],
    ],
)
@pytest.mark.parametrize("key", ["image_processor_type", "feature_extractor_type"])
def test_a_processor_of_another_type_is_refused_with_what_to_give_instead(kind, key):
    values = {name: value for name, value in CONVNEXT.items() if name != "feature_extractor_type"}
    values |= {"do_center_crop": True, "crop_size": 224, key: kind}
    with pytest.raises(ModelError, match="remove the file and give --resize, --crop, --mean and --std") as caught:
        read_preprocessor(values, "p.json")
    assert f"p.json: image_processor_type is {kind!r}" in str(caught.value)


def test_the_newer_key_says_the_type_where_both_are_there():
    both = {**CONVNEXT, "image_processor_type": "LevitImageProcessor"}
    with pytest.raises(ModelError, match="LevitImageProcessor"):
        read_preprocessor(both, "p.json")
    older = {**CONVNEXT, "image_processor_type": None}
    assert read_preprocessor(older, "p.json") == read_preprocessor(CONVNEXT, "p.json")


def test_a_name_of_two_classes_is_in_no_index_that_has_place_for_one_of_them(small, net, outgoing, tmp_path):
    write(tmp_path / "a", outgoing(net(small()), classes=("crane", "owl", "crane")))
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["id2label"] == {"0": "crane", "1": "owl", "2": "crane"}
    assert "label2id" not in config
    assert read(tmp_path / "a", Hints()).classes == ("crane", "owl", "crane")
    write(tmp_path / "b", outgoing(net(small()), classes=("crane", "owl", "jay")))
    assert json.loads((tmp_path / "b" / "config.json").read_text())["label2id"] == {"crane": 0, "owl": 1, "jay": 2}


def test_a_label_that_is_given_twice_is_refused_by_its_number(small, net, outgoing, tmp_path):
    write(tmp_path / "model", outgoing(net(small())))
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"1": "class 1"', '"1": "owl", "1": "class 1"'))
    with pytest.raises(ModelError, match=r"config\.json has '1' twice in one object"):
        read(tmp_path / "model", Hints())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "vit"}, "vit"),
        ({"architectures": ["ResNetBackbone"]}, "ResNetBackbone"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage"),
        ({"downsample_in_bottleneck": 1}, "downsample_in_bottleneck"),
        ({"depths": [1, 10**9]}, "depths"),
        ({"hidden_sizes": [4]}, "hidden_sizes"),
        ({"embedding_size": 8}, "embedding_size"),
        ({"num_channels": 1}, "num_channels"),
        ({"layer_type": "other"}, "layer_type"),
        ({"id2label": {"0": "a"}}, "id2label names 1 classes"),
        ({"id2label": {"0": "a", "1": "b", "3": "c"}}, "id2label"),
        ({"id2label": ["a", "b", "c"]}, "id2label"),
        ({"id2label": {"0": "a", "1": "b\x1b[31m", "2": "c"}}, "id2label[1] has the control character U+001B"),
        ({"license": "mit\x07"}, "license has the control character U+0007"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(small, net, outgoing, tmp_path, change, words):
    write(tmp_path / "model", outgoing(net(small())))
    edit(tmp_path / "model" / "config.json", **change)
    with pytest.raises(ModelError) as caught:
        read(tmp_path / "model", Hints())
    assert words in str(caught.value)


def test_a_tensor_of_another_net_and_a_bare_file_are_refused(folder):
    path, _ = folder
    weights = load_file(path / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"is a file, and ResNetForImageClassification is read with its config\.json; give the folder"
    ):
        read(path / "model.safetensors", Hints())
    save_file({**weights, "resnet.other": torch.ones(1)}, path / "model.safetensors")
    with pytest.raises(ModelError, match=r"resnet\.other"):
        read(path, Hints())


def test_a_hint_that_contradicts_the_config_is_refused(small, net, outgoing, tmp_path):
    spec = small(block="bottleneck", stride_on="3x3")
    write(tmp_path / "model", outgoing(net(spec)))
    with pytest.raises(ModelError, match="stride_on 3x3, not 1x1"):
        read(tmp_path / "model", Hints(model=small(block="bottleneck", stride_on="1x1")))


@pytest.mark.parametrize("name", ["resnet50", "resnet18-a", "plain18", "resnet34-c", "cifar-resnet20-b"])
def test_what_it_lacks_is_refused_and_nothing_is_written(net, outgoing, tmp_path, name):
    with pytest.raises(ModelError, match=f"ResNetForImageClassification cannot express {name}: "):
        write(tmp_path / "model", outgoing(net(model_spec(name, num_classes=2))))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_what_to_train_is_said_where_the_pooling_is_the_authors(small, block):
    reason = obstacle(small(block=block, stem_pool="official"))
    assert "pads the pooling after conv1 by one pixel, and this net does not" in reason
    assert "train with --model.stem-pool torchvision to have" in reason


def test_a_model_card_with_a_control_character_is_refused(folder):
    path, _ = folder
    edit(path / "config.json", license=None)
    (path / "README.md").write_text("---\nlicense: mit\x1b[0m\n---\n")
    with pytest.raises(ModelError, match=r"README\.md: license has the control character U\+001B"):
        read(path, Hints())


def test_10_000_damaged_configs_are_refused_or_describe_the_weights(small, net, outgoing, quick_folder, mutated):
    spec = small(block="bottleneck", blocks=(1,), widths=(2,), stride_on="3x3")
    write(quick_folder / "model", outgoing(net(spec)))
    config, refused = quick_folder / "model" / "config.json", 0
    weights = huggingface.load_tensors(quick_folder / "model" / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface, "load_tensors", lambda path, entry: weights)
        for _, content in zip(range(10_000), mutated(config.read_bytes()), strict=False):
            config.write_bytes(content)
            try:
                foreign = read(quick_folder / "model", Hints())
            except ModelError:
                refused += 1
                continue
            strided = json.loads(content).get("downsample_in_bottleneck", False)
            assert foreign.spec == small(
                block="bottleneck", blocks=(1,), widths=(2,), stride_on="1x1" if strided else "3x3"
            )
            assert foreign.classes is None or len(foreign.classes) == 3
    assert 1_000 < refused < 10_000


def test_10_000_damaged_preprocessings_are_refused_or_understood(mutated):
    content, refused = json.dumps(CONVNEXT).encode(), 0
    for _, damaged in zip(range(10_000), mutated(content), strict=False):
        try:
            values = json.loads(damaged)
            understood = read_preprocessor(values, "p.json") if isinstance(values, dict) else None
        except (ValueError, ModelError):
            refused += 1
            continue
        if understood is not None:
            assert understood.mean == tuple(round(value * 255, 10) for value in values["image_mean"])
            assert 1 <= understood.crop_px <= understood.resize_px <= 4096
    assert 1_000 < refused < 10_000


def test_the_fields_have_the_defaults_of_transformers():
    transformers = pytest.importorskip("transformers")
    fields = read_config({"model_type": "resnet"}, "config.json")
    theirs = transformers.ResNetConfig()
    plain = {name: getattr(theirs, name) for name in fields}
    assert fields == {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
