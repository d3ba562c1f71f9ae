"""Conversions end with a proof and a complete result, or with an error and nothing written."""

import dataclasses
import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from resnets.artifacts import completion, conversion, formats, written_back
from resnets.artifacts.completion import read_class_names, read_mean_image
from resnets.artifacts.conversion import convert, import_foreign
from resnets.artifacts.formats import FORMATS
from resnets.artifacts.model_folder import StoredModel, load_model, save_model
from resnets.artifacts.proof import prove, sample_images
from resnets.data.preprocess import Preprocessor
from resnets.models.build import build
from resnets.models.interop.foreign import Hints
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import ModelError, SpecError, UserError
from resnets.specs.model import ResNetSpec
from resnets.specs.preprocess import Preprocess

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
CIFAR = {"mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7)}
NAMES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def net(spec):
    model = build(spec, seed=0)
    generator = torch.Generator().manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data.uniform_(0.3, 0.7, generator=generator)
            norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def tiny(**fields):
    stem = fields.get("stem", "7x7")
    base = {"block": "basic", "blocks": (1, 1), "widths": (4, 8), "shortcut": "B", "num_classes": 3, "stem": stem}
    return ResNetSpec(**{**base, "stem_pool": "torchvision" if stem == "7x7" else "none", **fields})


def stored(spec, **fields):
    preprocess = fields.pop("preprocess", Preprocess(resize_px=72, crop_px=64, **IMAGENET))
    mean_image = fields.pop("mean_image", None)
    classes = tuple(f"class {index}" for index in range(spec.num_classes))
    return StoredModel(
        model=net(spec), spec=spec, preprocessor=Preprocessor(preprocess, mean_image), classes=classes, metrics={},
        **fields,
    )  # fmt: skip


@pytest.fixture
def bare(tmp_path):
    """A state dict of a small residual net with a 7x7 stem in torchvision's names, and what it does not say."""
    spec = tiny(block="bottleneck", stride_on="3x3")
    path = tmp_path / "w.pth"
    torch.save(net(spec).state_dict(), path)
    return path, Hints(model=spec, classes=NAMES, crop_px=64, resize_px=72, **IMAGENET)


def refused(error, path, hints, *words):
    with pytest.raises(error) as caught:
        import_foreign(path, hints)
    for word in words:
        assert word in str(caught.value), caught.value
    return str(caught.value)


def test_what_is_imported_is_the_files_net_with_all_that_was_said(bare):
    path, hints = bare
    result = import_foreign(path, dataclasses.replace(hints, licence="mine"))
    weights = torch.load(path, weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in result.model.state_dict().items())
    assert not result.model.training
    assert (result.spec, result.classes, result.licence) == (hints.model, NAMES, "mine")
    assert result.preprocessor.spec == Preprocess(resize_px=72, crop_px=64, **IMAGENET)
    assert result.metrics["converted_from"] == "torchvision"
    assert result.metrics["max_difference"] < 1e-5


def test_everything_that_is_missing_is_asked_for_at_once(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(net(model_spec("resnet18-a", num_classes=3)).state_dict(), path)
    message = refused(ModelError, path, Hints(), "--model NAME (", "--mean r,g,b", "--std r,g,b", "--mean-image FILE",
                      "--class-names FILE (3 names")  # fmt: skip
    assert "resnet18-a: identity shortcuts padded with zeros (give --zero-pad end|both too)" in message
    assert "plain18: no shortcuts" in message
    assert "plain18" in message
    message = refused(ModelError, path, Hints(model="resnet18-a", classes=NAMES, **IMAGENET), "--zero-pad end|both")
    assert not any(flag in message for flag in ("--model", "--mean", "--class-names"))
    message = refused(ModelError, path, Hints(model="plain18", mean=IMAGENET["mean"], classes=NAMES), "--std")
    assert "--mean r" not in message


@pytest.mark.parametrize("flag", ["model", "mean", "std", "classes"])
def test_each_thing_alone_is_asked_for_by_its_flag(bare, flag):
    path, hints = bare
    words = {"model": "--model", "mean": "--mean", "std": "--std", "classes": "--class-names"}
    message = refused(ModelError, path, dataclasses.replace(hints, **{flag: None}), words[flag])
    assert not any(f"{word} " in message for name, word in words.items() if name != flag)


def test_the_papers_sizes_are_taken_where_none_are_given(tmp_path):
    torch.save(net(tiny(stem="3x3")).state_dict(), tmp_path / "small.pth")
    small = import_foreign(tmp_path / "small.pth", Hints(classes=NAMES, **CIFAR)).preprocessor.spec
    assert (small.resize_px, small.crop_px) == (32, 32)
    torch.save(net(tiny()).state_dict(), tmp_path / "large.pth")
    large = import_foreign(tmp_path / "large.pth", Hints(model=tiny(), classes=NAMES, **IMAGENET)).preprocessor.spec
    assert (large.resize_px, large.crop_px) == (256, 224)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_class_names_is_refused(bare, count):
    path, hints = bare
    names = tuple("abcd"[:count])
    refused(ModelError, path, dataclasses.replace(hints, classes=names), f"{count} class names", "3 outputs")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mean": (0.485, 0.456, 0.406)}, "--mean 123.675,116.28,103.53"),
        ({"std": (0.229, 0.224, 0.225)}, "--std 58.395,57.12,57.375"),
        ({"mean": (103.53, 116.28, 123.675)}, "backwards"),
        ({"mean": (103.939, 116.779, 123.68)}, "backwards"),
        ({"mean": (113.9, 123.0, 125.3)}, "backwards"),
        ({"std": (58.0, 0.0, 57.0)}, "above 0"),
        ({"std": (58.0, -1.0, 57.0)}, "above 0"),
        ({"mean": (float("nan"), 1.0, 1.0)}, "finite"),
        ({"mean": (100.0, 100.0)}, "2 values, and"),
        ({"mean": (100.0,)}, "1 value, and"),
        ({"mean": (-5.0, 1.0, 100.0)}, "--mean is -5,1,100; pixels are in 0..255"),
        ({"mean": (5.0, 1.0, 900.0)}, "--mean is 5,1,900; pixels are in 0..255"),
        ({"crop_px": 0}, "--crop is 0"),
        ({"resize_px": 0}, "--resize is 0"),
        ({"resize_px": 0, "crop_px": 0}, "--resize is 0"),
        ({"crop_px": 100}, "--resize is 72 and --crop 100"),
        ({"crop_px": 10**7, "resize_px": 10**7}, "4096"),
    ],
)
def test_values_that_cannot_be_right_are_refused(bare, fields, words):
    path, hints = bare
    refused(SpecError, path, dataclasses.replace(hints, **fields), words)


