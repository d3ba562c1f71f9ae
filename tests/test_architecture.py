"""What static tools cannot see: which modules are loaded when something is used."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "matplotlib", "sklearn", "rich")


def loaded_by(code):
    """The heavy packages that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()[-1]


COMMAND = """
import sys
sys.argv = ["resnets", {arguments}]
from resnets.cli.main import entry
try:
    entry()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
"""


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import resnets; resnets.__version__, dir(resnets)") == "[]"


def test_specs_and_recipes_load_nothing_heavy():
    modules = ("catalogue", "data", "io", "model", "optim", "preprocess", "run")
    code = "".join(f"import resnets.specs.{name}\n" for name in modules)
    assert loaded_by(code + "from resnets.recipes.find import list_recipes; list(list_recipes())") == "[]"


@pytest.mark.parametrize("arguments", ['"--help"', '"--version"', '"train", "--help"', '"describe", "resnet50"'])
def test_commands_that_do_not_compute_load_no_torch(arguments):
    loaded = loaded_by(COMMAND.format(arguments=arguments))
    assert "'torch'" not in loaded
    assert "'torchvision'" not in loaded
