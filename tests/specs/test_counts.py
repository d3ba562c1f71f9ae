"""Counts from the spec, against PAPER's numbers typed in by hand and against modules that really run."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.counts import activation_bytes, count_multiply_adds, count_parameters, input_size, layers
from resnets.specs.errors import SpecError
from resnets.specs.model import HighwaySpec, ResNetSpec, VGGSpec

IMAGENET = {
    # net: (parameters, multiply-adds at 224 x 224)
    "plain18": (11_515_688, 1_794_805_760),
    "resnet18-a": (11_515_688, 1_794_805_760),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet18-v1.5": (11_689_512, 1_814_073_344),
    "resnet18-c": (12_043_816, 1_878_298_624),
    "plain34": (21_623_848, 3_644_493_824),
    "resnet34-a": (21_623_848, 3_644_493_824),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet34-v1.5": (21_797_672, 3_663_761_408),
    "resnet34-c": (22_716_840, 3_830_747_136),
    "resnet50": (25_557_032, 3_857_973_248),
    "resnet50-v1.5": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_570_194_432),
    "resnet101-v1.5": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_282_415_616),
    "resnet152-v1.5": (60_192_808, 11_513_626_624),
    "resnet50-a": (22_780_456, 3_498_311_680),
    "resnet50-c": (40_128_552, 6_324_224_000),
    "resnet101-a": (41_772_584, 7_210_532_864),
    "resnet101-c": (76_981_288, 13_530_300_416),
    "resnet152-a": (57_416_232, 10_922_754_048),
    "resnet152-c": (107_335_720, 20_736_376_832),
    "resnet50-a-v1.5": (22_780_456, 3_729_522_688),
    "resnet50-c-v1.5": (40_128_552, 6_555_435_008),
    "resnet101-a-v1.5": (41_772_584, 7_441_743_872),
    "resnet101-c-v1.5": (76_981_288, 13_761_511_424),
    "resnet152-a-v1.5": (57_416_232, 11_153_965_056),
    "resnet152-c-v1.5": (107_335_720, 20_967_587_840),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
}
STAGES = {
    # net: multiply-adds of conv2_x, conv3_x, conv4_x, conv5_x
    "resnet18": (462_422_016, 411_041_792, 411_041_792, 411_041_792),
    "resnet34": (693_633_024, 873_463_808, 1_335_885_824, 642_252_800),
    "resnet50": (667_942_912, 950_534_144, 1_387_266_048, 732_168_192),
    "resnet101": (667_942_912, 950_534_144, 5_099_487_232, 732_168_192),
    "resnet152": (667_942_912, 1_823_997_952, 7_938_244_608, 732_168_192),
}
CIFAR = {
    # depth: (parameters of option A and plain, multiply-adds, parameters of option B, of option C)
    8: (75_290, 12_239_488, 78_042, 78_330),
    14: (172_506, 26_395_264, 175_258, 181_146),
    20: (269_722, 40_551_040, 272_474, 283_962),
    32: (464_154, 68_862_592, 466_906, 489_594),
    44: (658_586, 97_174_144, 661_338, 695_226),
    56: (853_018, 125_485_696, 855_770, 900_858),
    110: (1_727_962, 252_887_680, 1_730_714, 1_826_202),
    1202: (19_421_274, 2_829_238_912, 19_424_026, 20_538_714),
}


def stage_multiply_adds(spec, name):
    return sum(layer.multiply_adds for layer in layers(spec, 224, 224) if layer.stage == name)


@pytest.mark.parametrize(("name", "expected"), IMAGENET.items(), ids=IMAGENET)
def test_imagenet_nets_have_the_known_parameters_and_multiply_adds(name, expected):
    spec = model_spec(name)
    assert (count_parameters(spec), count_multiply_adds(spec, 224, 224)) == expected


@pytest.mark.parametrize(("name", "expected"), STAGES.items(), ids=STAGES)
def test_every_stage_has_the_known_multiply_adds(name, expected):
    spec = model_spec(name)
    assert tuple(stage_multiply_adds(spec, f"conv{number}_x") for number in (2, 3, 4, 5)) == expected
    assert stage_multiply_adds(spec, "conv1") == 118_013_952
    assert stage_multiply_adds(spec, "head") == (512_000 if name in ("resnet18", "resnet34") else 2_048_000)


@pytest.mark.parametrize(("depth", "expected"), CIFAR.items(), ids=str)
def test_cifar_nets_have_the_known_parameters_and_multiply_adds(depth, expected):
    option_a, multiply_adds, option_b, option_c = expected
    net = model_spec(f"cifar-resnet{depth}")
    assert count_parameters(net) == count_parameters(model_spec(f"cifar-plain{depth}")) == option_a
    assert count_multiply_adds(net, 32, 32) == multiply_adds
    assert count_parameters(model_spec(f"cifar-resnet{depth}-b")) == option_b
    assert count_parameters(model_spec(f"cifar-resnet{depth}-c")) == option_c


@pytest.mark.parametrize(("name", "expected"), [("vgg16", 15_346_630_656), ("vgg19", 19_508_428_800)])
def test_vgg_can_be_counted_without_its_fully_connected_layers(name, expected):
    assert count_multiply_adds(model_spec(name), 224, 224, convolutions_only=True) == expected


def test_parts_of_resnet50_have_the_known_parameters():
    found = layers(model_spec("resnet50"), 224, 224)

    def parameters(kind, branch):
        return sum(layer.parameters for layer in found if (layer.kind, layer.branch) == (kind, branch))

    assert parameters("conv", "main") == 20_686_016
    assert parameters("conv", "projection") == 2_768_896
    assert parameters("bn", "main") == 45_440
    assert parameters("bn", "projection") == 7_680
    assert parameters("fc", "main") == 2_049_000


widths = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(sorted).map(tuple)
zero_pads = st.sampled_from(["end", "both"])
ends = {"num_classes": st.integers(1, 4), "in_channels": st.integers(1, 4)}


def of_family(spec_class, **fields):
    """Draw the fields of small specs of one class; the test makes the spec, since its checks draw random numbers."""
    counts_of_blocks = st.lists(st.integers(1, 2), min_size=3, max_size=3)
    drawn = st.fixed_dictionaries({"blocks": counts_of_blocks, "widths": widths, **ends, **fields})

    def make(values):
        blocks = tuple(values.pop("blocks")[: len(values["widths"])])
        return spec_class, {"convs" if spec_class is VGGSpec else "blocks": blocks, **values}

    return drawn.map(make)


residual = {
    "block": st.sampled_from(["basic", "bottleneck"]),
    "shortcut": st.sampled_from(["A", "B", "C", "none"]),
    "zero_pad": zero_pads,
    "stride_on": st.sampled_from(["1x1", "3x3"]),
}
small_nets = st.one_of(
    of_family(ResNetSpec, **residual, stem=st.just("3x3")),
    of_family(
        ResNetSpec,
        **residual,
        stem=st.just("7x7"),
        stem_pool=st.sampled_from(["official", "torchvision", "none"]),
    ),
    of_family(HighwaySpec, zero_pad=zero_pads),
    of_family(VGGSpec, hidden=st.just(5), dropout=st.sampled_from([0.0, 0.5])),
)
sizes = st.tuples(st.integers(16, 41), st.integers(16, 41))


@given(net=small_nets, size=sizes)
def test_layers_are_those_of_the_built_net(net, size):
    spec = net[0](**net[1])
    model = build(spec, seed=0)
    seen = {}

    def record(name):
        def hook(module, inputs, output):
            seen[name] = (sum(p.numel() for p in module.parameters()), tuple(output.shape[1:]))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            module.register_forward_hook(record(name))
    model.eval()(torch.zeros(1, spec.in_channels, *size))
    expected = {
        layer.name: (
            layer.parameters,
            (layer.out_channels,) if layer.kind == "fc" else (layer.out_channels, layer.height, layer.width),
        )
        for layer in layers(spec, *size)
        if layer.kind != "pool"
    }
    assert seen == expected


@given(net=small_nets, size=sizes)
def test_activation_memory_is_what_autograd_saves(net, size):
    spec = net[0](**net[1])
    assert saved_by_one_more_image(spec, size) == activation_bytes(spec, *size, 4)


@pytest.mark.parametrize("name", ["resnet18-a", "resnet50-v1.5", "cifar-highway20", "cifar-plain20"])
def test_activation_memory_of_the_papers_nets_is_what_autograd_saves(name):
    spec = model_spec(name)
    assert saved_by_one_more_image(spec, (40, 40)) == activation_bytes(spec, 40, 40, 4)


def saved_by_one_more_image(spec, size):
    """Bytes kept for three images minus those for two, so that what does not depend on the batch drops out."""
    model = build(spec, seed=0)
    return saved_bytes(model, (3, spec.in_channels, *size)) - saved_bytes(model, (2, spec.in_channels, *size))


def saved_bytes(model, shape):
    """Bytes of the distinct tensors, weights aside, that a forward pass in training mode keeps."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(torch.randn(shape))
    assert output.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_half_precision_halves_all_but_the_indices_of_max_pools():
    spec = model_spec("resnet50")
    indices = 64 * 56 * 56 * 8
    full, half = activation_bytes(spec, 224, 224, 4), activation_bytes(spec, 224, 224, 2)
    assert full - indices == 2 * (half - indices)


