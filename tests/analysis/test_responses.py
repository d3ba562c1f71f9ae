"""Responses of layers, against the tensors themselves and against BatchNorm's closed form (Fig. 7)."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from resnets.analysis.responses import (
    CLOSED_FORM_TOLERANCE,
    LayerResponse,
    closed_form,
    measure_responses,
    responses_on,
    sorted_by_magnitude,
    summarize,
)
from resnets.artifacts.model_folder import StoredModel
from resnets.data.preprocess import Preprocessor
from resnets.data.splits import ResidentSplit
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import DataError, ModelError, UserError
from resnets.specs.preprocess import Preprocess


def by_hand(model, images):
    """Return the output of every 3x3 layer after BatchNorm of a CIFAR net of basic blocks, in float64."""
    model = model.double()
    x = images.double()
    outputs = {"bn1": model.bn1(model.conv1(x))}
    x = F.relu(outputs["bn1"])
    for stage in ("layer1", "layer2", "layer3"):
        for number, block in enumerate(model.get_submodule(stage)):
            name = f"{stage}.{number}"
            outputs[f"{name}.bn1"] = block.bn1(block.conv1(x))
            outputs[f"{name}.bn2"] = block.bn2(block.conv2(F.relu(outputs[f"{name}.bn1"])))
            x = block(x)
    return {name: value.detach() for name, value in outputs.items()}


@pytest.mark.parametrize("name", ["cifar-resnet14", "cifar-plain14", "cifar-highway14"])
def test_responses_are_what_comes_out_of_batch_norm_before_relu_and_addition(trained_like, name):
    model, images = trained_like(name), torch.randn(11, 3, 32, 32)
    responses = measure_responses(model, images.split(4))
    expected = by_hand(model, images)
    assert [one.layer.norm for one in responses] == list(expected)
    assert [one.std for one in responses] == pytest.approx(
        [float(value.std(correction=0)) for value in expected.values()]
    )
    assert [one.mean for one in responses] == pytest.approx([float(x.mean()) for x in expected.values()], abs=1e-6)


@pytest.mark.parametrize("name", ["cifar-resnet20", "cifar-plain20", "cifar-highway20", "cifar-resnet56"])
def test_a_cifar_net_of_6n_plus_2_layers_has_6n_plus_1_responses_and_3n_blocks(name):
    model = build(model_spec(name), seed=0)
    depth = int(name[-2:])
    responses = measure_responses(model.eval(), [torch.randn(2, 3, 8, 8)])
    assert len(responses) == depth - 1
    assert sum(one.ends_block for one in responses) == (depth - 2) / 2
    assert all(one.layer.norm.endswith("bn2") for one in responses if one.ends_block)
    assert all(one.layer.convolution == one.layer.norm.replace("bn", "conv") for one in responses)


@pytest.mark.parametrize(
    ("name", "three_by_three", "every", "blocks"),
    [("resnet18", 16, 17, 8), ("plain18", 16, 17, 8), ("resnet34-c", 32, 33, 16), ("resnet50", 16, 49, 16)],
)
def test_projections_never_count_and_1x1_layers_where_asked(name, three_by_three, every, blocks):
    model = build(model_spec(name, num_classes=3), seed=0).eval()
    images = [torch.randn(1, 3, 32, 32)]
    assert len(measure_responses(model, images)) == three_by_three
    responses = measure_responses(model, images, every_layer=True)
    assert len(responses) == every
    assert sum(one.ends_block for one in responses) == blocks
    assert responses[0].layer.kernel == 7
    assert not any("downsample" in one.layer.norm for one in responses)


def test_the_variance_survives_a_large_mean_and_batches_of_any_size():
    """Sums of squares in float32 would lose it: the mean is 30,000 standard deviations."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1))
    nn.init.dirac_(model[0].weight)
    nn.init.constant_(model[1].bias, 4096.0)
    values = torch.randn(37, 1, 6, 6) / 8
    exact = F.batch_norm(values.double(), torch.zeros(1).double(), torch.ones(1).double(), eps=1e-5) + 4096
    (response,) = measure_responses(model, [values[:1], values[1:20], values[20:20], values[20:]])
    assert response.std == pytest.approx(float(exact.std(correction=0)), rel=1e-3)
    assert response.mean == pytest.approx(float(exact.mean()), abs=1e-3)


def test_the_closed_form_is_the_standard_deviation_of_channels_with_mean_beta_and_std_gamma():
    norm = nn.BatchNorm2d(7)
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.bias, -1, 3)
    values = torch.randn(50, 7, 9, 9, dtype=torch.float64)
    values = (values - values.mean((0, 2, 3), keepdim=True)) / values.std((0, 2, 3), keepdim=True, correction=0)
    values = (values * norm.weight[:, None, None] + norm.bias[:, None, None]).detach()
    assert closed_form(norm) == pytest.approx(float(values.std(correction=0)), rel=1e-6)
    assert closed_form(nn.BatchNorm2d(7, affine=False)) == 1