def test_bgr_weights_become_rgb_weights_with_the_same_logits(bare):
    path, hints = bare
    weights = torch.load(path, weights_only=True)
    as_rgb = import_foreign(path, dataclasses.replace(hints, color="bgr"))
    assert torch.equal(as_rgb.model.state_dict()["conv1.weight"], weights["conv1.weight"].flip(1))
    assert as_rgb.preprocessor.spec.color == "rgb"
    images, unchanged = torch.randn(2, 3, 64, 64), import_foreign(path, hints).model
    with torch.no_grad():
        torch.testing.assert_close(as_rgb.model(images), unchanged(images.flip(1)), rtol=1e-5, atol=1e-6)


def test_a_mean_image_decides_the_crop_and_is_stored(bare, tmp_path):
    path, hints = bare
    image = np.random.default_rng(0).uniform(90, 130, (48, 48, 3)).astype(np.float32)
    hints = dataclasses.replace(hints, mean=None, std=None, mean_image=image, crop_px=None, resize_px=None)
    convert(path, tmp_path / "model", hints)
    again = load_model(tmp_path / "model")
    assert np.array_equal(again.preprocessor.mean_image, image)
    assert (again.preprocessor.spec.crop_px, again.preprocessor.spec.resize_px) == (48, 55)
    assert again.preprocessor.spec.std == (1.0, 1.0, 1.0)


def test_a_mean_image_backwards_of_another_size_or_beside_a_mean_is_refused(bare):
    path, hints = bare
    image = np.full((64, 64, 3), (103.0, 116.0, 123.0), dtype=np.float32)
    given = dataclasses.replace(hints, mean=None, mean_image=image)
    refused(SpecError, path, given, "--mean-image", "backwards")
    forwards = dataclasses.replace(given, mean_image=image[:, :, ::-1].copy())
    import_foreign(path, forwards)
    refused(ModelError, path, dataclasses.replace(forwards, crop_px=60), "(64, 64, 3)", "(60, 60, 3)")
    refused(SpecError, path, dataclasses.replace(forwards, mean=(1.0, 2.0, 3.0)), "both given")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.3, 0.6, "multiply them by 255"), (-1.0, 200.0, "from -1 to 200"), (1.0, 300.0, "from 1 to 300")],
)
def test_a_mean_image_in_another_unit_is_refused(bare, low, high, words):
    path, hints = bare
    image = np.full((64, 64, 3), (low + high) / 2, dtype=np.float32)
    image[0, 0], image[1, 1] = low, high
    refused(SpecError, path, dataclasses.replace(hints, mean=None, mean_image=image), "--mean-image", words)


def test_a_file_of_torchvisions_is_not_called_verified_when_its_variant_was_only_declared(tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), tmp_path / "w.pth")
    hints = Hints(classes=NAMES, crop_px=64, resize_px=64, **IMAGENET)
    message = refused(
        ModelError,
        tmp_path / "w.pth",
        hints,
        "--model NAME (resnet18-v1.5: files of torchvision and timm, which --from torchvision says",
    )
    assert "; resnet18: the authors' pooling" in message
    named = convert(tmp_path / "w.pth", tmp_path / "a", dataclasses.replace(hints, model="resnet18"))
    assert named.declared_with == ("--model",)
    told = convert(tmp_path / "w.pth", tmp_path / "b", dataclasses.replace(hints, format="torchvision"))
    assert told.declared_with == ("--from torchvision",)


def test_a_variant_that_the_files_tell_is_not_called_declared(tmp_path):
    spec = tiny(stem="3x3")
    torch.save(net(spec).state_dict(), tmp_path / "w.pth")
    result = convert(tmp_path / "w.pth", tmp_path / "a", Hints(model=spec, classes=NAMES, **CIFAR))
    assert result.declared_with == ()
    convert(stored(tiny(block="bottleneck")), tmp_path / "hf", to="huggingface")
    assert convert(tmp_path / "hf", tmp_path / "b").declared_with == ()


