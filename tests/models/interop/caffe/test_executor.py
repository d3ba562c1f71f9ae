"""The executor against loops over pixels in float64, and against our nets."""

import itertools
import math

import numpy as np
import pytest
import torch

from resnets.models.interop.caffe.executor import CaffeNet
from resnets.models.interop.caffe.operations import (
    Addition,
    BatchNorm,
    Convolution,
    Copy,
    Ending,
    InnerProduct,
    Input,
    Layer,
    Pooling,
    ReLU,
    Scale,
)
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import ModelError

SIDES = [(1, 1), (4, 5), (6, 6), (7, 8), (9, 7)]


def flattened(*layers):
    """A net of some layers whose logits are all values of the last map."""
    chain, bottom = [Layer("data", Input(), (), ("data",))], "data"
    for number, (operation, blobs) in enumerate(layers):
        chain.append(Layer(f"l{number}", operation, (bottom,), (f"l{number}",), blobs))
        bottom = f"l{number}"
    return chain, bottom


def run(x, *layers):
    """Return the output of some layers on an array (n, c, h, w)."""
    chain, bottom = flattened(*layers)
    count = reference_size(x, layers)
    identity = np.eye(count)
    chain.append(Layer("fc", InnerProduct(count, bias=False), (bottom,), ("fc",), (identity,)))
    return CaffeNet(chain, "test", bgr=False)(torch.from_numpy(x)).numpy()


def reference_size(x, layers):
    for operation, blobs in layers:
        x = loops(x, operation, blobs)
    return x[0].size


def loops(x, operation, blobs=()):
    match operation:
        case Convolution():
            return convolution_by_loops(x, operation, *blobs)
        case Pooling():
            return pooling_by_loops(x, operation)


def convolution_by_loops(x, settings, weight, bias=None):
    n, _, height, width = x.shape
    pad, stride, dilation = settings.pad, settings.stride, settings.dilation
    reach = dilation * (settings.kernel - 1) + 1
    out_h, out_w = ((side + 2 * pad - reach) // stride + 1 for side in (height, width))
    inputs, outputs = weight.shape[1], settings.outputs // settings.groups
    y = np.zeros((n, settings.outputs, out_h, out_w))
    for image, out, i, j in np.ndindex(y.shape):
        first = out // outputs * inputs
        for channel, a, b in np.ndindex(weight.shape[1:]):
            row, column = i * stride - pad + a * dilation, j * stride - pad + b * dilation
            if 0 <= row < height and 0 <= column < width:
                y[image, out, i, j] += weight[out, channel, a, b] * x[image, first + channel, row, column]
        y[image, out, i, j] += 0 if bias is None else bias[out]
    return y


def pooling_by_loops(x, settings):
    """Caffe's rule: sizes rounded up, windows clipped, and padding, but nothing beyond it, counted in an average."""
    n, channels, height, width = x.shape
    kernel, stride, pad = settings.kernel, settings.stride, settings.pad
    if settings.whole_map:
        return (x.max if settings.kind == "max" else x.mean)(axis=(2, 3), keepdims=True)
    rounding = math.floor if settings.floor else math.ceil
    sizes = []
    for side in (height, width):
        size = int(rounding((side + 2 * pad - kernel) / stride)) + 1
        sizes.append(size - 1 if pad and (size - 1) * stride >= side + pad else size)
    y = np.zeros((n, channels, *sizes))
    for image, channel, i, j in np.ndindex(y.shape):
        top, left = i * stride - pad, j * stride - pad
        bottom, right = min(top + kernel, height + pad), min(left + kernel, width + pad)
        area = (bottom - top) * (right - left)
        window = x[image, channel, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        y[image, channel, i, j] = window.max() if settings.kind == "max" else window.sum() / area
    return y


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "dilation", "groups", "bias"),
    [
        (1, 1, 0, 1, 1, False), (1, 2, 0, 1, 1, True), (3, 1, 1, 1, 1, False), (3, 2, 1, 1, 1, True),
        (7, 2, 3, 1, 1, False), (3, 1, 2, 2, 1, False), (3, 2, 1, 1, 2, True), (2, 3, 0, 1, 4, False),
    ],
)  # fmt: skip
def test_convolution_equals_loops(kernel, stride, pad, dilation, groups, bias):
    generator = np.random.default_rng(0)
    settings = Convolution(8, kernel, stride, pad, bias, groups, dilation)
    blobs = [generator.standard_normal((8, 4 // groups, kernel, kernel))]
    blobs += [generator.standard_normal(8)] if bias else []
    x = generator.standard_normal((2, 4, 7, 6))
    expected = convolution_by_loops(x, settings, *blobs)
    np.testing.assert_allclose(
        run(x, (settings, tuple(blobs))).reshape(expected.shape), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("floor", [False, True])
def test_pooling_equals_loops_for_all_windows(kind, floor):
    generator = np.random.default_rng(0)
    tried = 0
    for kernel, stride, pad, sides in itertools.product((1, 2, 3, 4), (1, 2, 3), (0, 1, 2), SIDES):
        if pad >= kernel or stride > kernel or min(sides) + 2 * pad < kernel:
            continue
        settings = Pooling(kind, kernel, stride, pad, floor)
        x = generator.standard_normal((1, 1, *sides)) - 3  # below zero, so that padding with zeros would show
        expected = pooling_by_loops(x, settings)
        np.testing.assert_allclose(run(x, (settings, ())).reshape(expected.shape), expected, rtol=1e-12)
        tried += 1
    assert tried > 60


@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_of_the_whole_map_equals_loops(kind):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4))
    settings = Pooling(kind, whole_map=True)
    expected = pooling_by_loops(x, settings)
    np.testing.assert_allclose(run(x, (settings, ())).reshape(expected.shape), expected, rtol=1e-12)


def test_caffes_pool_after_conv1_gives_56_pixels_without_padding_and_57_with_it():
    """112 pixels after conv1: the authors' form, torchvision's rounded up as Caffe does, and torchvision's."""
    x = np.zeros((1, 1, 112, 112))
    sides = [
        math.isqrt(run(x, (Pooling("max", 3, 2, pad, floor), ())).shape[1])
        for pad, floor in ((0, False), (1, False), (1, True))
    ]
    assert sides == [56, 57, 56]


def test_layers_work_in_place_and_on_copies_as_the_file_says():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 3, 2, 2))
    mean, variance, gamma, beta = (generator.uniform(0.5, 1, 3) for _ in range(4))
    weight, bias = generator.standard_normal((5, 12)), generator.standard_normal(5)
    layers = [
        Layer("data", Input(), (), ("data", "label")),
        Layer("split", Copy("Split"), ("data",), ("left", "right")),
        Layer("bn", BatchNorm(1e-3), ("left",), ("left",), (mean * 4, variance * 4, np.array([4.0]))),
        Layer("scale", Scale(), ("left",), ("left",), (gamma, beta)),
        Layer("relu", ReLU(), ("left",), ("left",)),
        Layer("sum", Addition(), ("left", "right"), ("sum",)),
        Layer("drop", Copy("Dropout", 0.5), ("sum",), ("sum",)),
        Layer("flat", Copy("Flatten"), ("sum",), ("flat",)),
        Layer("fc", InnerProduct(5), ("flat",), ("fc",), (weight.reshape(1, 1, 5, 12), bias)),
        Layer("prob", Ending("Softmax"), ("fc",), ("prob",)),
    ]
    by_channel = [values[:, None, None] for values in (mean, variance, gamma, beta)]
    left = np.maximum((x - by_channel[0]) / np.sqrt(by_channel[1] + 1e-3) * by_channel[2] + by_channel[3], 0)
    expected = (left + x).reshape(2, -1) @ weight.T + bias
    np.testing.assert_allclose(CaffeNet(layers, "t", bgr=False)(torch.from_numpy(x)).numpy(), expected, rtol=1e-12)
    swapped = CaffeNet(layers, "t")(torch.from_numpy(x[:, ::-1].copy())).numpy()
    np.testing.assert_allclose(swapped, expected, rtol=1e-12)