class OnAppleGpu(torch.Tensor):
    """A tensor that has no float64 until it is on the CPU."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        if function is torch.Tensor.double:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        result = super().__torch_function__(function, types, arguments, named or {})
        return result.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else result


def test_the_closed_form_needs_no_float64_on_the_device():
    norm = nn.BatchNorm2d(7)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = closed_form(norm)
    for name in ("weight", "bias"):
        setattr(norm, name, nn.Parameter(getattr(norm, name).detach().as_subclass(OnAppleGpu)))
    assert closed_form(norm) == expected


def stored_model(name, model):
    preprocess = Preprocess(resize_px=16, crop_px=16, mean=(110.0, 120.0, 130.0), std=(60.0, 50.0, 40.0))
    return StoredModel(
        model=model,
        spec=model_spec(name, num_classes=5),
        preprocessor=Preprocessor(preprocess),
        classes=tuple("abcde"),
        metrics={},
    )


def split_of(count):
    random = np.random.default_rng(0)
    # Low frequencies, as in photographs.
    coarse = random.integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    return ResidentSplit(images=coarse.repeat(4, 1).repeat(4, 2), labels=np.zeros(count, np.int64))


@pytest.mark.parametrize("name", ["cifar-resnet20", "cifar-plain20", "cifar-highway20"])
def test_with_statistics_of_the_images_responses_agree_with_the_closed_form(trained_like, name):
    """The self-check of Fig. 7: 3 %; without it a net with other statistics would pass unseen."""
    stored = stored_model(name, trained_like(name))
    weights = {key: value.clone() for key, value in stored.model.state_dict().items()}
    responses = responses_on(stored, split_of(300))
    assert summarize(responses).largest_deviation < CLOSED_FORM_TOLERANCE
    assert summarize(responses_on(stored, split_of(300), recalibrate=False)).largest_deviation > CLOSED_FORM_TOLERANCE
    after = stored.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in weights.items())


def test_a_batch_that_is_not_full_does_not_weigh_more_than_its_images(trained_like, monkeypatch):
    """Of 130 images, two would be a batch of their own and half of BatchNorm's statistics."""
    monkeypatch.setattr("resnets.analysis.responses._PIXELS_A_BATCH", 1)
    stored, batches = stored_model("cifar-resnet8", trained_like("cifar-resnet8")), []
    stored.model.conv1.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    responses = responses_on(stored, split_of(130))
    assert batches == [65, 65] * 2
    assert summarize(responses).largest_deviation < 1


def test_every_response_of_an_untrained_net_is_one():
    stored = stored_model("cifar-resnet20", build(model_spec("cifar-resnet20", num_classes=5), seed=0).eval())
    responses = responses_on(stored, split_of(128))
    assert [one.std for one in responses] == pytest.approx([1.0] * 19, rel=0.01)


def test_only_the_first_images_count(trained_like):
    stored = stored_model("cifar-resnet8", trained_like("cifar-resnet8"))
    split = split_of(300)
    first = ResidentSplit(images=split.images[:150], labels=split.labels[:150])
    assert responses_on(stored, split, images=150) == responses_on(stored, first)
    with pytest.raises(UserError, match="images is 1"):
        responses_on(stored, split, images=1)


@pytest.mark.parametrize("recalibrate", [True, False])
def test_progress_goes_on_layer_by_layer_and_ends_at_all_images(trained_like, recalibrate):
    stored = stored_model("cifar-resnet8", trained_like("cifar-resnet8"))
    seen = []
    split = split_of(60)
    responses = responses_on(
        stored, split, images=50, recalibrate=recalibrate, on_images=lambda *state: seen.append(state)
    )
    assert responses == responses_on(stored, split, images=50, recalibrate=recalibrate)
    done, of = zip(*seen, strict=True)
    assert set(of) == {100 if recalibrate else 50}
    assert list(done) == sorted(done)
    assert done[-1] == of[0]
    # All images are one batch: between its start and its end something is seen too.
    assert len(set(done)) >= 7
    assert not any(module._forward_hooks for module in stored.model.modules())


def test_nothing_stays_attached_and_the_mode_is_kept(trained_like):
    model = trained_like("cifar-resnet8").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def batches():
        yield torch.randn(2, 3, 32, 32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_responses(model, batches())
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class OwnBlock(nn.Module):
    """Names that say nothing, a convolution without BatchNorm, and a BatchNorm that follows none."""

    def __init__(self):
        super().__init__()
        self.first, self.other, self.gate = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.norm = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = F.relu(self.other(self.first(x)), inplace=True)
        return self.norm(self.last(self.gate(x) * 2))


def test_layers_of_a_net_of_ones_own_are_found_by_what_they_compute():
    (response,) = measure_responses(OwnBlock(), [torch.randn(2, 3, 9, 9)])
    assert (response.layer.convolution, response.layer.norm, response.layer.kernel) == ("first", "other", 3)


def test_a_net_without_batch_norm_and_no_images_are_refused(trained_like):
    with pytest.raises(ModelError, match="no 3x3 convolution that BatchNorm follows"):
        measure_responses(nn.Sequential(nn.Conv2d(3, 2, 3)), [torch.zeros(1, 3, 8, 8)])
    with pytest.raises(DataError, match="no images"):
        measure_responses(trained_like("cifar-resnet8"), [torch.zeros(0, 3, 32, 32)])


def test_summary_and_order(trained_like):
    responses = measure_responses(trained_like("cifar-resnet8"), [torch.randn(4, 3, 32, 32)])
    summary, values = summarize(responses), [one.std for one in responses]
    assert sorted_by_magnitude(responses) == sorted(values)[::-1]
    assert (summary.layers, summary.largest) == (7, max(values))
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.median == pytest.approx(np.median(values))
    assert summary.mean_of_block_ends == pytest.approx(np.mean(values[2::2]))


def test_a_layer_without_a_response_deviates_not_at_all_or_without_bound(trained_like):
    model = trained_like("cifar-resnet8")
    nn.init.zeros_(model.layer1[0].bn2.weight)
    nn.init.zeros_(model.layer1[0].bn2.bias)
    response = measure_responses(model, [torch.randn(4, 3, 32, 32)])[2]
    assert (response.std, response.deviation) == (0, 0)
    other = LayerResponse(layer=response.layer, ends_block=True, mean=0.0, std=1.0, closed_form=0.0)
    assert other.deviation == math.inf