def test_only_what_is_missing_of_mean_and_std_is_asked_for(bare):
    path, hints = bare
    without = dataclasses.replace
    for fields, words in (
        ({"std": None}, "give --std r,g,b (for pixels in 0..255)."),
        ({"mean": None}, "give --mean r,g,b (for pixels in 0..255)."),
        ({"mean": None, "std": None}, "give --mean r,g,b, --std r,g,b (for pixels in 0..255; or --mean-image FILE"),
    ):
        refused(ModelError, path, without(hints, **fields), words)


def test_an_assumed_divisor_and_what_the_files_lack_are_reported(bare, tmp_path):
    path, hints = bare
    image = np.full((64, 64, 3), 110.0, dtype=np.float32)
    given = dataclasses.replace(hints, mean=None, std=None, mean_image=image)
    report = conversion.as_json(convert(path, tmp_path / "model", given))
    assert report["assumed"] == ["std 1, as --mean-image is given without --std"]
    assert report["not_in_these_files"] == []
    stated = conversion.as_json(convert(path, tmp_path / "other", dataclasses.replace(given, std=(1.0, 1.0, 1.0))))
    assert stated["assumed"] == []


@pytest.mark.parametrize("suffix", [".onnx", ".h5", ".pkl", ".npz", ".prototxt", ".tflite", ".engine", ".ONNX", ".bin"])
def test_a_destination_with_the_ending_of_no_format_is_refused(bare, tmp_path, suffix):
    with pytest.raises(UserError, match=f"ends in {suffix}, .* --to takes resnets, torchvision, timm") as caught:
        convert(bare[0], tmp_path / f"x{suffix}", bare[1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.pth"]
    if "With --to resnets" in str(caught.value):
        convert(bare[0], tmp_path / f"x{suffix}", bare[1], "resnets")
    else:
        with pytest.raises(UserError, match="writes a folder"):
            convert(bare[0], tmp_path / f"x{suffix}", bare[1], "resnets")


def test_dots_in_the_name_of_a_model_folder_are_no_ending(bare, tmp_path):
    for name in ("resnet50-v1.5", "folder.finetune-seed0"):
        assert convert(bare[0], tmp_path / name, bare[1]).target_format == "resnets"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"color": "bgr"}, "--color contradicts"),
        ({"mean": (100.0, 100.0, 100.0)}, "--mean contradicts"),
        ({"std": (1.0, 1.0, 1.0)}, "--std contradicts"),
        ({"crop_px": 32}, "--crop contradicts"),
        ({"resize_px": 100}, "--resize contradicts"),
    ],
)
def test_a_hint_that_contradicts_the_files_is_refused_and_one_that_agrees_is_not(tmp_path, fields, words):
    convert(stored(tiny()), tmp_path / "hf", to="huggingface")
    import_foreign(tmp_path / "hf", Hints(color="rgb", crop_px=64, **IMAGENET))
    refused(ModelError, tmp_path / "hf", Hints(**fields), words)


def test_class_names_and_licence_of_the_files_can_be_replaced(tmp_path):
    convert(stored(tiny(), licence="mit"), tmp_path / "hf", to="huggingface")
    assert import_foreign(tmp_path / "hf").licence == "mit"
    changed = import_foreign(tmp_path / "hf", Hints(classes=NAMES, licence="ours"))
    assert (changed.classes, changed.licence) == (NAMES, "ours")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("layer2.0.bn1.bias"), ["1 tensor is missing (layer2.0.bn1.bias)."]),
        (
            lambda weights: weights.update({"layer2.0.bn9.bias": torch.ones(1)}),
            ["not part of it (", "layer2.0.bn9.bias"],
        ),
        (lambda weights: weights.update({"bn1.bias": torch.ones(5)}), ["bn1.bias has shape (5,)"]),
        (lambda weights: weights["bn1.bias"].fill_(float("nan")), ["bn1.bias has values that are not finite"]),
        (lambda weights: weights.update({"fc.bias": torch.ones(4)}), ["fc.bias has shape (4,)"]),
    ],
)
def test_extra_missing_misshapen_and_nan_tensors_are_refused_by_name(bare, change, words):
    path, hints = bare
    weights = torch.load(path, weights_only=True)
    change(weights)
    torch.save(weights, path)
    refused(ModelError, path, hints, str(path), *words)


def test_weights_so_large_that_logits_overflow_are_refused(bare):
    path, hints = bare
    weights = torch.load(path, weights_only=True)
    weights["fc.weight"].fill_(3e38)
    torch.save(weights, path)
    refused(ModelError, path, hints, "not finite", "Nothing was written")


def test_a_wrong_variant_cannot_pass_the_proof(bare, tmp_path, monkeypatch):
    path, hints = bare
    wrong = dataclasses.replace(hints.model, stem_pool="official")
    real = conversion.build_with_weights
    monkeypatch.setattr(conversion, "build_with_weights", lambda spec, *rest: real(wrong, *rest))
    with pytest.raises(ModelError, match="the converted net is not equal: its logits differ by"):
        convert(path, tmp_path / "model", hints)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.pth"]


