"""The guide `docs/analysis.md` is run from top to bottom, on a net that is trained for a few steps."""

import dataclasses
import re
from pathlib import Path

import resnets

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "analysis.md"


def test_the_guide_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spec = dataclasses.replace(resnets.shorten(resnets.recipe("digits.resnet20"), 16), global_batch=64)
    resnets.train(spec, quiet=True)
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL))
    exec(compile(code, str(GUIDE), "exec"), {})
    printed = capsys.readouterr().out
    assert "layer3.2.conv2" in printed
    assert "20 to 44 layers" in printed
    assert len(list(tmp_path.glob("seen-*.png"))) == 4
