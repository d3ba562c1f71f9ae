"""Specs as JSON."""

import dataclasses
import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.recipes.find import recipe
from resnets.specs import io
from resnets.specs.catalogue import model_spec, names
from resnets.specs.data import PadCrop
from resnets.specs.errors import SpecError
from resnets.specs.model import ModelSpec
from resnets.specs.run import TrainSpec, shorten


@pytest.mark.parametrize("name", list(names()))
def test_every_net_survives_its_round_trip(name):
    spec = model_spec(name)
    assert io.from_json(ModelSpec, json.loads(json.dumps(io.to_json(spec)))) == spec


@given(st.floats(min_value=1e-6, max_value=10), st.integers(min_value=0, max_value=2**62), st.integers(1, 10**6))
def test_numbers_survive_exactly(lr, seed, steps):
    spec = recipe("cifar10.resnet20")
    spec = dataclasses.replace(spec, optimizer=dataclasses.replace(spec.optimizer, base_lr=lr), seed=seed, steps=steps)
    assert io.from_json(TrainSpec, json.loads(json.dumps(io.to_json(spec)))) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimiser": 1}, r"no field 'optimiser'. Did you mean optimizer"),
        ({"steps": "many"}, r"TrainSpec.steps is 'many'; it is of type int"),
        ({"steps": True}, r"of type int"),
        ({"precision": "fp8"}, r"'fp8'; it is one of 'fp32', 'bf16', 'fp16'"),
        ({"schedule": {"kind": "Stepdecay"}}, r"'Stepdecay'; it is one of StepDecay, Plateau, Cosine"),
        ({"schedule": 3}, r"an object"),
        ({"model": {"kind": "somewhere:Spec"}}, r"not loaded; import somewhere first"),
        ({"model": {"kind": "ResNetSpec"}}, r"lacks the field"),
        ({"steps": 0}, r"at least 1"),
        ({"label_smoothing": 10**400}, r"TrainSpec.label_smoothing is 10{76}\.\.\.; no float is as large"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(change, message):
    with pytest.raises(SpecError, match=message):
        io.from_json(TrainSpec, io.to_json(recipe("cifar10.resnet20")) | change)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoNet:
    """A dataclass that happens to be loaded."""


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("resnets.specs.run:Machine", "is of resnets itself; here it is one of ResNetSpec, HighwaySpec, VGGSpec, or"),
        ("resnets.specs.model:ResNetSpec", "is of resnets itself"),
        ("resnets:Machine", "is of resnets itself"),
        ("loaded_by_test:TrainSpec", "is of resnets itself"),
        ("loaded_by_test:NoNet", r"has no method build\(\) -> nn.Module"),
        ("loaded_by_test:dataclasses", "is not loaded"),
        ("loaded_by_test:", "is not loaded"),
        (":NoNet", "is not loaded"),
    ],
)
def test_a_class_that_is_no_net_from_outside_is_no_kind_of_model(monkeypatch, tag, message):
    monkeypatch.setitem(sys.modules, "loaded_by_test", sys.modules[__name__])
    with pytest.raises(SpecError, match=message):
        io.from_json(ModelSpec, {"kind": tag})


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("optimizer", {"base_lr": math.inf}, "base_lr is inf; it is above 0 and finite"),
        ("optimizer", {"base_lr": math.nan}, "base_lr is nan; it is above 0 and finite"),
        ("optimizer", {"weight_decay": math.inf}, "weight_decay is inf; it is 0 or more and finite"),
        ("dataset", {"image_px": 100_000, "resize_px": 100_000}, "resized image, which has at most 4096"),
        ("dataset", {"std": (1.0, 1.0, math.nan)}, "std is .*nan.*; every value is above 0 and finite"),
        ("dataset", {"mean": (1.0, math.inf, 1.0)}, "mean is .*inf.*; every value is finite"),
        ("optimizer", {"weight_decay": math.nan}, "weight_decay is nan; it is 0 or more and finite"),
        ("augment", {"max_resize_px": 10**10}, "at least 1 and at most 4096"),
    ],
)
def test_values_that_no_run_can_use_are_refused_before_it_begins(field, change, message):
    spec = recipe("imagenet.resnet18")
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(getattr(spec, field), **change)


@pytest.mark.parametrize("steps", [10**9 + 1, 10**400])
def test_more_steps_than_a_run_can_have_are_refused(steps):
    spec = recipe("imagenet.resnet18")
    with pytest.raises(SpecError, match="at least 1 and at most a billion"):
        shorten(spec, steps)
    with pytest.raises(SpecError, match="at least 1 and at most a billion"):
        dataclasses.replace(spec, global_batch=steps)


@pytest.mark.parametrize("pad_px", [-1, 33])
def test_padding_beyond_the_images_is_refused(pad_px):
    with pytest.raises(SpecError, match=r"pad_px is .*at least 0 and at most 32"):
        PadCrop(pad_px=pad_px)


def test_the_hash_ignores_the_label_and_nothing_else():
    spec = recipe("cifar10.resnet20")
    assert io.spec_hash(spec) == io.spec_hash(dataclasses.replace(spec, recipe="mine"))
    assert io.spec_hash(spec) != io.spec_hash(dataclasses.replace(spec, seed=1))


def test_differences_name_the_fields():
    spec = recipe("cifar10.resnet20")
    other = dataclasses.replace(spec, seed=1, optimizer=dataclasses.replace(spec.optimizer, base_lr=0.2))
    assert io.differences(io.to_json(spec), io.to_json(other)) == ["optimizer.base_lr: 0.1 -> 0.2", "seed: 0 -> 1"]


@pytest.mark.parametrize(
    "value",
    [
        [0] * 10_000,
        {"kind": "x" * 10_000},
        {"kind": "ResNetSpec", "y" * 10_000: 1},
        io.to_json(model_spec("resnet18")) | {"block": "z" * 10_000},
        io.to_json(model_spec("resnet18")) | {"blocks": "z" * 10_000},
        io.to_json(model_spec("resnet18")) | {"num_classes": "z" * 10_000},
    ],
)
def test_a_long_value_is_shortened_in_the_message(value):
    with pytest.raises(SpecError) as caught:
        io.from_json(ModelSpec, value, "spec.json")
    assert str(caught.value).startswith("spec.json")
    assert "..." in str(caught.value)
    assert len(str(caught.value)) < 300