EXPRESSIBLE = {
    "torchvision": (model_spec("resnet18-v1.5", num_classes=3), "w.pth", Hints(format="torchvision", classes=NAMES, **IMAGENET)),
    "timm": (model_spec("resnet18-v1.5", num_classes=3), "folder", Hints()),
    "huggingface": (tiny(block="bottleneck"), "folder", Hints()),
    "cifar": (tiny(stem="3x3", shortcut="A", zero_pad="both"), "w.pth",
              Hints(model=tiny(stem="3x3", shortcut="A", zero_pad="both"), classes=NAMES, **IMAGENET)),
    "caffe": (tiny(block="bottleneck", stem_pool="official"), "folder", Hints(classes=NAMES, crop_px=64, resize_px=72, **IMAGENET)),
}  # fmt: skip


@pytest.mark.parametrize("target", EXPRESSIBLE)
def test_ours_to_another_program_and_back_is_bit_exact_and_proven(tmp_path, target):
    spec, name, hints = EXPRESSIBLE[target]
    original = stored(spec, licence="mit")
    there = convert(original, tmp_path / name, to=target)
    assert (there.source_format, there.target_format) == ("resnets", target)
    assert there.proof.max_difference <= 1e-5 * there.proof.largest_logit
    assert (there.proof.random_images, there.proof.real_images) == (2, 2)
    back = convert(tmp_path / name, tmp_path / "back", hints)
    assert (back.source_format, back.target_format) == (target, "resnets")
    again = load_model(tmp_path / "back")
    expected = original.model.state_dict()
    assert again.model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in again.model.state_dict().items())
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")) == []


@pytest.mark.parametrize("target", EXPRESSIBLE)
def test_what_is_said_not_to_be_in_the_files_is_what_has_to_be_given_on_the_way_back(tmp_path, target):
    spec, name, _ = EXPRESSIBLE[target]
    report = conversion.as_json(convert(stored(spec, licence="mit"), tmp_path / name, to=target))
    known = {"torchvision": {"format": "torchvision"}, "cifar": {"model": spec}}.get(target, {})
    back = FORMATS[target].read(tmp_path / name, Hints(**known))
    absent = {
        "class names": back.classes is None,
        "normalisation": back.preprocess is None,
        "licence": not back.licence,
    }
    assert all(any(what in entry for entry in report["not_in_these_files"]) == lacks for what, lacks in absent.items())


def test_every_format_has_such_a_round_trip():
    assert EXPRESSIBLE.keys() == FORMATS.keys()


def test_from_one_program_to_another_in_one_step(tmp_path):
    theirs = torchvision.models.resnet18(num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    hints = Hints(format="torchvision", classes=NAMES, crop_px=64, resize_px=64, **IMAGENET)
    convert(tmp_path / "w.pth", tmp_path / "hf", hints, "huggingface")
    model = import_foreign(tmp_path / "hf").model
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs(images), rtol=0, atol=1e-5)


def test_a_bgr_model_of_ours_is_written_for_rgb(tmp_path):
    bgr = Preprocess(resize_px=72, crop_px=64, color="bgr", mean=(103.5, 116.3, 123.7), std=(57.0, 58.0, 59.0))
    original = stored(tiny(), preprocess=bgr)
    convert(original, tmp_path / "hf", to="huggingface")
    back = import_foreign(tmp_path / "hf")
    assert back.preprocessor.spec.mean == (123.7, 116.3, 103.5)
    photograph = sample_images()[0]
    logits = []
    for model in (original, back):
        pixels = torch.from_numpy(model.preprocessor.pixels(photograph)).permute(2, 0, 1).unsqueeze(0)
        with torch.no_grad():
            logits.append(model.model(model.preprocessor.normalize(pixels)))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)


