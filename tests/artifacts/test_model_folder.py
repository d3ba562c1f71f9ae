"""Model folders that nobody vouches for, and what happens to one while it is replaced."""

import copy
import dataclasses
import json
import os
import random
import shutil
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from resnets.artifacts import model_folder
from resnets.artifacts.model_folder import StoredModel, load_model, save_model
from resnets.artifacts.run_directory import write_json
from resnets.cli.main import main
from resnets.data.preprocess import Preprocessor
from resnets.specs.data import ImageFolder
from resnets.specs.errors import ModelError
from resnets.specs.preprocess import Preprocess

MUTATIONS = int(os.environ.get("RESNETS_MUTATIONS", "400"))

# Text that no value of Python stands for is put into the file where these are.
RAW = {
    "@nested@": "[" * 100_000 + "]" * 100_000,
    "@nested a little@": "[" * 900 + "]" * 900,
    "@digits@": "9" * 5_000,
    "@many digits@": "-" + "9" * 4_000,
    "@float@": "1e999",
    "@surrogate@": '"\\ud800"',
    "@control@": '"\\u0000\\u001b[31m\\n"',
}
NASTY = [
    *RAW,
    *(2**63, 2**64 + 1, -(2**31), -1, 0, 1, 10_000, 65_536, 10**9, 10**300, 0.5, -0.0, 1e308, 1e-320),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        None,
        True,
        False,
        "",
        "x" * 1_000,
        "A",
        "7x7",
        [],
        {},
        [[]],
        [1] * 20,
    ),
    *([3, 3, 3], [1000] * 16, [10**7], [1] * 100_000, ["a", "a", "a"], "abc", {"kind": "VGGSpec", "convs": [10**9]}),
    *("HighwaySpec", "VGGSpec", "ResNetSpec", "TrainSpec", "Digits", "Cifar", "Preprocess", ":", "os:system"),
    *("dataclasses:Field", "resnets.specs.data:PadCrop", "resnets.specs.run:TrainSpec", "resnets.api:Classifier"),
]


@pytest.fixture
def folder(tmp_path, small_net):
    """A model folder with every file and every field that one can have."""
    stored = small_net()
    preprocess = Preprocess(resize_px=36, crop_px=32, std=(60.0, 50.0, 70.0), mean_image=True)
    mean = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype(np.float32)
    stored = StoredModel(
        model=stored.model,
        spec=stored.spec,
        preprocessor=Preprocessor(preprocess, mean),
        classes=stored.classes,
        dataset=ImageFolder(),
        fingerprint="0" * 64,
        metrics={"top1_error": 8.75, "skipped": [{"path": "a.png", "reason": "no image"}], "steps": 64_000},
        licence="Apache-2.0",
    )
    save_model(tmp_path / "model", stored)
    return tmp_path / "model"


def model_or_error(folder):
    """Load the model in a folder; return whether it could be, and how many seconds of computing that took."""
    start = time.thread_time()
    message, stored = None, None
    try:
        stored = load_model(folder)
    except ModelError as error:
        message = str(error)
    seconds = time.thread_time() - start
    if stored is None:
        assert "\n" not in message
        assert len(message) < 1_000
        return False, seconds
    assert len(stored.classes) == stored.spec.num_classes
    assert stored.name
    assert all(torch.isfinite(value).all() for value in stored.model.state_dict().values())
    return True, seconds


