"""`resnets describe`: what it prints, what it refuses, and that it loads no torch."""

import json
import subprocess
import sys

import pytest

from resnets.cli.describe import main
from resnets.specs import io
from resnets.specs.catalogue import model_spec, names
from resnets.specs.counts import count_parameters
from resnets.specs.errors import UserError


def output_of(capsys, *arguments):
    assert main(list(arguments)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_every_net_is_listed_under_a_heading(capsys):
    lines = output_of(capsys).splitlines()
    listed = [line.split()[0] for line in lines if len(line.split()) >= 6 and line.split()[1].isdigit()]
    assert listed == list(names())


def test_the_list_fits_a_terminal_of_80_columns(capsys):
    assert max(map(len, output_of(capsys).splitlines()[:-1])) <= 80


def test_a_net_is_printed_like_its_column_of_table_1(capsys):
    text = output_of(capsys, "resnet50")
    for expected in (
        "7x7, 64, stride 2",
        "3x3 max pool, stride 2",
        "[1x1, 256; 3x3, 256; 1x1, 1024] x 6",
        "14 x 14",
        "25,557,032",
        "3,857,973,248",
        "option B",
        "stride on the first 1x1",
        "official stem pooling",
        "paper 3.8 G (Table 1), difference +0.058 G",
        "81.7 MB an image in fp32",
    ):
        assert expected in text


def test_vgg16_is_compared_the_way_the_paper_counts_it(capsys):
    text = output_of(capsys, "vgg16")
    assert "15.470 G (15.35 G in convolutions)   paper 15.3 G (Sec. 1), difference +0.047 G" in text


@pytest.mark.parametrize("name", list(names()))
def test_every_net_can_be_described(capsys, name):
    text = output_of(capsys, name)
    assert text.startswith(f"{name} ")
    assert "MB an image in fp32" in text


def test_json_is_one_document_with_the_promised_fields(capsys):
    net = json.loads(output_of(capsys, "resnet50", "--json"))
    assert net["name"] == "resnet50"
    assert net["depth"] == 50
    assert net["parameters"] == 25_557_032
    assert net["multiply_adds"] == 3_857_973_248
    assert net["input"] == [3, 224, 224]
    assert [stage["name"] for stage in net["stages"]] == [
        "conv1", "pool1", "conv2_x", "conv3_x", "conv4_x", "conv5_x", "head"
    ]  # fmt: skip
    assert net["stages"][3]["output"] == [28, 28]
    assert net["stages"][3]["blocks"] == 4
    assert net["paper"]["source"] == "Table 1"
    assert net["paper"]["multiply_adds"] == 3_800_000_000
    assert net["paper"]["difference"] == {"multiply_adds": 57_973_248}
    assert net["activation_bytes"]["fp32"] == 81_694_720


def test_the_list_as_json_has_every_net(capsys):
    nets = json.loads(output_of(capsys, "--json"))
    assert [net["name"] for net in nets] == list(names())


def test_another_head_and_input_are_counted_and_not_held_against_the_paper(capsys):
    net = json.loads(output_of(capsys, "resnet18", "--num-classes", "10", "--input-size", "448", "--json"))
    assert net["parameters"] == 11_689_512 - 990 * 513
    assert net["input"] == [3, 448, 448]
    assert net["multiply_adds"] == 4 * (1_814_073_344 - 512_000) + 5_120
    assert net["paper"] is None
    assert "its figures are for 224 x 224 pixels and 1000 classes" in output_of(
        capsys, "resnet18", "--num-classes", "10"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet51"], "Did you mean resnet50"),
        (["cifar-resnet21"], "6n\\+2"),
        (["vgg16", "--input-size", "16"], "16 x 16 pixels, too small"),
        (["resnet18", "--input-size", "0"], "0 x 0 pixels"),
        (["resnet18", "--input-size", "big"], "--input-size"),
        (["resnet18", "--num-classes", "0"], "at least 1"),
        (["resnet18", "--num", "10"], "--num"),
        (["--num-classes", "10"], "NAME"),
        (["resnet18", "resnet34"], "resnet34"),
    ],
)
def test_wrong_usage_is_refused_with_a_reason_and_prints_nothing(capsys, arguments, message):
    with pytest.raises(UserError, match=message):
        main(arguments)
    assert capsys.readouterr().out == ""


def test_describing_loads_no_torch():
    code = (
        "import sys; from resnets.cli.main import main; main(['describe', 'resnet50']); main(['describe']); "
        "print(sorted({'torch', 'torchvision', 'numpy', 'matplotlib', 'jaxtyping'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_model_folder_is_described_by_what_it_holds(tmp_path, capsys):
    spec = model_spec("resnet18-a", num_classes=7)
    config = {"format_version": 1, "model": io.to_json(spec)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    document = json.loads(output_of(capsys, str(tmp_path), "--json"))
    assert document["name"] == "resnet18-a"
    assert document["parameters"] == count_parameters(spec)
