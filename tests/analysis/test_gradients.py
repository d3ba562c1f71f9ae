"""Gradient norms, against autograd on a net written out and against finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from resnets.analysis.gradients import LayerGradient, first_to_last, gradient_norms
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import DataError, ModelError


def batch(count=6, side=16, classes=10):
    return torch.randn(count, 3, side, side), torch.randint(classes, (count,))


@pytest.mark.parametrize("name", ["cifar-resnet8", "cifar-plain8", "cifar-highway8", "resnet18"])
def test_norms_of_weight_gradients_are_those_of_a_backward_pass(name):
    model = build(model_spec(name, num_classes=10), seed=0)
    images, labels = batch()
    layers = {layer.name: layer for layer in gradient_norms(model, images, labels)}
    F.cross_entropy(model.train()(images), labels).backward()
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert set(layers) == set(convolutions)
    for name, module in convolutions.items():
        assert layers[name].weight_gradient_norm == pytest.approx(float(module.weight.grad.norm()), rel=1e-4)
        assert layers[name].weight_norm == pytest.approx(float(module.weight.detach().norm()), rel=1e-6)


def test_the_norm_of_an_output_gradient_is_the_slope_along_it():
    """The directional derivative along the gradient, by finite differences in float64, is its norm."""
    model = build(model_spec("cifar-plain8"), seed=0).double()
    images, labels = batch()
    images = images.double()

    def loss(shift):
        handle = model.layer2[0].bn1.register_forward_hook(lambda module, inputs, output: output + shift)
        value = F.cross_entropy(model(images), labels)
        handle.remove()
        return value

    shift = torch.zeros(6, 32, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(shift), shift)
    step = 1e-5 * gradient / gradient.norm()
    with torch.no_grad():
        slope = float(loss(step) - loss(-step)) / 2e-5
    found = next(one for one in gradient_norms(model, images, labels) if one.name == "layer2.0.conv1")
    assert found.output_norm == pytest.approx(slope, rel=1e-5)


def test_the_scale_of_weights_before_batch_norm_does_not_matter():
    """Pixels of 0..255 in the place of 0..1 leave the gradient of the first response as it is."""
    model = build(model_spec("cifar-resnet8"), seed=0)
    images, labels = batch()
    before = gradient_norms(model, images, labels)[0]
    model.conv1.weight.data.mul_(64)
    after = gradient_norms(model, images, labels)[0]
    assert after.output_norm == pytest.approx(before.output_norm, rel=1e-3)
    assert after.weight_gradient_norm == pytest.approx(before.weight_gradient_norm / 64, rel=1e-3)


def test_the_model_stays_as_it_is():
    model = build(model_spec("cifar-resnet8"), seed=0).eval()
    model.conv1.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        gradient_norms(model, *batch())
    assert not model.training
    assert not model.conv1.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_layers_are_in_the_order_of_the_forward_pass():
    names = [layer.name for layer in gradient_norms(build(model_spec("cifar-resnet8")), *batch())]
    assert names[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert names[-1] == "layer3.0.conv2"


def test_gradients_of_a_new_deep_plain_net_vanish_without_batch_norm_alone():
    """With it, those that come back to the first layer are no weaker than those of the last (Sec. 4.1)."""
    images, labels = batch(16, 8)
    with_norm, without = (build(model_spec("cifar-plain56"), seed=0) for _ in range(2))
    for module in list(without.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d):
                child.weight.data.mul_(0.7)
    assert first_to_last(gradient_norms(with_norm, images, labels)) > 0.5
    assert first_to_last(gradient_norms(without, images, labels)) < 1e-3


def test_vgg_with_its_relus_in_place_and_its_dropout_gives_the_same_twice():
    model = build(model_spec("vgg16", num_classes=10, hidden=8, widths=(4, 4, 8, 8, 8)), seed=0)
    images, labels = batch(4, 32)
    assert gradient_norms(model, images, labels) == gradient_norms(model, images, labels)


def test_shares_of_norms():
    def layer(output, gradient=1.0, weight=2.0):
        return LayerGradient(name="", output_norm=output, weight_gradient_norm=gradient, weight_norm=weight)

    assert first_to_last([layer(2.0), layer(0.5), layer(4.0)]) == 0.5
    assert first_to_last([layer(0.0)]) == 1
    assert first_to_last([layer(1.0), layer(0.0)]) == math.inf
    assert layer(1.0).relative == 0.5
    assert layer(1.0, 1.0, 0.0).relative == math.inf
    assert layer(1.0, 0.0, 0.0).relative == 0


def test_one_image_and_a_net_without_convolutions_are_refused():
    model = build(model_spec("cifar-resnet8"))
    images, labels = batch(2)
    with pytest.raises(DataError, match="1 images and 1 labels"):
        gradient_norms(model, images[:1], labels[:1])
    with pytest.raises(DataError, match="2 images and 1 labels"):
        gradient_norms(model, images, torch.tensor([0]))
    with pytest.raises(ModelError, match="no convolution"):
        gradient_norms(nn.Flatten(), images, labels)