def places(value, path=()):
    """Yield the path of every value inside another."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def mutated(config, draw):
    """Return the text of a config.json that was changed in one to four places, as bytes."""
    config, text = copy.deepcopy(config), None
    for _ in range(draw.choice((1, 1, 2, 4))):
        path = draw.choice(list(places(config)) or [()])
        inside = config
        for key in path[:-1]:
            inside = inside[key]
        if not path:
            return b"{}"
        key, kind = path[-1], draw.randrange(8)
        if kind == 0:
            del inside[key]
        elif kind == 1 and isinstance(inside, dict):
            inside[draw.choice(["kind", "x", "num_classes", "steps", str(key) + "s"])] = inside.pop(key)
        elif kind == 2 and isinstance(inside[key], list):
            inside[key] = inside[key] * draw.choice((0, 2, 5, 300))
        elif kind == 3 and isinstance(inside[key], int | float) and not isinstance(inside[key], bool):
            inside[key] *= draw.choice((-1, 2, 1000, 10**30))
        elif kind == 4:
            other = config
            for step in draw.choice(list(places(config))):
                other = other[step]
            inside[key] = copy.deepcopy(other)
        else:
            inside[key] = copy.deepcopy(draw.choice(NASTY))
    text = json.dumps(config)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    data = bytearray(text.encode("utf-8", errors="surrogatepass"))
    if draw.random() < 0.1:  # a key twice: the one that is written last counts
        place = data.index(b"{") + 1
        data[place:place] = b'"model": {"kind": "ResNetSpec"}, "num_classes": 7, '
    if draw.random() < 0.2:
        for _ in range(draw.randrange(1, 4)):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data[: draw.randrange(len(data))] if draw.random() < 0.03 else data)


def test_a_config_with_whatever_values_gives_a_model_or_one_line_at_once(folder):
    original = json.loads((folder / "config.json").read_text())
    draw, loaded, slowest = random.Random(0), 0, 0.0
    for _ in range(MUTATIONS):
        (folder / "config.json").write_bytes(mutated(original, draw))
        found, seconds = model_or_error(folder)
        loaded, slowest = loaded + found, max(slowest, seconds)
    assert MUTATIONS / 20 < loaded < MUTATIONS / 2
    assert slowest < 2
    print(f"{MUTATIONS} changed config.json: {loaded} models, the slowest in {slowest:.2f} s")


@pytest.mark.parametrize("file", ["model.safetensors", "mean_image.safetensors"])
def test_weights_with_whatever_bytes_give_a_model_or_one_line_at_once(folder, file):
    original = (folder / file).read_bytes()
    length = struct.unpack("<Q", original[:8])[0]
    header = json.loads(original[8 : 8 + length])
    draw, loaded, slowest = random.Random(0), 0, 0.0
    for _ in range(MUTATIONS // 2):
        data = bytearray(original)
        match draw.randrange(5):
            case 0:
                for _ in range(draw.randrange(1, 5)):
                    data[draw.randrange(8 + length)] ^= 1 << draw.randrange(8)
            case 1:
                for _ in range(draw.randrange(1, 50)):
                    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            case 2:
                data = data[: draw.randrange(len(data))] if draw.random() < 0.5 else data + bytes(draw.randrange(1, 99))
            case 3:
                start = draw.randrange(8 + length, len(data) - 8)
                data[start : start + 4] = struct.pack(
                    "<f", draw.choice((float("nan"), float("inf"), -1e38, 1e-40, 0.0))
                )
            case 4:
                changed = copy.deepcopy(header)
                name = draw.choice([name for name in changed if name != "__metadata__"])
                entry = changed[name]
                match draw.randrange(6):
                    case 0:
                        types = (
                            "F16",
                            "BF16",
                            "F64",
                            "I64",
                            "U8",
                            "BOOL",
                            "F8_E5M2",
                            "F8_E4M3",
                            "C64",
                            "X",
                            "",
                            3,
                            None,
                        )
                        entry["dtype"] = draw.choice(types)
                    case 1:
                        shapes = ([], [0], [1], [2**62, 4], [-1, -1], [1] * 100, "x", None, [2.5], entry["shape"][::-1])
                        entry["shape"] = draw.choice(shapes)
                    case 2:
                        entry["data_offsets"] = draw.choice(
                            ([0, 0], [0, 4], [-4, 0], [2**63, 2**63 + 4], [4, 0], "x", [])
                        )
                    case 3:
                        changed[draw.choice(("x" * 2_000, "\n", "fc.weight", "", "\u0000"))] = changed.pop(name)
                    case 4:
                        changed["new"] = draw.choice(
                            (entry, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, [], 1)
                        )
                    case 5:
                        changed["__metadata__"] = draw.choice(
                            (None, [], {"format": 3}, {"x": "y" * 5_000}, {"format": "np"})
                        )
                text = json.dumps(changed).encode()
                data = struct.pack("<Q", len(text)) + text + original[8 + length :]
        # A new file each time: the last one is mapped into memory, as the user's would be.
        (folder / file).unlink()
        (folder / file).write_bytes(data)
        found, seconds = model_or_error(folder)
        loaded, slowest = loaded + found, max(slowest, seconds)
    assert slowest < 2
    assert loaded
    print(f"{MUTATIONS // 2} changed {file}: {loaded} models, the slowest in {slowest:.2f} s")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", {"blocks": [10**9, 1, 1]}, "blocks is"),
        ("model", {"blocks": [3_000, 3_000, 3_000]}, "net of 18,002 layers"),
        ("model", {"widths": [16, 32, 2**40]}, "at most 65,536"),
        ("model", {"num_classes": 10**12}, "at most 1,000,000"),
        ("model", {"blocks": [1] * 40, "widths": [16] * 40}, "at most 16"),
        ("preprocess", {"crop_px": 10**6, "resize_px": 10**6}, "at most 4096"),
        ("dataset", {"image_px": 10**4_000}, r"image_px is 10+\.\.\.$"),
        ("preprocess", {"std": [float("nan"), 1, 1]}, "std is"),
        ("preprocess", {"mean": [1e308, 1, 1]}, "mean is"),
    ],
)
def test_a_net_beyond_all_measure_is_refused_by_its_field(folder, field, value, message, capsys):
    config = json.loads((folder / "config.json").read_text())
    config[field] |= value
    (folder / "config.json").write_text(json.dumps(config))
    start = time.thread_time()
    with pytest.raises(ModelError, match=message):
        load_model(folder)
    assert time.thread_time() - start < 1
    if field == "model" and "layers" not in message:
        assert main(["describe", str(folder)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("bn1.running_mean", float("nan")), ("bn1.running_var", -0.1)])
def test_values_that_mean_nothing_are_refused(folder, name, value):
    weights = load_file(folder / "model.safetensors")
    weights[name][0] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=name):
        load_model(folder)


def test_weights_of_another_type_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"fc.weight": weights["fc.weight"].half()}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"fc\.weight is torch\.float16 instead of torch\.float32"):
        load_model(folder)


# Replacing a folder. Every call that changes the file system may be the last one of the process.


class KilledError(BaseException):
    pass


def interrupt(monkeypatch, calls):
    """Let the first `calls` renamings and removals through; from then on, nothing is done any more."""
    done = []

    def limited(function):
        def call(*arguments, **named):
            if len(done) >= calls:
                raise KilledError
            done.append(function)
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(Path, "rename", limited(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", limited(shutil.rmtree))


def gone_process():
    """Return a number that no process has: one of a process that has ended may be given to another."""
    return 2**31 - 1


@pytest.mark.parametrize("calls", range(4))
def test_a_process_that_dies_at_any_moment_leaves_a_model_that_the_next_save_finds(
    tmp_path, small_net, monkeypatch, calls
):
    folder, process = tmp_path / "model", gone_process()
    save_model(folder, small_net(seed=1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: process)
        interrupt(patched, calls)
        with pytest.raises(KilledError):
            save_model(folder, small_net(seed=2))
    left = [path for path in tmp_path.iterdir() if (path / "config.json").exists() and load_model(path)]
    assert left
    with monkeypatch.context() as patched:  # the next save fails as well, later
        patched.setattr(model_folder, "save_tensors", _fails)
        with pytest.raises(OSError, match="full"):
            save_model(folder, small_net(seed=3))
    assert load_model(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    save_model(folder, small_net(seed=3))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _fails(*_):
    raise OSError("the disk is full")


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path, small_net, monkeypatch):
    save_model(tmp_path / "model", small_net(seed=1))
    rename = Path.rename

    def fails_for_the_new_one(path, target):
        if ".tmp-" in path.name:
            raise OSError("no space left")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(OSError, match="no space"):
        save_model(tmp_path / "model", small_net(seed=2))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_another_process_is_writing_and_other_files_are_left_alone(tmp_path, small_net):
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            kept = [f".model.tmp-{other.pid}", ".model.tmp-x", ".models.tmp-1", "model.old-1"]
            for name in (
                *kept,
                f".model.tmp-{gone_process()}",
                f".model.old-{gone_process()}",
                ".model.tmp-" + "9" * 30,
            ):
                (tmp_path / name).mkdir()
            save_model(tmp_path / "model", small_net())
            assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "model"])
        finally:
            other.kill()


def test_a_link_stays_and_a_file_is_not_replaced(tmp_path, small_net):
    (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk")
    save_model(tmp_path / "model", small_net())
    assert (tmp_path / "model").is_symlink()
    assert load_model(tmp_path / "disk")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="a file of this name"):
        save_model(tmp_path / "file", small_net())
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_whose_name_is_no_utf_8_is_kept(tmp_path, small_net):
    place = "/photos/\udcff é"
    save_model(tmp_path / "model", dataclasses.replace(small_net(), metrics={"dataset": place}))
    assert load_model(tmp_path / "model").metrics["dataset"] == place
    assert "é" in (tmp_path / "model" / "config.json").read_text("utf-8")
    write_json(tmp_path / "env.json", {"command": place})
    assert json.loads((tmp_path / "env.json").read_bytes())["command"] == place
