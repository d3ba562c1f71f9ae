"""Training on a GPU whose memory is too small, or taken meanwhile: the steps are kept."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

import resnets
from resnets.engine import loop, step
from resnets.engine.checkpoint import latest_checkpoint
from resnets.specs.errors import TrainingError
from resnets.tasks.classify.prepare import Parts

QUICK = resnets.Machine(device="cpu", checkpoint_every=8, workers=0)
NO_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GiB, max allowed: 18.13 GiB)"),
)


def full_at(step, error, monkeypatch):
    """Let training step number `step` (from 0) find the memory full."""
    train_step = loop.train_step

    def take(model, passes, state, *rest):
        if state.step == step:
            raise error
        return train_step(model, passes, state, *rest)

    monkeypatch.setattr(loop, "train_step", take)
    return lambda: monkeypatch.setattr(loop, "train_step", train_step)


def weights(run):
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("where", ["training", "evaluation"])
@pytest.mark.parametrize("error", NO_MEMORY)
def test_what_was_reached_is_saved_and_the_same_command_goes_on(digits_spec, tmp_path, monkeypatch, where, error):
    evaluate = Parts.evaluate

    def not_tested(self, *given, **named):
        raise error

    resnets.train(digits_spec, run=tmp_path / "whole", machine=QUICK, quiet=True)
    if where == "training":
        free = full_at(11, error, monkeypatch)
        with pytest.raises(TrainingError) as told:
            resnets.train(digits_spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
        free()
        text = str(told.value)
        assert "A pass of 64 images of 8 x 8 px does not fit into the memory of cpu. --accumulation 2 makes" in text
        assert "a new --run" in text
        assert text.endswith("the same command goes on from step 11, which is saved.")
    else:
        monkeypatch.setattr(Parts, "evaluate", not_tested)
        with pytest.raises(TrainingError, match="out of memory"):
            resnets.train(digits_spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
        monkeypatch.setattr(Parts, "evaluate", evaluate)
    saved = latest_checkpoint(tmp_path / "parts/checkpoints")
    assert saved is not None
    assert saved.name == ("step-00000011.pt" if where == "training" else "step-00000010.pt")
    resnets.train(digits_spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("name", ["_update", "update_average"])
def test_weights_in_the_middle_of_an_update_are_not_saved(digits_spec, tmp_path, monkeypatch, name):
    spec = dataclasses.replace(digits_spec, ema_decay=0.9)
    resnets.train(spec, run=tmp_path / "whole", machine=QUICK, quiet=True)
    calls, of_step = [], getattr(step, name)

    def fail_at_the_twelfth(*given):
        calls.append(of_step(*given))
        if len(calls) == 12:
            raise NO_MEMORY[0]
        return calls[-1]

    monkeypatch.setattr(step, name, fail_at_the_twelfth)
    with pytest.raises(TrainingError, match="out of memory"):
        resnets.train(spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
    saved = latest_checkpoint(tmp_path / "parts/checkpoints")
    assert saved is not None
    assert saved.name == "step-00000008.pt"
    resnets.train(spec, run=tmp_path / "parts", machine=QUICK, quiet=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("batch", "accumulation", "advice"), [(63, 1, "--accumulation 3 "), (64, 32, "--accumulation 64 ")]
)
def test_the_accumulation_that_is_advised_divides_the_batch(
    digits_spec, tmp_path, monkeypatch, batch, accumulation, advice
):
    full_at(0, NO_MEMORY[0], monkeypatch)
    spec = dataclasses.replace(digits_spec, global_batch=batch, accumulation=accumulation)
    with pytest.raises(TrainingError, match=advice) as told:
        resnets.train(spec, run=tmp_path, machine=QUICK, quiet=True)
    assert str(told.value).endswith("the same command begins anew; no step is saved.")


def test_passes_of_one_image_are_not_made_smaller(digits_spec, tmp_path, monkeypatch):
    full_at(0, NO_MEMORY[0], monkeypatch)
    spec = dataclasses.replace(digits_spec, global_batch=16, accumulation=16)
    with pytest.raises(TrainingError, match="A pass of 1 image of") as told:
        resnets.train(spec, run=tmp_path, machine=QUICK, quiet=True)
    assert "--accumulation" not in str(told.value)
