"""What is written for Caffe against what the authors' prototxts have: names, strides, shapes and numbers of layers."""

import re
from collections import Counter

import pytest
import torch

from resnets.models.build import build
from resnets.models.interop.caffe.deploy import deploy, parameter_names
from resnets.models.interop.caffe.layers import write_layers
from resnets.models.interop.caffe.protobuf import FormatError
from resnets.models.interop.caffe.prototxt import dump
from resnets.models.interop.caffe.schema import NET
from resnets.specs.catalogue import model_spec

BLOCKS = {
    50: ["2a 2b 2c", "3a 3b 3c 3d", "4a 4b 4c 4d 4e 4f", "5a 5b 5c"],
    101: ["2a 2b 2c", "3a 3b1 3b2 3b3", "4a " + " ".join(f"4b{i}" for i in range(1, 23)), "5a 5b 5c"],
    152: [
        "2a 2b 2c",
        "3a " + " ".join(f"3b{i}" for i in range(1, 8)),
        "4a " + " ".join(f"4b{i}" for i in range(1, 36)),
        "5a 5b 5c",
    ],
}
COUNTS = {50: (53, 53, 53, 49, 16), 101: (104, 104, 104, 100, 33), 152: (155, 155, 155, 151, 50)}


def written(name, side=None):
    """Return the layers of a deploy.prototxt, read by cutting the text at its outermost braces."""
    text = dump(write_layers(name, deploy(model_spec(name), side), weights=False), NET)
    blocks = re.findall(r"^layer \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("layer {")
    return [re.findall(r"(\w+): \"?([^\"\n]+)", block) for block in blocks]


def one(layer, field, default=None):
    found = [value for name, value in layer if name == field]
    assert len(found) <= 1 or field in ("bottom", "top", "dim")
    return found[0] if found else default


def named(name, side=None):
    return {one(layer, "name"): layer for layer in written(name, side)}


@pytest.mark.parametrize("depth", COUNTS)
def test_the_numbers_of_layers_are_those_of_the_authors_files(depth):
    kinds = Counter(one(layer, "type") for layer in written(f"resnet{depth}"))
    convolutions, norms, scales, relus, additions = COUNTS[depth]
    assert kinds == {
        "Convolution": convolutions, "BatchNorm": norms, "Scale": scales, "ReLU": relus, "Eltwise": additions,
        "Pooling": 2, "InnerProduct": 1, "Softmax": 1, "Input": 1,
    }  # fmt: skip


@pytest.mark.parametrize("depth", BLOCKS)
def test_names_and_their_order_are_those_of_the_authors_files(depth):
    expected = ["data", "conv1", "bn_conv1", "scale_conv1", "conv1_relu", "pool1"]
    for block in " ".join(BLOCKS[depth]).split():
        branches = ["branch1"] if block.endswith("a") else []
        for branch in [*branches, "branch2a", "branch2b", "branch2c"]:
            expected += [f"res{block}_{branch}", f"bn{block}_{branch}", f"scale{block}_{branch}"]
            expected += [f"res{block}_{branch}_relu"] if branch in ("branch2a", "branch2b") else []
        expected += [f"res{block}", f"res{block}_relu"]
    assert [one(layer, "name") for layer in written(f"resnet{depth}")] == [*expected, "pool5", "fc1000", "prob"]


@pytest.mark.parametrize("depth", BLOCKS)
def test_stride_2_is_exactly_where_the_authors_have_it(depth):
    strided = [one(layer, "name") for layer in written(f"resnet{depth}") if one(layer, "stride") == "2"]
    entries = [f"res{block}_{branch}" for block in ("3a", "4a", "5a") for branch in ("branch1", "branch2a")]
    assert strided == ["conv1", "pool1", *entries]


@pytest.mark.parametrize("depth", BLOCKS)
def test_windows_biases_and_connections_are_those_of_the_authors_files(depth):
    layers = named(f"resnet{depth}")
    assert [value for name, value in layers["data"] if name == "dim"] == ["1", "3", "224", "224"]
    stem = {name: one(layers["conv1"], name) for name in ("num_output", "kernel_size", "pad", "stride", "bottom")}
    assert stem == {"num_output": "64", "kernel_size": "7", "pad": "3", "stride": "2", "bottom": "data"}
    pool = {name: one(layers["pool1"], name, "none") for name in ("pool", "kernel_size", "stride", "pad", "round_mode")}
    assert pool == {"pool": "MAX", "kernel_size": "3", "stride": "2", "pad": "none", "round_mode": "none"}
    assert (one(layers["pool5"], "pool"), one(layers["pool5"], "kernel_size")) == ("AVE", "7")
    assert one(layers["fc1000"], "num_output") == "1000"
    previous = "pool1"
    for stage, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        for block in blocks.split():
            first = block.endswith("a")
            for branch, outputs, kernel, pad, bottom in (
                ("branch2a", width, 1, 0, previous),
                ("branch2b", width, 3, 1, f"res{block}_branch2a"),
                ("branch2c", 4 * width, 1, 0, f"res{block}_branch2b"),
                *([("branch1", 4 * width, 1, 0, previous)] if first else []),
            ):
                layer = layers[f"res{block}_{branch}"]
                found = [one(layer, name) for name in ("num_output", "kernel_size", "pad", "bias_term", "bottom")]
                assert found == [str(outputs), str(kernel), str(pad), "false", bottom]
            bottoms = [value for name, value in layers[f"res{block}"] if name == "bottom"]
            assert bottoms == [f"res{block}_branch1" if first else previous, f"res{block}_branch2c"]
            assert one(layers[f"res{block}"], "operation") == "SUM"
            previous = f"res{block}"
    assert one(layers["pool5"], "bottom") == previous


def test_batch_norm_scale_and_relu_work_in_place_with_stored_statistics():
    for name, layer in named("resnet50").items():
        match one(layer, "type"):
            case "BatchNorm":
                assert one(layer, "use_global_stats") == "true"
            case "Scale":
                assert one(layer, "bias_term") == "true"
            case "ReLU":
                pass
            case _:
                assert one(layer, "top") == name
                continue
        assert one(layer, "bottom") == one(layer, "top")


@pytest.mark.parametrize("name", ["resnet18", "resnet34-c", "resnet50", "resnet101-v1.5", "plain34", "vgg16"])
def test_every_weight_of_our_net_has_one_layer(name):
    spec = model_spec(name)
    with torch.device("meta"):
        keys = build(spec).state_dict()
    prefixes = parameter_names(spec)
    assert sorted(prefixes.values()) == sorted({key.rpartition(".")[0] for key in keys})
    assert set(prefixes) <= {layer.name for layer in deploy(spec)}


def test_version_1_5_pools_with_padding_and_rounds_down():
    layers = named("resnet50-v1.5")
    assert (one(layers["pool1"], "pad"), one(layers["pool1"], "round_mode")) == ("1", "FLOOR")
    strided = [name for name, layer in layers.items() if one(layer, "stride") == "2"]
    assert "res3a_branch2b" in strided
    assert "res3a_branch2a" not in strided


def test_a_plain_net_has_no_addition_and_a_relu_after_every_convolution():
    kinds = Counter(one(layer, "type") for layer in written("plain34"))
    assert (kinds["Eltwise"], kinds["Convolution"], kinds["ReLU"]) == (0, 33, 33)


def test_vgg16_has_the_names_of_its_authors():
    names = [one(layer, "name") for layer in written("vgg16")]
    stages = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    expected = ["data"]
    for stage, convolutions in stages.items():
        for number in range(1, convolutions + 1):
            expected += [f"conv{stage}_{number}", f"relu{stage}_{number}"]
        expected.append(f"pool{stage}")
    assert names == [*expected, "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8", "prob"]


def test_the_last_pool_covers_the_map_of_the_images_that_the_net_takes():
    assert one(named("resnet18", 96)["pool5"], "kernel_size") == "3"
    assert one(named("cifar-resnet20-b")["pool5"], "kernel_size") == "8"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet34-a", "zero channels"), ("cifar-resnet20", "zero channels"), ("cifar-highway20", "gates"),
    ],
)  # fmt: skip
def test_what_caffe_has_no_layers_for_is_refused_with_the_reason(name, reason):
    with pytest.raises(FormatError, match=reason):
        deploy(model_spec(name))


def test_sizes_that_a_net_cannot_take_are_refused():
    with pytest.raises(FormatError, match="224 x 224"):
        deploy(model_spec("vgg16"), 256)
    with pytest.raises(FormatError, match="_Own cannot be written"):
        deploy(type("_Own", (), {})())