def test_what_the_target_lacks_is_refused_and_nothing_is_left(tmp_path):
    for target, name in {"torchvision": "w.pth", "timm": "t", "huggingface": "h", "cifar": "c.pth"}.items():
        with pytest.raises(ModelError, match="cannot express"):
            convert(stored(model_spec("cifar-plain20", num_classes=3)), tmp_path / name, to=target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_an_existing_destination_is_refused_and_untouched(bare, tmp_path, kind):
    path, hints = bare
    destination = tmp_path / "taken"
    if kind == "file":
        destination.write_text("mine")
    elif kind == "folder":
        destination.mkdir()
        (destination / "x").write_text("mine")
    else:
        destination.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists, and convert replaces nothing"):
        convert(path, destination, hints)
    assert destination.is_symlink() or destination.exists()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("destination", "to", "words"),
    [
        ("w.txt", "torchvision", "end w.txt in .pth"),
        ("folder", "cifar", ".pth or .pt"),
        ("w.pth", "timm", "writes a folder"),
        ("w.pth", "resnets", "writes a folder"),
        ("x", "torchvison", "Did you mean torchvision"),
    ],
)
def test_a_destination_that_does_not_fit_its_format_is_refused(bare, monkeypatch, tmp_path, destination, to, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        convert(bare[0], Path(destination), bare[1], to)


def _spoiled(entry, change):
    """Return a format whose files are changed after they are written, as by a disk or a mistake of ours."""

    def write(path, net):
        entry.write(path, net)
        change(path)

    return entry._replace(write=write)


def _edited(file, *keys, value):
    def change(path):
        values = json.loads((path / file).read_text())
        inner = values
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (path / file).write_text(json.dumps(values))

    return change


def _replaced(file, old, new):
    def change(path):
        content = (path / file).read_bytes()
        assert old in content
        (path / file).write_bytes(content.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("target", "change", "words"),
    [
        ("timm", _edited("config.json", "label_names", value=["class 1", "class 0", "class 2"]), "class names would"),
        ("timm", _edited("config.json", "label_names", value=None), "class names would"),
        ("timm", _edited("config.json", "pretrained_cfg", "license", value="gpl"), "licence would"),
        ("timm", _edited("config.json", "pretrained_cfg", "mean", value=[0.4851, 0.456, 0.406]), "normalisation would"),
        ("timm", _edited("config.json", "pretrained_cfg", "crop_pct", value=0.5), "normalisation would"),
        ("timm", _edited("config.json", "pretrained_cfg", "interpolation", value="bicubic"), "normalisation would"),
        ("huggingface", _edited("config.json", "id2label", "1", value="class 0"), "class names would"),
        ("huggingface", _edited("config.json", "license", value=None), "licence would"),
        ("huggingface", _edited("preprocessor_config.json", "image_std", value=[0.2] * 3), "normalisation would"),
        ("huggingface", lambda path: (path / "preprocessor_config.json").unlink(), "normalisation would"),
        ("huggingface", _edited("preprocessor_config.json", "image_std", value=[0] * 3), "json: image_std is"),
        (
            "caffe",
            _replaced("deploy.prototxt", b"less the mean 103.53", b"less the mean 104.53"),
            "deploy.prototxt says",
        ),
        ("caffe", _replaced("deploy.prototxt", b"weights: mit", b"weights: gpl"), "deploy.prototxt says"),
        ("caffe", _replaced("deploy.prototxt", b"dim: 64\n      dim: 64", b"dim: 62\n      dim: 62"), "otxt says"),
    ],
)
def test_what_is_written_beside_the_weights_is_read_back_too(tmp_path, monkeypatch, target, change, words):
    monkeypatch.setitem(FORMATS, target, _spoiled(FORMATS[target], change))
    with pytest.raises(ModelError, match="does not read back as it was written") as caught:
        convert(stored(EXPRESSIBLE[target][0], licence="mit"), tmp_path / "new" / "folder", to=target)
    assert words in str(caught.value)
    assert ".tmp-" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("classes", ["class 1", "class 0", "class 2"], "class names would"), ("licence", "gpl", "licence would"),
     ("preprocess", None, "config.json")],
)  # fmt: skip
def test_a_model_folder_is_read_back_with_names_and_licence(tmp_path, monkeypatch, key, value, words):
    def save(path, net):
        save_model(path, net)
        _edited("config.json", key, value=value)(path)

    monkeypatch.setattr(written_back, "save_model", save)
    with pytest.raises(ModelError, match="does not read back as it was written") as caught:
        convert(stored(tiny(), licence="mit"), tmp_path / "model")
    assert words in str(caught.value)
    assert ".tmp-" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["timm", "huggingface"])
def test_statistics_and_sizes_of_any_value_read_back(tmp_path, target):
    source = np.random.default_rng(0)
    for number in range(10):
        crop = int(source.integers(32, 80))
        preprocess = Preprocess(
            resize_px=crop + int(source.integers(0, 40)), crop_px=crop, interpolation="bicubic",
            mean=tuple(source.uniform(0, 255, 3)), std=tuple(source.uniform(1, 255, 3)),
        )  # fmt: skip
        convert(stored(EXPRESSIBLE[target][0], preprocess=preprocess), tmp_path / str(number), to=target)


@pytest.mark.parametrize("target", EXPRESSIBLE)
def test_class_names_that_are_alike_are_kept_one_for_each_output(tmp_path, target):
    spec, name, hints = EXPRESSIBLE[target]
    original = dataclasses.replace(stored(spec), classes=("crane", "owl", "crane"))
    convert(original, tmp_path / name, to=target)
    expected = original.classes if hints.classes is None else hints.classes
    assert import_foreign(tmp_path / name, hints).classes == expected


def test_a_refused_conversion_leaves_no_folders_that_it_made(tmp_path, monkeypatch):
    refused_net = stored(model_spec("cifar-plain20", num_classes=3))
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for destination in ("mine/a/b/w.pth", "c/w.pth", tmp_path / "d" / "e" / "w.pth", "w.pth", "./f/../g/w.pth"):
        with pytest.raises(ModelError, match="cannot express"):
            convert(refused_net, Path(destination))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["mine"]


def test_a_folder_that_somebody_else_uses_meanwhile_stays(tmp_path, monkeypatch):
    def fail(path, net):
        (path.parent / "other").write_text("theirs")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, "torchvision", FORMATS["torchvision"]._replace(write=fail))
    with pytest.raises(UserError, match="No space left"):
        convert(stored(EXPRESSIBLE["torchvision"][0]), tmp_path / "a" / "b" / "w.pth")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"a", "a/b", "a/b/other"}


def test_folders_are_made_for_what_is_written(bare, tmp_path):
    convert(bare[0], tmp_path / "a" / "b" / "model", bare[1])
    assert load_model(tmp_path / "a" / "b" / "model").classes == NAMES


def test_names_too_long_for_the_disk_are_errors_of_one_line(bare, tmp_path):
    for name in ("x" * 300, "x" * 250):  # the second is too long with what it is called until it is complete
        with pytest.raises(UserError, match="cannot be written: File name too long"):
            convert(bare[0], tmp_path / name, bare[1])
    assert not formats.is_ours(tmp_path / ("x" * 300))
    refused(ModelError, tmp_path / ("x" * 300), bare[1], "cannot be read: File name too long")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_cannot_be_read_is_an_error_of_one_line(tmp_path, suffix):
    (tmp_path / f"w{suffix}").symlink_to("/proc/self/mem")
    refused(ModelError, tmp_path / f"w{suffix}", Hints(), f"w{suffix}")


