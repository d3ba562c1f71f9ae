"""The README's commands exist and its Python runs to the point where it would need the reader's photographs."""

import re
import shlex
from pathlib import Path

import pytest

from resnets.cli.main import COMMANDS, main
from resnets.paper.core.find import canonical_name, experiment

README = Path(__file__).parents[1] / "README.md"
LINES = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
]
RESNETS = [line[1:] for line in LINES if line[:1] == ["resnets"]]


def test_there_are_commands_to_check():
    assert {line[0] for line in RESNETS} == set(COMMANDS) - {"demo"}


@pytest.mark.parametrize("arguments", [line for line in RESNETS if line[0] == "train"], ids=shlex.join)
def test_every_training_command_resolves(arguments, capsys):
    extra = [] if "--list" in arguments else ["--print-config"]
    assert main([*arguments, *extra]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("arguments", [line for line in RESNETS if line[0] == "describe"], ids=shlex.join)
def test_every_describe_command_prints(arguments, capsys):
    assert main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("arguments", [line for line in RESNETS if line[0] in ("evaluate", "predict")], ids=shlex.join)
def test_every_other_command_gets_as_far_as_the_missing_run(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert f"There is no model at {arguments[1]}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [line for line in RESNETS if line[0] == "convert"], ids=shlex.join)
def test_every_conversion_gets_as_far_as_the_missing_weights(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet.txt").write_text("\n".join(f"class {number}" for number in range(1000)), "utf-8")
    if "--mean-image" in arguments:
        arguments = [word for word in arguments if word not in ("--mean-image", "ResNet_mean.binaryproto")]
    assert main(arguments) == 2
    assert arguments[1].rstrip("/") in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [line for line in RESNETS if line[0] == "reproduce"], ids=shlex.join)
def test_every_experiment_exists_and_every_budget_has_rows(arguments, capsys):
    if len(arguments) == 1:
        assert main(arguments) == 0
        return
    budget = arguments[arguments.index("--budget") + 1] if "--budget" in arguments else "check"
    assert budget in experiment(canonical_name(arguments[1])).budgets()


@pytest.mark.parametrize("arguments", [line for line in RESNETS if line[0] == "compare"], ids=shlex.join)
def test_every_comparison_resolves(arguments, capsys):
    assert main([*arguments, "--print-config"]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("arguments", [line for line in RESNETS if line[0] == "bench"], ids=shlex.join)
def test_every_benchmark_gets_as_far_as_its_systems_or_to_what_is_missing(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--only", "nobody"]) == 2
    shown = capsys.readouterr().err
    assert "--only nobody: there is no such system" in shown or f"{Path(arguments[2])}" in shown


@pytest.mark.parametrize("arguments", [line for line in RESNETS if line[0] == "report"], ids=shlex.join)
def test_every_report_gets_as_far_as_the_missing_run(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert arguments[1] in capsys.readouterr().err


def test_make_targets_exist():
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for line in LINES:
        if line[:1] == ["make"]:
            assert f"\n{line[1]}:" in makefile


def test_the_python_example_is_the_public_interface():
    import resnets

    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    compile(example, "README.md", "exec")
    for name in set(re.findall(r"resnets\.(\w+)", example)):
        assert callable(getattr(resnets, name))


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
