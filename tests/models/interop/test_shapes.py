import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnets.models.build import build
from resnets.models.interop.foreign import Hints
from resnets.models.interop.shapes import resolve, structure
from resnets.specs.catalogue import model_spec, names
from resnets.specs.errors import ModelError, SpecError
from resnets.specs.model import ResNetSpec

RESIDUAL = [name for name in names() if isinstance(model_spec(name), ResNetSpec) and "1202" not in name]


def shapes(spec):
    with torch.device("meta"):
        return build(spec).state_dict()


def fields(spec, *left_out):
    return {name: value for name, value in dataclasses.asdict(spec).items() if name not in left_out}


@pytest.mark.parametrize("name", RESIDUAL)
def test_every_net_of_the_paper_is_recognised_from_its_shapes_and_its_name(name):
    spec = model_spec(name, num_classes=7)
    found = structure(shapes(spec), "w.pth")
    hints = Hints(model=name, zero_pad="both" if spec.shortcut == "A" else None)
    resolved, missing = resolve(found, hints, "w.pth")
    expected = dataclasses.replace(spec, zero_pad="both") if spec.shortcut == "A" else spec
    assert (resolved, missing) == (expected, ())


@pytest.mark.parametrize("name", RESIDUAL)
def test_without_a_name_the_net_is_known_or_asked_for_with_its_own_name_among_the_choices(name):
    spec = model_spec(name)
    resolved, missing = resolve(structure(shapes(spec), "w.pth"), Hints(), "w.pth")
    if resolved is None:
        (flag,) = missing
        assert flag.startswith("--model NAME (")
        described = dict(choice.split(": ") for choice in flag.removeprefix("--model NAME (")[:-1].split("; "))
        assert name in described
        assert len(set(described.values())) == len(described)
        assert ("--zero-pad end|both" in described[name]) == (spec.shortcut == "A")
        first = next(iter(described))
        assert first.endswith("-v1.5") or spec.stem == "3x3" or not any(other.endswith("-v1.5") for other in described)
    else:
        assert resolved == spec
        assert spec.stem == "3x3"
        assert spec.shortcut in ("B", "C")


@given(
    block=st.sampled_from(["basic", "bottleneck"]),
    blocks=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    shortcut=st.sampled_from(["A", "B", "C", "none"]),
    stem=st.sampled_from(["7x7", "3x3"]),
    classes=st.integers(1, 5),
    channels=st.integers(1, 4),
)
def test_a_spec_of_any_size_fits_its_own_shapes_and_no_other_number_of_blocks(
    block, blocks, shortcut, stem, classes, channels
):
    spec = ResNetSpec(
        block=block,
        blocks=tuple(blocks),
        widths=tuple(2 + index for index in range(len(blocks))),
        stem=stem,
        stem_pool="official" if stem == "7x7" else "none",
        shortcut=shortcut,
        num_classes=classes,
        in_channels=channels,
    )
    found = structure(build(spec).state_dict(), "w.pth")
    assert resolve(found, Hints(model=spec), "w.pth") == (spec, ())
    other = dataclasses.replace(spec, blocks=(blocks[0] + 1, *blocks[1:]))
    with pytest.raises(ModelError, match="blocks"):
        resolve(found, Hints(model=other), "w.pth")


@pytest.mark.parametrize(
    ("file", "named"), list(itertools.permutations(["resnet18", "resnet34", "resnet50", "resnet18-c"], 2))
)
def test_a_model_that_does_not_fit_is_refused(file, named):
    with pytest.raises(ModelError, match=f"w.pth is not {named}: it has"):
        resolve(structure(shapes(model_spec(file)), "w.pth"), Hints(model=named), "w.pth")


@pytest.mark.parametrize("named", ["vgg16", "cifar-highway20"])
def test_another_kind_of_net_is_refused(named):
    with pytest.raises(ModelError, match=f"not {named}"):
        resolve(structure(shapes(model_spec("cifar-resnet20")), "w.pth"), Hints(model=named), "w.pth")


def test_a_format_that_decides_the_stem_and_the_stride_refuses_the_papers_variant():
    found = structure(shapes(model_spec("resnet50")), "w.pth")
    known = {"stem_pool": "torchvision", "stride_on": "3x3"}
    assert resolve(found, Hints(), "w.pth", **known) == (model_spec("resnet50-v1.5"), ())
    with pytest.raises(ModelError, match="stem_pool torchvision, not official; stride_on 3x3, not 1x1"):
        resolve(found, Hints(model="resnet50"), "w.pth", **known)


def test_option_a_by_name_asks_for_the_side_of_the_zeros_and_by_spec_does_not():
    found = structure(shapes(model_spec("cifar-resnet20")), "w.pth")
    spec, missing = resolve(found, Hints(model="cifar-resnet20"), "w.pth")
    assert spec is None
    assert missing[0].startswith("--zero-pad end|both")
    given_spec = model_spec("cifar-resnet20", zero_pad="both")
    assert resolve(found, Hints(model=given_spec), "w.pth") == (given_spec, ())


@pytest.mark.parametrize("hints", [Hints(zero_pad="end"), Hints(model="cifar-resnet20-b", zero_pad="end")])
def test_a_side_for_zeros_that_the_net_does_not_have_is_refused(hints):
    with pytest.raises(SpecError, match="--zero-pad"):
        resolve(structure(shapes(model_spec("cifar-resnet20-b")), "w.pth"), hints, "w.pth")


def without(weights, *parts):
    return {name: value for name, value in weights.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: without(weights, "fc."), "fc.weight is missing"),
        (lambda weights: without(weights, "layer2.0."), "without a gap"),
        (lambda weights: without(weights, "layer"), "without a gap"),
        (lambda weights: without(weights, "layer1.0.conv3"), "mixes"),
        (lambda weights: without(weights, "layer1.0.conv2"), "layer1.0.conv2.weight is missing"),
        (lambda weights: weights | {"conv1.weight": torch.ones(64, 3, 5, 5)}, "5x5"),
        (lambda weights: weights | {"conv1.weight": torch.ones(64)}, "shape (64,)"),
        (lambda weights: weights | {"layer9999.9999.conv1.weight": torch.ones(1)}, "without a gap"),
        (lambda weights: weights | {"conv1.0.weight": torch.ones(1)}, "ResNet-C, -D"),
        (lambda weights: weights | {"layer1.0.se.fc1.weight": torch.ones(1)}, "squeeze"),
    ],
)
def test_shapes_that_no_net_of_the_paper_has_are_refused(change, words):
    with pytest.raises(ModelError) as caught:
        structure(change(shapes(model_spec("resnet50"))), "w.pth")
    assert words in str(caught.value)


def test_projections_in_odd_blocks_are_refused():
    weights = without(shapes(model_spec("resnet18")), "layer3.0.downsample")
    with pytest.raises(ModelError, match="neither option B"):
        resolve(structure(weights, "w.pth"), Hints(), "w.pth")