def test_control_characters_in_a_model_of_ours_are_refused_before_anything_is_written(tmp_path):
    original = stored(tiny())
    for fields, words in (({"classes": ("a", "b\x1b", "c")}, "output 1"), ({"licence": "mit\x1b"}, "--licence")):
        with pytest.raises(ModelError, match=words):
            convert(dataclasses.replace(original, **fields), tmp_path / "hf", to="huggingface")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_destination_that_cannot_be_written_is_an_error_of_one_line(bare, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written"):
        convert(bare[0], tmp_path / "locked" / "x", bare[1])


def test_a_destination_below_a_file_is_an_error_of_one_line(bare, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"x cannot be written: .*file is a file\."):
        convert(bare[0], tmp_path / "file" / "x", bare[1])


def test_a_folder_that_another_process_makes_meanwhile_is_used_and_left(bare, tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def made_by_another(self, *arguments, **settings):
        if self.name == "new":
            mkdir(self)
        mkdir(self, *arguments, **settings)

    monkeypatch.setattr(Path, "mkdir", made_by_another)
    convert(bare[0], tmp_path / "new" / "x", bare[1])
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "nothing at"),
        (lambda path: path.mkdir(), "no config.json"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("{}")), "neither"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("[")), "not valid JSON"),
        (lambda path: (path.mkdir(), (path / "config.json").write_text("[" * 100_000)), "not valid JSON"),
        (lambda path: path.write_text("x"), "no file of weights"),
    ],
)
def test_a_source_of_no_known_form_is_refused(tmp_path, make, words):
    make(tmp_path / "source")
    refused(ModelError, tmp_path / "source", Hints(), words)


def test_a_format_that_is_not_the_files_or_not_known_is_refused(tmp_path):
    convert(stored(tiny()), tmp_path / "hf", to="huggingface")
    refused(UserError, tmp_path / "hf", Hints(format="torchvision"), "in the form of huggingface")
    refused(UserError, tmp_path / "hf", Hints(format="tochvision"), "Did you mean torchvision")


def test_our_own_folder_is_told_apart_from_timms(tmp_path):
    save_model(tmp_path / "ours", stored(model_spec("resnet18-v1.5", num_classes=3)))
    assert formats.is_ours(tmp_path / "ours")
    refused(ModelError, tmp_path / "ours", Hints(), "model folder of this package")
    convert(load_model(tmp_path / "ours"), tmp_path / "timm", to="timm")
    assert not formats.is_ours(tmp_path / "timm")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("cat\ndog\nowl\n", NAMES),
        ("\ufeffcat\r\ndog\r\nowl\r\n\r\n", NAMES),
        ('["cat", "dog", "owl"]', NAMES),
        ("tabby cat, n02123045", ("tabby cat, n02123045",)),
    ],
)
def test_class_names_are_read(tmp_path, content, expected):
    (tmp_path / "names").write_text(content, encoding="utf-8", newline="")
    assert read_class_names(tmp_path / "names") == expected


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a\n\nb", b'["a", 3]', b'["a", ', b"\xff\xfe\x00", b'["a", ""]'])
def test_class_names_that_are_none_are_refused(tmp_path, content):
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(ModelError, match="names"):
        read_class_names(tmp_path / "names")
    with pytest.raises(ModelError, match="There is no file") as caught:
        read_class_names(tmp_path / "other")
    assert str(caught.value).count("other") == 1
    with pytest.raises(ModelError, match="Is a directory"):
        read_class_names(tmp_path)