def test_a_factor_of_0_makes_the_statistics_0():
    blobs = np.array([3.0]), np.array([5.0]), np.array([0.0])
    layers = [
        Layer("data", Input(), (), ("data",)),
        Layer("bn", BatchNorm(), ("data",), ("bn",), blobs),
        Layer("fc", InnerProduct(1, bias=False), ("bn",), ("fc",), (np.eye(1),)),
    ]
    found = CaffeNet(layers, "t")(torch.ones(1, 1, 1, 1, dtype=torch.float64)).item()
    assert found == pytest.approx(1 / math.sqrt(1e-5))


@pytest.mark.parametrize(
    "fields",
    [
        {"stem_pool": "official"}, {"stem_pool": "torchvision"}, {"stem": "3x3"}, {"shortcut": "C"},
        {"shortcut": "none"}, {"block": "bottleneck", "stem_pool": "official"},
        {"block": "bottleneck", "stride_on": "3x3"}, {"blocks": (1, 2, 1), "widths": (4, 8, 16), "in_channels": 1},
    ],
)  # fmt: skip
def test_our_nets_give_the_same_logits_in_float64(small, net, caffe_layers, fields):
    model = net(small(**fields)).double()
    side = 32 if model.spec.stem == "3x3" else 96
    images = torch.randn(2, model.spec.in_channels, side, side, dtype=torch.float64)
    layers = caffe_layers(net(small(**fields)), side)
    with torch.no_grad():
        expected = model(images)
    assert expected.std() > 1e-4
    torch.testing.assert_close(CaffeNet(layers, "t")(images), expected, rtol=1e-9, atol=1e-12)


def test_resnet18_at_224_pixels_gives_the_same_logits(net, caffe_layers):
    model = net(model_spec("resnet18"))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(CaffeNet(caffe_layers(model), "t")(images), expected, rtol=1e-5, atol=1e-6)


def test_images_of_a_size_that_the_net_cannot_take_name_the_layer(small, net, caffe_layers):
    layers = caffe_layers(net(small()), 96)
    with pytest.raises(ModelError, match="layer 'fc3' cannot take images of 128 x 128"):
        CaffeNet(layers, "net.caffemodel")(torch.zeros(1, 3, 128, 128))
