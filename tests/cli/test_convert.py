import json

import pytest
import torch
from safetensors.torch import load_file

import resnets
from resnets.cli.main import main
from resnets.models.build import build
from resnets.specs.catalogue import model_spec


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def checkpoint(tmp_path):
    """A CIFAR checkpoint with option A, and the flags for what it does not say."""
    spec = model_spec("cifar-resnet20", zero_pad="both")
    weights = {
        f"module.{name}".replace(".fc.", ".linear."): value for name, value in build(spec, seed=0).state_dict().items()
    }
    torch.save({"state_dict": weights, "best_prec1": 91.0}, tmp_path / "ckpt.th.pth")
    (tmp_path / "names.txt").write_text("".join(f"class {index}\n" for index in range(10)))
    flags = "--model cifar-resnet20 --zero-pad both --mean 125.3,123.0,113.9 --std 63,62.1,66.7 --class-names names.txt"
    return ["convert", "ckpt.th.pth", *flags.split()]


def refused(arguments, capsys, *words):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    for word in words:
        assert word in output.err, output.err
    assert output.err.count("\n") == 1
    return output.err


def test_a_cifar_checkpoint_becomes_a_model_that_predicts(checkpoint, capsys, tmp_path):
    assert main([*checkpoint, "models/resnet20", "--licence", "research only"]) == 0
    output = capsys.readouterr().out
    assert "ckpt.th.pth (cifar) -> models/resnet20 (resnets)" in output
    assert "cifar-resnet20 (zero_pad=both): option A" in output
    assert "half on each side" in output
    assert "10 classes; shorter side 32, crop 32, bilinear; rgb, mean 125.3,123,113.9, std 63,62.1,66.7" in output
    assert "largest difference " in output
    assert "2 random and 2 real images" in output
    assert "licence: research only" in output
    net = resnets.load("models/resnet20")
    assert net.stored.licence == "research only"
    weights = torch.load("ckpt.th.pth", weights_only=True)["state_dict"]
    assert torch.equal(net.model.state_dict()["fc.weight"], weights["module.linear.weight"])
    assert main(["convert", "models/resnet20", "back.pth", "--to", "cifar"]) == 0
    back = torch.load("back.pth", weights_only=True)
    assert all(torch.equal(value, weights[f"module.{name}"]) for name, value in back.items())


def test_json_is_one_document_on_stdout(checkpoint, capsys):
    assert main([*checkpoint, "m", "--json"]) == 0
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert output.err == ""
    assert (report["from"], report["to"], report["name"]) == ("cifar", "resnets", "cifar-resnet20 (zero_pad=both)")
    assert report["max_difference"] <= 1e-4 * report["largest_logit"]
    assert (report["classes"], report["licence"], report["preprocess"]["crop_px"]) == (10, "", 32)


def test_all_that_is_missing_is_named_in_one_line(checkpoint, capsys, tmp_path):
    before = set(tmp_path.iterdir())
    message = refused(
        ["convert", "ckpt.th.pth", "m"], capsys, "--model", "--zero-pad", "--mean", "--std", "--class-names"
    )
    assert (
        "--model NAME (cifar-resnet20: identity shortcuts padded with zeros (give --zero-pad end|both too); " in message
    )
    assert "cifar-plain20: no shortcuts" in message
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--mean": "0.49,0.48,0.45"}, ["multiply by 255"]),
        ({"--mean": "red"}, ["--mean is 'red'"]),
        ({"--std": "1,2,x"}, ["--std is '1,2,x'"]),
        ({"--model": "cifar-resnet32"}, ["is not cifar-resnet32"]),
        ({"--model": "cifar-resnet21"}, ["6n+2"]),
        ({"--model": "resnet18"}, ["is not resnet18"]),
        ({"--model": "odd.json"}, ["--model odd.json is {'a': ", '"kind"', "..."]),
        ({"--model": "broken.json"}, ["broken.json is not valid JSON"]),
        ({"--mean": "5,1,900"}, ["--mean is 5,1,900; pixels are in 0..255"]),
        ({"--model": "cifar-plain20"}, ["--zero-pad"]),
        ({"--zero-pad": "left"}, ["--zero-pad"]),
        ({"--class-names": "none.txt"}, ["none.txt"]),
    ],
)
def test_a_wrong_value_is_refused(checkpoint, capsys, tmp_path, change, words):
    arguments = list(checkpoint)
    for flag, value in change.items():
        arguments[arguments.index(flag) + 1] = value
    (tmp_path / "odd.json").write_text(json.dumps({"a": list(range(10_000))}))
    (tmp_path / "broken.json").write_text("{")
    before = set(tmp_path.iterdir())
    assert len(refused([*arguments, "m"], capsys, *words)) < 700
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", [["", "m"], ["w.pth", ""], ["  ", "m"]])
def test_an_empty_path_is_named(capsys, arguments):
    refused(["convert", *arguments], capsys, "is empty")