def test_a_json_object_and_another_encoding_are_named_and_a_name_with_a_brace_is_a_name(tmp_path):
    path = tmp_path / "labels"
    path.write_text('{"0": "cat", "1": "dog"}')
    with pytest.raises(ModelError, match="JSON object; a list"):
        read_class_names(path)
    path.write_bytes("café\n".encode("latin-1"))
    with pytest.raises(ModelError, match="not UTF-8"):
        read_class_names(path)
    path.write_text("{odd\nname}\n")
    assert read_class_names(path) == ("{odd", "name}")


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\x7f", "\x85", "\x9b", "\u2028", "\u202e"])
@pytest.mark.parametrize("form", ["lines", "list"])
def test_a_class_name_with_a_control_character_is_refused_by_its_place_without_being_shown(tmp_path, character, form):
    names = ["cat", f"do{character}[31mg"]
    (tmp_path / "names").write_text("\n".join(names) if form == "lines" else json.dumps(names), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        read_class_names(tmp_path / "names")
    place = "line 2" if form == "lines" else "name 2"
    assert f"{place} has the control character U+{ord(character):04X} as character 3" in str(caught.value)
    assert character not in str(caught.value)


def test_half_a_surrogate_pair_is_no_name(tmp_path):
    (tmp_path / "names").write_text('["cat", "\\ud800"]')
    with pytest.raises(ModelError, match=r"U\+D800"):
        read_class_names(tmp_path / "names")


def test_names_of_any_script_are_names(tmp_path):
    names = ("Löwe", "猫", "क\u200dष", "👨\u200d👩\u200d👧")
    (tmp_path / "names").write_text("\n".join(names), encoding="utf-8")
    assert read_class_names(tmp_path / "names") == names


def test_control_characters_in_hints_are_refused(bare):
    path, hints = bare
    refused(ModelError, path, dataclasses.replace(hints, licence="mit\x1b[0m"), "--licence", "U+001B", "character 4")
    refused(ModelError, path, dataclasses.replace(hints, classes=("a", "b", "c\n")), "output 2", "U+000A")


@pytest.mark.parametrize("color", [None, "rgb", "bgr"])
@pytest.mark.parametrize("form", ["hwc", "chw", "float64", "safetensors"])
def test_mean_images_are_read_in_their_order(tmp_path, color, form):
    rgb = np.random.default_rng(0).uniform(0, 255, (16, 16, 3)).astype(np.float32)
    content = rgb[:, :, ::-1] if color == "bgr" else rgb
    path = tmp_path / ("mean.safetensors" if form == "safetensors" else "mean.npy")
    if form == "safetensors":
        save_file({"mean_image": torch.from_numpy(content.copy())}, path)
    else:
        np.save(path, {"hwc": content, "chw": content.transpose(2, 0, 1), "float64": content.astype(np.float64)}[form])
    assert np.array_equal(read_mean_image(path, color), rgb)


@pytest.mark.parametrize(
    "content",
    [
        np.zeros((16, 16)),
        np.zeros((16, 8, 3)),
        np.zeros((16, 16, 2)),
        np.zeros((4, 4, 3)),
        np.full((16, 16, 3), np.nan),
        np.zeros((16, 16, 3), dtype=complex),
        np.array([{"a": 1}], dtype=object),
    ],
)
def test_mean_images_that_are_none_are_refused(tmp_path, content):
    np.save(tmp_path / "mean.npy", content, allow_pickle=True)
    with pytest.raises(ModelError, match="mean image"):
        read_mean_image(tmp_path / "mean.npy", None)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_mean_images_with_any_byte_of_their_head_damaged_are_refused_or_read_as_one(tmp_path, suffix):
    path, image = tmp_path / f"mean{suffix}", np.full((16, 16, 3), 110.0, dtype=np.float32)
    if suffix == ".npy":
        np.save(path, image)
    else:
        save_file({"mean_image": torch.from_numpy(image)}, path)
    content, refused = path.read_bytes(), 0
    head = len(content) - image.nbytes
    for place in range(head):
        for piece in (b"", b"\x00", b"(", b"0", b'"', b"\xff", content[place : place + 1] * 2):
            path.write_bytes(content[:place] + piece + content[place + 1 :])
            try:
                found = read_mean_image(path, None)
            except ModelError:
                refused += 1
                continue
            assert (found.ndim, found.dtype) == (3, np.float32)
            assert np.isfinite(found).all()
    assert 2 * head < refused < 7 * head


def test_a_caffe_mean_is_bgr_unless_said_otherwise(tmp_path):
    from resnets.models.interop.caffe import write_mean

    image = np.random.default_rng(0).uniform(0, 255, (16, 16, 3)).astype(np.float32)
    write_mean(tmp_path / "mean.binaryproto", image)
    assert np.array_equal(
        read_mean_image(tmp_path / "mean.binaryproto", None),
        read_mean_image(tmp_path / "mean.binaryproto", "rgb")[:, :, ::-1],
    )


def gray(model_fields, tmp_path):
    path = tmp_path / "gray.pth"
    torch.save(net(tiny(stem="3x3", in_channels=1, **model_fields)).state_dict(), path)
    return path


def test_a_net_for_gray_images_takes_one_mean(tmp_path):
    path = gray({}, tmp_path)
    result = import_foreign(path, Hints(classes=NAMES, mean=(33.0,), std=(79.0,), crop_px=28, resize_px=28))
    assert result.preprocessor.spec.color == "gray"
    refused(SpecError, path, Hints(classes=NAMES, **CIFAR), "3 values, and", "1 channel.")
    refused(ModelError, path, Hints(classes=NAMES, color="bgr", mean=(1.5,), std=(2.0,)), "1 channel.")


def test_the_proof_measures_the_difference(tmp_path):
    preprocessor = Preprocessor(Preprocess(resize_px=32, crop_px=32, std=(50.0,) * 3))
    model = net(tiny(stem="3x3"))
    same = prove(model, model, preprocessor, source="x")
    assert same.max_difference == 0
    shifted = prove(model, lambda images: model(images) + 1e-6, preprocessor, source="x")
    assert shifted.max_difference == pytest.approx(1e-6, rel=0.2)
    with pytest.raises(ModelError, match="differ by"):
        prove(model, lambda images: model(images) * 1.001, preprocessor, source="x")
    with pytest.raises(ModelError, match="not finite"):
        prove(model, lambda images: model(images) * float("nan"), preprocessor, source="x")
    with pytest.raises(ModelError, match="equally many"):
        prove(model, lambda images: model(images)[:, :2], preprocessor, source="x")
    with pytest.raises(ModelError, match="differ by"):
        prove(model, lambda images: model(images) * 0, preprocessor, source="x")


@pytest.fixture
def logits_of():
    """Nets that give these logits for the first image, the second, and so on."""

    def net(*rows):
        left = [torch.tensor([row]) for row in rows]
        return lambda _: left.pop(0)

    return net


RGB = Preprocessor(Preprocess(resize_px=8, crop_px=8))


def test_every_image_is_judged_by_its_own_largest_logit(logits_of):
    theirs = [[1000.0, 1.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    close = prove(logits_of([1000.05, 1.0], *theirs[1:]), logits_of(*theirs), RGB, source="x")
    assert close.max_difference == pytest.approx(0.05, rel=1e-3)
    assert close.largest_logit == 1000.0
    assert close.max_share == pytest.approx(5e-5, rel=1e-3)
    with pytest.raises(ModelError, match=r"differ by 0\.05 from the source's, which are up to 2 for that image"):
        prove(logits_of(theirs[0], [1.05, 2.0], *theirs[2:]), logits_of(*theirs), RGB, source="x")


def test_rounding_of_an_image_whose_logits_are_all_near_0_is_no_difference(logits_of):
    theirs = [[3.0], [1e-6], [4.0], [-2.0]]
    prove(logits_of(theirs[0], [3e-6], *theirs[2:]), logits_of(*theirs), RGB, source="x")
    with pytest.raises(ModelError, match="differ by"):
        prove(logits_of(theirs[0], [1e-4], *theirs[2:]), logits_of(*theirs), RGB, source="x")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[0.0, 0.0]] * 4, "all 0 for every image"),
        ([[3.0, -2.0]] * 4, "the same for every image"),
        ([[3.0, -2.0], [3.0, -2.0], [3.0, -2.0], [3.00001, -2.0]], "the same for every image"),
    ],
)
def test_logits_that_do_not_depend_on_the_image_prove_nothing(logits_of, rows, words):
    with pytest.raises(ModelError, match=words) as caught:
        prove(logits_of(*rows), logits_of(*rows), RGB, source="x")
    assert "prove nothing" in str(caught.value)


