"""Rows of Table 1 in words."""

import pytest

from resnets.specs.architecture import stages, variant
from resnets.specs.catalogue import model_spec, names
from resnets.specs.counts import count_multiply_adds, count_parameters, input_size


def test_rows_of_resnet50_are_the_50_layer_column_of_table_1():
    rows = [(row.name, row.output, row.layers) for row in stages(model_spec("resnet50"), 224, 224)]
    assert rows == [
        ("conv1", (112, 112), "7x7, 64, stride 2"),
        ("pool1", (56, 56), "3x3 max pool, stride 2"),
        ("conv2_x", (56, 56), "[1x1, 64; 3x3, 64; 1x1, 256] x 3"),
        ("conv3_x", (28, 28), "[1x1, 128; 3x3, 128; 1x1, 512] x 4"),
        ("conv4_x", (14, 14), "[1x1, 256; 3x3, 256; 1x1, 1024] x 6"),
        ("conv5_x", (7, 7), "[1x1, 512; 3x3, 512; 1x1, 2048] x 3"),
        ("head", (1, 1), "average pool, 1000-way fc"),
    ]


def test_rows_of_vgg16_show_its_convolutions_and_pools():
    rows = {row.name: row.layers for row in stages(model_spec("vgg16"), 224, 224)}
    assert rows["conv3_x"] == "[3x3, 256] x 3"
    assert rows["pool3"] == "2x2 max pool, stride 2"
    assert rows["head"] == "average pool, 4096-, 4096-, 1000-way fc"


@pytest.mark.parametrize("name", list(names()))
def test_rows_add_up_to_the_whole_net(name):
    spec = model_spec(name)
    rows = stages(spec, *input_size(spec))
    assert sum(row.parameters for row in rows) == count_parameters(spec)
    assert sum(row.multiply_adds for row in rows) == count_multiply_adds(spec, *input_size(spec))


def test_nets_that_compute_different_functions_are_described_differently():
    specs = [model_spec(f"resnet50{suffix}") for suffix in ("", "-a", "-c", "-v1.5")]
    specs += [model_spec("cifar-resnet20"), model_spec("cifar-resnet20", zero_pad="both"), model_spec("cifar-plain20")]
    assert len({tuple(variant(spec)) for spec in specs}) == len(specs)
