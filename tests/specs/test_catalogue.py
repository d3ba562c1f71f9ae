"""Names of nets and their specs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.specs.catalogue import model_name, model_spec, names, paper_figures
from resnets.specs.errors import SpecError
from resnets.specs.model import ResNetSpec


@pytest.mark.parametrize("name", list(names()))
def test_a_name_comes_back_from_its_spec(name):
    # Basic blocks have no 1x1 convolution, so the version shows in the stem pooling alone; the name still returns.
    assert model_name(model_spec(name)) == name


@pytest.mark.parametrize("name", list(names()))
def test_the_number_in_a_name_is_the_depth(name):
    digits = "".join(filter(str.isdigit, name.removesuffix("-v1.5")))
    assert model_spec(name).depth == int(digits)


def test_names_are_distinct():
    assert len(set(names())) == len(list(names()))


@given(n=st.integers(1, 300), family=st.sampled_from(["resnet", "plain", "highway"]))
def test_cifar_nets_exist_for_every_depth_6n_plus_2(n, family):
    spec = model_spec(f"cifar-{family}{6 * n + 2}")
    assert spec.blocks == (n, n, n)
    assert spec.depth == 6 * n + 2


@given(depth=st.integers(9, 2000).filter(lambda depth: (depth - 2) % 6))
def test_other_cifar_depths_are_refused_with_the_neighbours(depth):
    with pytest.raises(SpecError, match="6n\\+2") as error:
        model_spec(f"cifar-resnet{depth}")
    neighbours = [6 * n + 2 for n in range(1, 400) if abs(6 * n + 2 - depth) < 6]
    assert all(f"cifar-resnet{neighbour}" in str(error.value) for neighbour in neighbours)


@pytest.mark.parametrize(
    ("wrong", "meant"), [("resnet51", "resnet50"), ("restnet18", "resnet18"), ("plain50", "plain"), ("vgg11", "vgg1")]
)
def test_an_unknown_name_is_answered_with_near_misses(wrong, meant):
    with pytest.raises(SpecError, match=f"Did you mean .*{meant}"):
        model_spec(wrong)


@pytest.mark.parametrize("name", ["vgg16-a", "plain34-b", "plain18-v1.5", "cifar-highway20-b", "cifar-resnet20-v1.5"])
def test_suffixes_that_a_family_does_not_have_are_refused(name):
    with pytest.raises(SpecError, match=name):
        model_spec(name)


def test_a_wrong_field_is_refused_with_those_that_exist():
    with pytest.raises(SpecError, match="num_classes"):
        model_spec("resnet18", num_clases=10)


@pytest.mark.parametrize(
    ("name", "shortcut", "stride_on", "stem_pool"),
    [
        ("resnet50", "B", "1x1", "official"),
        ("resnet50-v1.5", "B", "3x3", "torchvision"),
        ("resnet34-a", "A", "1x1", "official"),
        ("resnet18-c", "C", "1x1", "official"),
        ("plain34", "none", "1x1", "official"),
        ("cifar-resnet20", "A", "1x1", "none"),
        ("cifar-plain20", "none", "1x1", "none"),
    ],
)
def test_defaults_are_the_papers_and_suffixes_change_them(name, shortcut, stride_on, stem_pool):
    spec = model_spec(name)
    assert isinstance(spec, ResNetSpec)
    assert (spec.shortcut, spec.stride_on, spec.stem_pool) == (shortcut, stride_on, stem_pool)


def test_the_paper_prints_figures_only_for_nets_that_exist():
    printed = [name for name in names() if paper_figures(name) is not None]
    assert {"resnet152", "vgg19", "cifar-resnet1202"} <= set(printed)
    assert paper_figures("resnet50-v1.5") is None