@pytest.mark.parametrize("bias", [0.0, 1.5])
def test_a_file_of_a_net_that_gives_every_image_the_same_is_refused(bare, tmp_path, bias):
    path, hints = bare
    weights = torch.load(path, weights_only=True)
    weights["fc.weight"].zero_()
    weights["fc.bias"].fill_(bias)
    torch.save(weights, path)
    with pytest.raises(ModelError, match="prove nothing"):
        convert(path, tmp_path / "model", hints)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.pth"]


@contextmanager
def no_file_above(size):
    """Let no file grow beyond `size` bytes, as on a full disk; not even the log of the tests, so nothing may print."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [64, 4096])
@pytest.mark.parametrize("target", [*EXPRESSIBLE, "resnets", "safetensors"])
def test_a_disk_that_fills_up_is_an_error_of_one_line_that_says_so_and_leaves_nothing(tmp_path, target, size):
    spec, name, _ = EXPRESSIBLE.get(target, (tiny(stem="3x3", shortcut="A", zero_pad="both"), "x", None))
    name, target = ("w.safetensors", "cifar") if target == "safetensors" else (name, target)
    original = stored(spec, licence="mit")
    with pytest.raises(UserError) as caught, no_file_above(size):
        convert(original, tmp_path / "new" / name, to=target)
    assert str(caught.value) == f"{tmp_path / 'new' / name} cannot be written: File too large."
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(bare, tmp_path, monkeypatch):
    def full(path, net):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    entry = FORMATS["torchvision"]._replace(write=full)
    monkeypatch.setitem(FORMATS, "torchvision", entry)
    with pytest.raises(UserError, match="No space left"):
        convert(bare[0], tmp_path / "out.pth", bare[1])
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_the_completed_net_says_the_sizes_once(bare):
    path, hints = bare
    foreign = FORMATS["torchvision"].read(path, hints)
    assert completion.complete(foreign, hints).preprocess.crop_px == 64


def test_a_model_folder_that_timm_has_carries_timms_keys_and_others_do_not(tmp_path):
    save_model(tmp_path / "a", stored(model_spec("resnet18-v1.5", num_classes=3), licence="mit"))
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("resnet18", 3)
    assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]
    assert config["pretrained_cfg"]["license"] == "mit"
    again = load_model(tmp_path / "a")
    assert again.licence == "mit"
    bgr = Preprocess(resize_px=72, crop_px=64, color="bgr", **IMAGENET)
    for index, other in enumerate(
        (
            stored(model_spec("resnet18", num_classes=3)),
            stored(model_spec("resnet18-v1.5", num_classes=3), preprocess=bgr),
            stored(tiny()),
        )
    ):
        save_model(tmp_path / str(index), other)
        assert "architecture" not in json.loads((tmp_path / str(index) / "config.json").read_text())


def test_timm_builds_our_model_folder_without_our_package_and_gives_our_logits(tmp_path):
    timm = pytest.importorskip("timm")
    ours = stored(
        model_spec("resnet18-v1.5", num_classes=7), preprocess=Preprocess(resize_px=73, crop_px=64, **IMAGENET)
    )
    save_model(tmp_path / "model", ours)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    for photograph in sample_images():
        mine = torch.from_numpy(ours.preprocessor.pixels(photograph)).permute(2, 0, 1).unsqueeze(0)
        with torch.no_grad():
            expected = ours.model(ours.preprocessor.normalize(mine))
            logits = theirs(prepare(photograph).unsqueeze(0))
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
