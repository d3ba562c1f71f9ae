"""The claim that gradients of plain nets do not vanish: what is measured, and that a vanishing gradient would fail."""

import json

import numpy as np
import pytest
import torch

from resnets.analysis.gradients import first_to_last, gradient_norms
from resnets.artifacts.found_runs import FoundRun
from resnets.artifacts.model_folder import StoredModel, save_model
from resnets.artifacts.run_directory import RunDirectory
from resnets.artifacts.run_log import RunLog
from resnets.data.preprocess import preprocess_for
from resnets.data.splits import Dataset, ResidentSplit
from resnets.models.build import build
from resnets.paper import gradients
from resnets.paper.core import images
from resnets.paper.core.experiment import Computed
from resnets.paper.core.verdict import judge
from resnets.specs import io
from resnets.specs.data import Cifar


def test_the_ratio_of_a_run_is_that_of_its_net_on_its_first_training_images(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (150, 32, 32, 3)).astype(np.uint8)
    split = ResidentSplit(images=pixels, labels=random.integers(10, size=150))
    dataset = Dataset(name="cifar10", classes=tuple("0123456789"), splits={"train": split}, fingerprint="")
    monkeypatch.setattr(images, "_dataset", lambda spec, root: dataset)
    plan = gradients.full("plain20")
    model, preprocessor = build(plan.spec.model, seed=0).eval(), preprocess_for(Cifar(), split)
    (tmp_path / "config.json").write_text(json.dumps(io.to_json(plan.spec)))
    save_model(
        RunDirectory(tmp_path).model,
        StoredModel(model=model, spec=plan.spec.model, preprocessor=preprocessor, classes=dataset.classes, metrics={}),
    )
    inputs = preprocessor.normalize(torch.from_numpy(pixels[:128]).permute(0, 3, 1, 2))
    expected = first_to_last(gradient_norms(model, inputs, torch.from_numpy(split.labels[:128])))
    found = gradients.ratio_of_run(FoundRun(path=tmp_path, spec=plan.spec, log=RunLog()))
    assert found == pytest.approx(expected, rel=1e-2)


def test_new_nets_pass_and_a_factor_of_nine_tenths_a_layer_would_not():
    rows = [row for row in gradients.EXPERIMENT.rows if isinstance(row.ours, Computed)]
    assert {judge(row.rule, row.ours.value(), row.paper) for row in rows} == {"PASS", "REPORT"}
    plain = next(row for row in rows if row.run.startswith("plain-56") and row.meaning == gradients.RATIO)
    assert judge(plain.rule, 0.9**55, plain.paper) == "FAIL"
