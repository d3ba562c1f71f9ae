"""Weights into another net: bit for bit, the last layer by class names, other variants refused."""

import dataclasses
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnets.artifacts.model_folder import StoredModel
from resnets.artifacts.transfer import transfer
from resnets.data.preprocess import Preprocessor
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import ModelError
from resnets.specs.preprocess import Preprocess

SMALL = {"blocks": (1, 1, 1, 1), "widths": (4, 8, 16, 32)}
VARIANTS = {
    "residual": ("resnet50", SMALL),
    "v1.5": ("resnet50-v1.5", SMALL),
    "basic, option A": ("resnet34-a", SMALL),
    "plain": ("plain18", SMALL),
    "CIFAR": ("cifar-resnet8", {}),
    "CIFAR, gray": ("cifar-resnet8", {"in_channels": 1}),
    "highway": ("cifar-highway8", {}),
    "VGG": ("vgg16", {"convs": (1, 1, 1, 1, 1), "widths": (4, 4, 4, 4, 4), "hidden": 8}),
}


@pytest.mark.parametrize(("name", "fields"), VARIANTS.values(), ids=VARIANTS)
def test_all_but_the_last_layer_is_copied_when_the_classes_differ(name, fields, small_net):
    stored = small_net(name, **fields)
    classes = ("circle", "square", "triangle", "star", "red")
    model = build(dataclasses.replace(stored.spec, num_classes=5), seed=7)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    result = transfer(model, stored, classes)
    head = "classifier.6" if name == "vgg16" else "fc"
    assert result.skipped == result.initialised == (f"{head}.weight", f"{head}.bias")
    assert set(result.loaded) | set(result.initialised) == set(fresh)
    assert not set(result.loaded) & set(result.initialised)
    for key, value in model.state_dict().items():
        assert torch.equal(value, (stored.model.state_dict() if key in result.loaded else fresh)[key])
    assert all(word in result.text for word in (stored.name, f"{head}.weight", "3 classes", "5 classes"))


@pytest.mark.parametrize(("name", "fields"), VARIANTS.values(), ids=VARIANTS)
def test_with_the_same_classes_the_function_is_the_same(name, fields, small_net):
    stored = small_net(name, **fields)
    model = build(stored.spec, seed=7)
    result = transfer(model, stored, stored.classes)
    assert result.skipped == result.initialised == ()
    images = torch.rand(2, stored.spec.in_channels, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), stored.model(images))


@settings(max_examples=8)
@given(order=st.permutations(range(5)))
def test_the_logit_of_a_class_is_found_under_its_name(small_net, order):
    classes = tuple("abcde")
    stored = small_net(classes=classes, widths=(2, 2, 2))
    wanted = tuple(classes[index] for index in order)
    model = build(stored.spec, seed=7).eval()
    assert transfer(model, stored, wanted).initialised == ()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        ours, theirs = model(images), stored.model(images)
    for position, name in enumerate(wanted):
        torch.testing.assert_close(ours[:, position], theirs[:, classes.index(name)], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "classes", [("a", "a", "b"), ("b", "a", "a"), ("a", "b", "b"), ("a", "b"), ("a", "b", "c", "d")]
)
def test_names_that_cannot_be_told_apart_are_not_put_in_order(classes, small_net):
    stored = small_net(classes=("a", "b", "a"))
    model = build(dataclasses.replace(stored.spec, num_classes=len(classes)), seed=7)
    assert transfer(model, stored, classes).initialised == ("fc.weight", "fc.bias")


SPEC = model_spec("resnet50", **SMALL)
OTHERS = {
    "v1.5": (model_spec("resnet50-v1.5", **SMALL), ["stride_on", "stem_pool"]),
    "pooling": (
        dataclasses.replace(SPEC, stem_pool="torchvision"),
        ["stem_pool is 'torchvision' there and 'official'"],
    ),
    "shortcut": (dataclasses.replace(SPEC, shortcut="C"), ["shortcut is 'C' there and 'B' here"]),
    "depth": (dataclasses.replace(SPEC, blocks=(1, 1, 2, 1)), ["blocks is (1, 1, 2, 1) there and (1, 1, 1, 1) here"]),
    "width": (dataclasses.replace(SPEC, widths=(4, 8, 16, 16)), ["widths"]),
    "channels": (dataclasses.replace(SPEC, in_channels=1), ["in_channels is 1 there and 3 here"]),
    "family": (model_spec("vgg16", convs=(1,), widths=(4,), hidden=8), ["vgg"]),
}


