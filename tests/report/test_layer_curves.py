"""The two halves of Fig. 7 as a picture."""

import re

import pytest
from PIL import Image

from resnets.report.layer_curves import LayerValues, draw_layer_values


def net(label, *values, group="20", dashed=False):
    return LayerValues(label=label, values=values, group=group, dashed=dashed)


NETS = [
    net("plain-20", 1.0, 3.0, 2.0, dashed=True),
    net("ResNet-20", 0.5, 0.25, 1.0),
    net("ResNet-56", 0.5, group="56"),
]


def test_a_picture_has_both_halves_the_names_and_their_means(tmp_path):
    draw_layer_values(NETS, tmp_path / "figure.svg", title="Fig. 7")
    text = (tmp_path / "figure.svg").read_text()
    comments = re.findall(r"<!-- (.*?) -->", text)
    for word in ("Fig. 7", "in the order of the layers", "sorted by magnitude", "standard deviation", "layer"):
        assert word in comments
    assert "plain-20   mean 2.00" in comments
    assert "ResNet-20   mean 0.58" in comments
    assert text.count("stroke-dasharray") >= 2


def test_nets_of_a_group_share_their_colour_and_groups_do_not(tmp_path):
    draw_layer_values(NETS, tmp_path / "figure.svg")
    colors = set(re.findall(r"#[0-9a-f]{6}", (tmp_path / "figure.svg").read_text()))
    assert {"#d55e00", "#0072b2"} <= colors
    assert "#009e73" not in colors


def test_the_same_values_are_the_same_file(tmp_path):
    for name in ("one.svg", "two.svg"):
        draw_layer_values(NETS, tmp_path / name, title="net")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_png_is_drawn_and_no_net_is_refused(tmp_path):
    draw_layer_values(NETS[:1], tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert min(picture.size) > 500
    with pytest.raises(ValueError, match="no nets"):
        draw_layer_values([], tmp_path / "none.png")
