"""Blocks and shortcuts, against the formulas of Sec. 3.2 and 3.3 written out."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from resnets.models.blocks import BasicBlock, Bottleneck, ZeroPadShortcut, shortcut
from resnets.specs.errors import SpecError
from resnets.specs.model import ResNetSpec


def spec_of(block="basic", **fields):
    return ResNetSpec(block=block, blocks=(1,), widths=(4,), stem="3x3", **{"shortcut": "A", **fields})


def randomise_batch_norm(module):
    """Give every BatchNorm statistics and affine values under which a mistake shows."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.running_var):
                tensor.uniform_(0.5, 2)
            for tensor in (norm.bias.data, norm.running_mean):
                tensor.uniform_(-1, 1)


def conv_bn(x, conv, norm, stride, padding):
    x = F.conv2d(x, conv.weight, stride=stride, padding=padding)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)


@given(
    missing=st.integers(0, 7),
    stride=st.sampled_from([1, 2]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    zero_pad=st.sampled_from(["end", "both"]),
)
def test_option_a_keeps_every_strideth_pixel_and_adds_zero_channels(missing, stride, height, width, zero_pad):
    x = torch.randn(2, 3, height, width)
    out = ZeroPadShortcut(3, 3 + missing, stride, zero_pad)(x)
    before = missing // 2 if zero_pad == "both" else 0
    assert torch.equal(out[:, before : before + 3], x[:, :, ::stride, ::stride])
    assert out.shape[1] == 3 + missing
    assert not out[:, :before].any()
    assert not out[:, before + 3 :].any()


def test_option_a_keeps_channels_last():
    x = torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last)
    assert ZeroPadShortcut(16, 32, 2, "end")(x).is_contiguous(memory_format=torch.channels_last)


def test_option_a_cannot_drop_channels():
    with pytest.raises(SpecError, match="from 8 to 4 channels"):
        ZeroPadShortcut(8, 4, 2, "end")


@pytest.mark.parametrize(
    ("option", "same", "kind"),
    [
        ("A", True, nn.Identity),
        ("B", True, nn.Identity),
        ("C", True, nn.Sequential),
        ("A", False, ZeroPadShortcut),
        ("B", False, nn.Sequential),
        ("C", False, nn.Sequential),
        ("none", True, type(None)),
        ("none", False, type(None)),
    ],
)
def test_each_option_has_its_shortcut(option, same, kind):
    assert isinstance(shortcut(4, 4 if same else 8, 1 if same else 2, spec_of(shortcut=option)), kind)


def test_a_projection_is_used_when_only_the_channels_change():
    assert isinstance(shortcut(4, 16, 1, spec_of(shortcut="B")), nn.Sequential)


@pytest.mark.parametrize("option", ["A", "B", "C", "none"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_basic_block_is_the_papers_formula(option, stride):
    block = BasicBlock(3, 6, stride, spec_of(shortcut=option)).eval()
    randomise_batch_norm(block)
    x = torch.randn(2, 3, 9, 7)
    expected = F.relu(conv_bn(x, block.conv1, block.bn1, stride, 1))
    expected = conv_bn(expected, block.conv2, block.bn2, 1, 1)
    if option == "A":
        expected[:, :3] += x[:, :, ::stride, ::stride]
    elif option in ("B", "C"):
        expected += conv_bn(x, *block.downsample, stride, 0)
    torch.testing.assert_close(block(x.clone()), F.relu(expected))


@pytest.mark.parametrize("option", ["A", "B", "none"])
@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
def test_a_bottleneck_is_the_papers_formula(option, stride_on):
    block = Bottleneck(3, 2, 2, spec_of("bottleneck", shortcut=option, stride_on=stride_on)).eval()
    randomise_batch_norm(block)
    x = torch.randn(2, 3, 9, 7)
    first, second = (2, 1) if stride_on == "1x1" else (1, 2)
    expected = F.relu(conv_bn(x, block.conv1, block.bn1, first, 0))
    expected = F.relu(conv_bn(expected, block.conv2, block.bn2, second, 1))
    expected = conv_bn(expected, block.conv3, block.bn3, 1, 0)
    if option == "A":
        expected[:, :3] += x[:, :, ::2, ::2]
    elif option == "B":
        expected += conv_bn(x, *block.downsample, 2, 0)
    torch.testing.assert_close(block(x.clone()), F.relu(expected))


@pytest.mark.parametrize("block", [BasicBlock(8, 8, 1, spec_of()), Bottleneck(8, 2, 1, spec_of("bottleneck"))])
def test_a_block_leaves_its_input_as_it_was(block):
    x = torch.randn(2, 8, 5, 5)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


def test_gradients_of_a_block_are_those_of_its_formula():
    block = BasicBlock(2, 4, 2, spec_of()).double()
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


def test_convolutions_have_no_bias_and_batch_norm_the_usual_constants():
    block = Bottleneck(4, 4, 2, spec_of("bottleneck", shortcut="B"))
    assert all(module.bias is None for module in block.modules() if isinstance(module, nn.Conv2d))
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 4
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}
