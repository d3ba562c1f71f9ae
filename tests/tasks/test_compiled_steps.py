"""What --compile compiles, counted by a compiler that only counts."""

import dataclasses
import functools

import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import resnets
from resnets.artifacts.run_directory import RunDirectory
from resnets.engine.distributed import Distributed
from resnets.engine.freeze import set_learning
from resnets.tasks.classify.prepare import prepare
from resnets.tasks.classify.train import fast_model


def test_batches_with_unreadable_images_are_not_compiled(digits_spec, tmp_path, monkeypatch):
    compiled = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiled))
    spec = dataclasses.replace(digits_spec, global_batch=16, accumulation=2)
    ranks = Distributed(device=torch.device("cpu"))
    machine = resnets.Machine(device="cpu", compile=True)
    parts = prepare(spec, None, RunDirectory(tmp_path), machine, ranks, "", quiet=True)
    # No net of ours: their checks of shapes in tests are no code that torch compiles.
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)]
    model = nn.Sequential(*layers)
    fast = fast_model(parts, model)
    set_learning(fast, spec.finetune, 0, ranks)
    assert model.training
    for count in range(8, 0, -1):
        images = torch.randn(count, 1, 8, 8)
        torch.testing.assert_close(fast(images), model(images), rtol=1e-4, atol=1e-5)
    assert compiled.frame_count == 1
    assert [id(parameter) for parameter in fast.parameters()] == [id(parameter) for parameter in model.parameters()]
    fast(torch.randn(8, 1, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert compiled.frame_count == 1