@pytest.mark.parametrize(("spec", "words"), OTHERS.values(), ids=OTHERS)
def test_another_variant_is_refused_by_name_and_nothing_is_changed(spec, words):
    spec = dataclasses.replace(spec, num_classes=3)
    given_net = StoredModel(
        model=build(spec, seed=0),
        spec=spec,
        preprocessor=Preprocessor(Preprocess(resize_px=36, crop_px=32)),
        classes=("a", "b", "c"),
        metrics={},
    )
    model = build(SPEC, seed=7)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"--init\.model adopt") as caught:
        transfer(model, given_net, tuple(map(str, range(1000))))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_both_full_names_are_in_the_message(small_net):
    ours, theirs = (model_spec("cifar-resnet20", zero_pad=side) for side in ("end", "both"))
    stored = small_net("cifar-resnet20", zero_pad="both")
    with pytest.raises(ModelError, match=r"zero_pad is 'both' there and 'end' here") as caught:
        transfer(build(ours), stored, stored.classes)
    assert "cifar-resnet20 (zero_pad=both)" in str(caught.value)
    assert "this net is cifar-resnet20 (3 channels)" in str(caught.value)
    assert theirs.zero_pad == "both"


def test_what_acts_in_training_only_may_differ(small_net):
    stored = small_net("vgg16", convs=(1,), widths=(4,), hidden=8)
    model = build(dataclasses.replace(stored.spec, dropout=0.1))
    assert transfer(model, stored, stored.classes).initialised == ()
    stored = small_net("cifar-highway8")
    assert transfer(build(dataclasses.replace(stored.spec, gate_bias=-1.0)), stored, stored.classes).initialised == ()


def test_parameters_keep_their_layout_and_the_optimiser_its_tensors(small_net):
    stored = small_net()
    model = build(stored.spec).to(memory_format=torch.channels_last)
    parameters = list(model.parameters())
    transfer(model, stored, stored.classes)
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), parameters, strict=True))
    assert model.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, small_net):
    stored = small_net()
    stored.model.layer2[0].conv1.weight.data[0, 0, 0, 0] = value
    with pytest.raises(ModelError, match=r"not finite \(layer2\.0\.conv1\.weight\)"):
        transfer(build(stored.spec), stored, stored.classes)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OwnSpec:
    width: int = 4
    num_classes: int = 3
    in_channels: int = 3
    head: str = "linear"

    def build(self):
        last = nn.Linear(self.width, self.num_classes)
        layers = [nn.Conv2d(3, self.width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last]
        if self.head == "conv":
            layers[1:] = [nn.Linear(30, 30), nn.Conv2d(self.width, self.num_classes, 1)]
        return nn.Sequential(*layers)


def own_net(**fields):
    spec = OwnSpec(**fields)
    return types.SimpleNamespace(model=build(spec), spec=spec, classes=("a", "b", "c"), name="own")


def test_a_net_of_ones_own_is_transferred_by_its_own_spec():
    stored = own_net()
    model = build(OwnSpec(num_classes=2))
    assert transfer(model, stored, ("x", "y")).initialised == ("3.weight", "3.bias")
    assert torch.equal(model[0].weight, stored.model[0].weight)
    with pytest.raises(ModelError, match="width is 4 there and 5 here"):
        transfer(build(OwnSpec(width=5)), stored, stored.classes)


def test_a_net_whose_logits_are_not_of_its_last_linear_layer_is_refused():
    stored = own_net(head="conv")
    with pytest.raises(ModelError, match="30 outputs"):
        transfer(build(OwnSpec(head="conv")), stored, stored.classes)
