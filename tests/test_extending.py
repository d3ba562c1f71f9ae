"""A recipe and a block in the user's own file, trained without touching the package."""

import json
import os
import subprocess
import sys
import textwrap

OWN_FILE = '''
import dataclasses
from dataclasses import dataclass

from torch import nn

import resnets
from resnets.models.blocks import BasicBlock
from resnets.models.resnet import ResNet
from resnets.specs.catalogue import model_spec


class ScaledBlock(BasicBlock):
    """The paper's block with its residual branch halved."""



@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledNet:
    depth: int = 8
    num_classes: int = 10
    in_channels: int = 1

    def build(self) -> nn.Module:
        skeleton = model_spec(f"cifar-resnet{self.depth}", num_classes=self.num_classes, in_channels=self.in_channels)
        return ResNet(skeleton, block=ScaledBlock)


def scaled():
    return dataclasses.replace(resnets.recipe("digits.resnet8"), recipe="", model=ScaledNet(), steps=3, full_steps=3)
'''


def test_a_recipe_and_a_block_of_ones_own_train_and_resume(tmp_path):
    (tmp_path / "myruns.py").write_text(textwrap.dedent(OWN_FILE))
    command = [sys.executable, "-m", "resnets", "train", "myruns:scaled", "--device", "cpu", "--json"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for finished in (False, True):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["was_finished"] is finished
    config = json.loads((tmp_path / "runs" / "myruns.scaled-seed0" / "config.json").read_text())
    assert config["model"]["kind"] == "myruns:ScaledNet"
    use = [*command[:3], "evaluate", "runs/myruns.scaled-seed0", "--data", "digits", "--json"]
    for extra, code in ((["--import", "myruns"], 0), ([], 2), (["--import", "nowhere"], 2)):
        done = subprocess.run([*use, *extra], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    changed = [*command[:4], "myruns:scaled", "--print-config", "--optimizer.base-lr", "0.2"]
    done = subprocess.run(changed, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["optimizer"]["base_lr"] == 0.2
