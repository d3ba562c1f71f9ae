"""Residual and plain nets as whole modules."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from resnets.models.blocks import shortcut
from resnets.models.build import build
from resnets.models.features import FeatureShape
from resnets.models.resnet import ResNet, stem_pool
from resnets.specs.catalogue import model_spec
from resnets.specs.model import ResNetSpec

TINY = ResNetSpec(block="basic", blocks=(1, 2), widths=(4, 8), stem="3x3", shortcut="A", num_classes=3)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "cifar-resnet20", "cifar-plain20", "cifar-highway20", "vgg16"]
)
def test_feature_maps_have_the_shapes_that_are_announced(name):
    fields = {"hidden": 8} if name == "vgg16" else {}
    model = build(model_spec(name, num_classes=2, **fields), seed=0).eval()
    with torch.no_grad():
        maps = model.features(torch.randn(1, 3, 64, 96))
    shapes = model.feature_shapes()
    assert list(maps) == list(shapes)
    for stage, shape in shapes.items():
        assert maps[stage].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)


def test_stages_of_resnet50_have_the_papers_names_and_strides():
    with torch.device("meta"):
        model = build(model_spec("resnet50"))
    assert model.feature_shapes() == {
        "conv2_x": FeatureShape(256, 4),
        "conv3_x": FeatureShape(512, 8),
        "conv4_x": FeatureShape(1024, 16),
        "conv5_x": FeatureShape(2048, 32),
    }


def test_logits_are_the_head_on_the_averaged_last_map():
    model = ResNet(TINY).eval()
    x = torch.randn(2, 3, 9, 9)
    last = list(model.features(x).values())[-1]
    torch.testing.assert_close(model(x), model.fc(last.mean((2, 3))))


@pytest.mark.parametrize(("in_channels", "num_classes"), [(1, 2), (4, 1), (3, 100)])
def test_any_number_of_channels_and_classes_works(in_channels, num_classes):
    model = ResNet(dataclasses.replace(TINY, in_channels=in_channels, num_classes=num_classes))
    assert model(torch.randn(2, in_channels, 8, 8)).shape == (2, num_classes)


def test_official_pooling_is_caffes_and_torchvisions_is_padded():
    x = torch.randn(1, 1, 6, 6)
    # Caffe's window i covers pixels 2i to 2i + 2, cut off at the border; torchvision's begins one pixel earlier.
    official = [[x[0, 0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(3)] for i in range(3)]
    padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    torchvision = [[padded[0, 0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(3)] for i in range(3)]
    assert torch.equal(stem_pool("official")(x)[0, 0], torch.tensor(official))
    assert torch.equal(stem_pool("torchvision")(x)[0, 0], torch.tensor(torchvision))
    assert stem_pool("official")(torch.zeros(1, 1, 112, 112)).shape[-1] == 56


def test_stem_stages_and_strides_are_those_of_table_1():
    with torch.device("meta"):
        model = build(model_spec("resnet50"))
    strided = [
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)
    ]
    entries = [f"layer{stage}.0.{conv}" for stage in (2, 3, 4) for conv in ("conv1", "downsample.0")]
    assert strided == ["conv1", *entries]
    with torch.device("meta"):
        newer = build(model_spec("resnet50-v1.5"))
    assert newer.layer2[0].conv1.stride == (1, 1)
    assert newer.layer2[0].conv2.stride == (2, 2)


def test_plain_and_residual_nets_have_the_same_state_and_differ_in_their_output():
    plain, residual = (build(model_spec(f"cifar-{family}20"), seed=3) for family in ("plain", "resnet"))
    assert list(plain.state_dict()) == list(residual.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), residual.parameters(), strict=True))
    x = torch.randn(4, 3, 32, 32)
    assert not torch.allclose(plain(x), residual(x))
    for net in (plain, residual):
        blocks = [block for stage in net.stages() for block in stage]
        assert all((block.downsample is None) == (net is plain) for block in blocks)


def test_channels_last_and_the_default_layout_give_the_same_logits_and_keep_their_layout():
    model = build(model_spec("cifar-resnet20"), seed=0).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in model.features(x).values())


def test_a_block_from_outside_fits_into_the_papers_skeleton():
    class LateReluBlock(nn.Module):
        def __init__(self, in_channels, width, stride, spec):
            super().__init__()
            self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.shortcut = shortcut(in_channels, width, stride, spec)

        def forward(self, x):
            return F.relu(self.bn1(self.conv1(x))) + self.shortcut(x)

    model = ResNet(TINY, LateReluBlock)
    assert sum(isinstance(module, LateReluBlock) for module in model.modules()) == 3
    loss = model(torch.randn(2, 3, 8, 8)).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["cifar-resnet8", "cifar-highway8"])
def test_the_graph_is_captured_whole(name):
    model = build(model_spec(name), seed=0).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.export.export(model, (x,), strict=False).module()(x), model(x))