def test_a_size_of_no_pixels_is_refused(checkpoint, capsys):
    refused([*checkpoint, "m", "--crop", "0"], capsys, "--crop is 0")
    refused([*checkpoint, "m", "--resize", "0", "--crop", "0"], capsys, "--resize is 0")


def test_the_report_says_what_was_declared_and_what_is_not_in_the_files(checkpoint, capsys):
    assert main([*checkpoint, "back.pth", "--to", "cifar"]) == 0
    output = capsys.readouterr().out
    assert "variant declared with --model and --zero-pad: the files do not tell it" in output
    assert "not in these files: class names, normalisation, licence\n" in output
    assert output.endswith("licence: not stated\n")


def test_a_licence_that_would_act_on_a_terminal_is_refused_for_a_model_of_ours_too(checkpoint, capsys):
    assert main([*checkpoint, "ours"]) == 0
    capsys.readouterr()
    message = refused(["convert", "ours", "copy", "--licence", "mit\x1b[2J"], capsys, "--licence", "U+001B")
    assert "\x1b" not in message


def test_a_model_of_no_name_is_given_as_a_file(capsys, tmp_path):
    spec = resnets.build("resnet18", widths=(4, 8, 16, 32), num_classes=2).spec
    torch.save(build(spec, seed=0).state_dict(), "w.pth")
    (tmp_path / "names.txt").write_text("a\nb\n")
    arguments = ["convert", "w.pth", "m", "--mean", "1.5,2,3", "--std", "9,9,9", "--class-names", "names.txt"]
    refused(arguments, capsys, "--model SPEC.json")
    from resnets.specs import io

    (tmp_path / "spec.json").write_text(json.dumps(io.to_json(spec)))
    assert main([*arguments, "--model", "spec.json", "--crop", "64", "--resize", "64"]) == 0
    assert resnets.load("m").stored.spec == spec


def test_a_run_becomes_another_programs_file_and_our_own_takes_no_hints(capsys):
    assert main(["train", "digits.resnet8", "--steps", "2", "--run", "trained", "--device", "cpu", "--quiet"]) == 0
    capsys.readouterr()
    refused(["convert", "trained", "x", "--mean", "1.5,1,1"], capsys, "says everything itself")
    refused(["convert", "trained", "x.pth", "--to", "cifar"], capsys, "cannot express cifar-resnet8", "all at the end")
    refused(["convert", "trained", "x.pth"], capsys, "torchvision cannot express cifar-resnet8", "7x7 stem")
    assert main(["convert", "trained", "copy", "--licence", "cc0"]) == 0
    ours, copy = resnets.load("trained"), resnets.load("copy")
    assert copy.stored.licence == "cc0"
    assert copy.classes == ours.classes
    weights = load_file("trained/model/model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in copy.model.state_dict().items())


def test_a_hostile_pickle_is_refused_without_being_executed(capsys, tmp_path):
    class Hostile:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"conv1.weight": torch.ones(4, 3, 3, 3), "x": Hostile()}, "w.pth")
    refused(["convert", "w.pth", "m"], capsys, "w.pth was refused", "could execute code")


def test_the_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--to", "--from", "--model", "--zero-pad", "--mean", "--std", "--mean-image", "--resize", "--crop",
                 "--color", "--class-names", "--licence", "--json"):  # fmt: skip
        assert flag in text
