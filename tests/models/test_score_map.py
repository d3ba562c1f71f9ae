"""Nets in their fully convolutional form, against windows cut out of the last map by hand."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from resnets.models.blocks import BasicBlock
from resnets.models.build import build
from resnets.models.fold import fold_batch_norm
from resnets.models.resnet import ResNet
from resnets.specs.catalogue import model_spec
from resnets.specs.model import VGGSpec

TINY_VGG = VGGSpec(convs=(1, 1, 1, 1, 1), widths=(4, 4, 6, 6, 8), hidden=10, num_classes=7)
SPECS = {
    "resnet": (dataclasses.replace(model_spec("resnet18", num_classes=7), widths=(4, 6, 8, 10)), 224, 7),
    "bottleneck": (dataclasses.replace(model_spec("resnet50", num_classes=7), widths=(2, 3, 4, 5)), 96, 3),
    "plain": (dataclasses.replace(model_spec("plain18", num_classes=7), widths=(4, 6, 8, 10)), 64, 2),
    "cifar": (model_spec("cifar-resnet8", num_classes=7), 32, 8),
    "highway": (model_spec("cifar-highway8", num_classes=7), 32, 8),
    "vgg": (TINY_VGG, 224, 7),
    "vgg of a small crop": (TINY_VGG, 96, 3),
    "vgg of a large crop": (TINY_VGG, 320, 10),
}


def trained_like(spec, dtype=torch.float64):
    """A net whose BatchNorm has statistics and whose biases are not zero."""
    net = build(spec, seed=1).to(dtype)
    with torch.no_grad():
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            if name.endswith(("running_mean", "bias")):
                value.copy_(torch.randn_like(value) * 0.3)
            elif name.endswith("running_var"):
                value.copy_(torch.rand_like(value) + 0.5)
    return net.eval()


def last_map(net, x):
    if isinstance(net, ResNet):
        return list(net.features(x).values())[-1]
    for layer in net.features:
        x = layer(x)
    return x


def scores_of_map(net, pixels):
    """The layers behind the last map, as `forward` has them."""
    if isinstance(net, ResNet):
        return net.fc(pixels.mean(dim=(2, 3)))
    return net.classifier(nn.functional.adaptive_avg_pool2d(pixels, 7).flatten(1))


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_of_a_training_crop_it_is_forward(name):
    spec, crop, window = SPECS[name]
    net = trained_like(spec)
    x = torch.randn(2, 3, crop, crop, dtype=torch.float64)
    assert net.score_map(x, 1).shape == (2, 7, window, window)
    for form in (window, None):
        scores = net.score_map(x, form)
        assert scores.shape == (2, 7, 1, 1)
        torch.testing.assert_close(scores[:, :, 0, 0], net(x))


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_every_location_is_a_window_of_the_last_map(name):
    spec, crop, window = SPECS[name]
    net = trained_like(spec)
    x = torch.randn(2, 3, crop + 70, crop + 35, dtype=torch.float64)
    pixels = last_map(net, x)
    rows, columns = pixels.shape[2] - window + 1, pixels.shape[3] - window + 1
    scores = net.score_map(x, window)
    assert scores.shape == (2, 7, rows, columns)
    assert rows > 1
    for row in range(rows):
        for column in range(columns):
            cut = pixels[:, :, row : row + window, column : column + window]
            torch.testing.assert_close(scores[:, :, row, column], scores_of_map(net, cut))


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_the_global_form_is_forward_and_in_general_not_the_mean_of_the_windows(name):
    spec, crop, window = SPECS[name]
    net = trained_like(spec)
    x = torch.randn(2, 3, crop + 70, crop + 35, dtype=torch.float64)
    one = net.score_map(x, None)[:, :, 0, 0]
    torch.testing.assert_close(one, net(x))
    windows = net.score_map(x, window)
    assert (windows.mean(dim=(2, 3)) - one).abs().max() > 1e-6  # of float64


@torch.no_grad()
def test_both_forms_agree_where_all_pixels_of_the_map_are_equal():
    net = trained_like(SPECS["resnet"][0])
    net._last_map = lambda x: x[:, :1].expand(-1, 10, -1, -1)
    x = torch.full((1, 3, 9, 12), 0.7, dtype=torch.float64)
    windows = net.score_map(x, 7)
    assert windows.shape == (1, 7, 3, 6)
    torch.testing.assert_close(windows, net.score_map(x, None).expand_as(windows))


@pytest.mark.parametrize("name", ["resnet", "vgg"])
@torch.no_grad()
def test_a_map_smaller_than_the_window_is_averaged_whole(name):
    net = trained_like(SPECS[name][0])
    x = torch.randn(1, 3, 160, 256, dtype=torch.float64)
    torch.testing.assert_close(net.score_map(x, 7)[:, :, 0, 0], net(x))


@pytest.mark.parametrize("name", ["resnet", "bottleneck", "plain", "cifar", "highway"])
@torch.no_grad()
def test_folding_batch_norm_changes_no_logit_and_leaves_the_net_alone(name):
    net = trained_like(SPECS[name][0])
    before = copy.deepcopy(net.state_dict())
    folded = fold_batch_norm(net)
    x = torch.randn(2, 3, 64, 80, dtype=torch.float64)
    torch.testing.assert_close(folded(x), net(x))
    torch.testing.assert_close(folded.score_map(x, None), net.score_map(x, None))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


class _NormLast(BasicBlock):
    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(torch.relu(self.conv1(x)))))
        return torch.relu(out + self.downsample(x))


@torch.no_grad()
def test_of_blocks_that_order_their_layers_otherwise_nothing_is_folded():
    torch.manual_seed(0)
    net = ResNet(model_spec("cifar-resnet8"), _NormLast).double()
    net(torch.randn(8, 3, 32, 32, dtype=torch.float64))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(fold_batch_norm(net.eval())(x), net(x))


def test_folding_keeps_the_memory_layout_and_returns_other_nets_as_they_are():
    net = trained_like(SPECS["resnet"][0]).to(memory_format=torch.channels_last)
    for module in fold_batch_norm(net).modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
    vgg = build(TINY_VGG)
    assert fold_batch_norm(vgg) is vgg


class PreActivation(nn.Module):
    """A block of the user's own whose BatchNorm comes before its convolution, under the same names."""

    def __init__(self, in_channels, width, stride, spec):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1)

    def forward(self, x):
        return self.conv1(self.bn1(x).relu())


@torch.no_grad()
def test_blocks_of_ones_own_are_not_folded():
    torch.manual_seed(0)
    net = ResNet(SPECS["cifar"][0], PreActivation).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(fold_batch_norm(net)(x), net(x), atol=1e-5, rtol=1e-5)