@settings(max_examples=10)
@given(classes=st.integers(1, 2000), channels=st.integers(1, 8))
def test_other_ends_change_only_the_ends(classes, channels):
    spec = model_spec("resnet18")
    other = dataclasses.replace(spec, num_classes=classes, in_channels=channels)
    change = 513 * (classes - 1000) + 64 * 49 * (channels - 3)
    assert count_parameters(other) - count_parameters(spec) == change


def test_the_papers_input_is_32_pixels_for_cifar_and_224_for_imagenet():
    assert input_size(model_spec("cifar-resnet20")) == input_size(model_spec("cifar-highway20")) == (32, 32)
    assert input_size(model_spec("resnet50")) == input_size(model_spec("vgg16")) == (224, 224)


@pytest.mark.parametrize(("name", "side"), [("vgg16", 31), ("resnet18", 2), ("resnet18", 0)])
def test_an_image_too_small_for_the_net_is_refused(name, side):
    with pytest.raises(SpecError, match=f"{side} x {side} pixels"):
        layers(model_spec(name), side, side)


@pytest.mark.parametrize(("name", "side"), [("vgg16", 32), ("resnet18", 3), ("cifar-resnet20", 1)])
def test_the_smallest_image_that_is_counted_also_runs(name, side):
    spec = model_spec(name, num_classes=2, **({"hidden": 8} if name == "vgg16" else {}))
    layers(spec, side, side)
    assert build(spec, seed=0).eval()(torch.zeros(1, 3, side, side)).shape == (1, 2)


def test_a_spec_from_outside_is_refused_by_name():
    @dataclass(frozen=True)
    class MySpec:
        pass

    with pytest.raises(SpecError, match="MySpec"):
        layers(MySpec(), 32, 32)
