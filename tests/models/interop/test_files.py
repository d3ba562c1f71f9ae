import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from resnets.models.interop.files import load_tensors, save_tensors, with_counters
from resnets.specs.errors import ModelError


@pytest.fixture
def weights():
    return {"conv1.weight": torch.randn(4, 3, 3, 3), "bn1.running_var": torch.rand(4), "fc.weight": torch.randn(2, 4)}


def saved(values, path, **options):
    torch.save(values, path, **options)
    return path


def refusal(path, *words, entry=None):
    with pytest.raises(ModelError) as caught:
        load_tensors(path, entry)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message, message
    assert message.count("\n") == 0
    return message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_both_kinds_of_files_give_the_tensors_bit_for_bit(weights, tmp_path, equal_weights, suffix):
    path = tmp_path / f"w{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    assert equal_weights(load_tensors(path), weights)


def test_a_pickle_without_an_archive_is_read(weights, tmp_path, equal_weights):
    path = saved(weights, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert equal_weights(load_tensors(path), weights)


def test_the_tensors_do_not_depend_on_the_file_afterwards(weights, tmp_path, equal_weights):
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    loaded = load_tensors(path)
    os.truncate(path, 0)
    assert equal_weights(loaded, weights)


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_and_prefixes_come_off(weights, tmp_path, equal_weights, key, prefix):
    values = {key: {f"{prefix}{name}": value for name, value in weights.items()}, "epoch": 3, "best_acc": 91.2}
    assert equal_weights(load_tensors(saved(values, tmp_path / "w.pth")), weights)


def test_the_state_of_the_optimizer_is_no_net(weights, tmp_path, equal_weights):
    momentum = {index: {"momentum_buffer": value + 1} for index, value in enumerate(weights.values())}
    values = {"optimizer": {"state": momentum, "param_groups": [{"lr": 0.1, "params": [0, 1, 2]}]}, "model": weights}
    assert equal_weights(load_tensors(saved(values, tmp_path / "w.pth")), weights)


def test_of_several_nets_one_has_to_be_named(weights, tmp_path, equal_weights):
    other = {name: value + 1 for name, value in weights.items()}
    path = saved({"state_dict": weights, "state_dict_ema": other}, tmp_path / "w.pth")
    refusal(path, "state_dict, state_dict_ema", "--entry")
    refusal(path, "state_dict_ema", entry="state_dict_em")
    assert equal_weights(load_tensors(path, "state_dict_ema"), other)


def test_a_prefix_that_only_some_names_have_stays(weights, tmp_path):
    path = saved({**weights, "module.x": torch.ones(1)}, tmp_path / "w.pth")
    assert "module.x" in load_tensors(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32_without_a_change(weights, tmp_path, dtype):
    loaded = load_tensors(saved({name: value.to(dtype) for name, value in weights.items()}, tmp_path / "w.pth"))
    for name, value in weights.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], value.to(dtype).float())


def test_missing_counters_are_zero_and_given_ones_are_kept(weights):
    counted = {**weights, "bn2.running_var": torch.ones(1), "bn2.num_batches_tracked": torch.tensor(5)}
    complete = with_counters(counted)
    assert complete["bn1.num_batches_tracked"].item() == 0
    assert complete["bn1.num_batches_tracked"].dtype == torch.int64
    assert complete["bn2.num_batches_tracked"].item() == 5


def test_what_is_saved_can_be_read_by_whoever_may_read_new_files(weights, tmp_path, equal_weights):
    save_tensors(
        {name: value.T if value.ndim == 2 else value for name, value in weights.items()}, tmp_path / "w.safetensors"
    )
    (tmp_path / "other").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert equal_weights(load_tensors(tmp_path / "w.safetensors"), {**weights, "fc.weight": weights["fc.weight"].T})
    with pytest.raises(OSError, match="nowhere"):
        save_tensors(weights, tmp_path / "nowhere" / "w.safetensors")


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_that_would_execute_code_is_refused_and_does_not(weights, tmp_path, archive):
    marker = tmp_path / "executed"
    path = saved({**weights, "x": Hostile(marker)}, tmp_path / "w.pth", _use_new_zipfile_serialization=archive)
    refusal(path, "execute code", "safetensors")
    assert not marker.exists()


def test_a_bare_hostile_pickle_is_refused_and_not_executed(tmp_path):
    marker = tmp_path / "executed"
    path = tmp_path / "w.bin"
    path.write_bytes(pickle.dumps(Hostile(marker)))
    refusal(path)
    assert not marker.exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    refusal(saved(torch.nn.Conv2d(3, 4, 3), tmp_path / "w.pth"), "execute code")


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("fc.weight", torch.full((2, 4), float("nan")), "not finite"),
        ("fc.weight", torch.full((2, 4), float("inf")), "not finite"),
        ("fc.weight", torch.full((2, 4), 1e300, dtype=torch.float64), "not finite"),
        ("fc.weight", torch.ones(2, 4, dtype=torch.int64), "torch.int64"),
        ("fc.weight", torch.ones(2, 4, dtype=torch.complex64), "torch.complex64"),
        ("fc.weight", torch.ones(2, 0), "shape (2, 0)"),
        ("fc.weight", torch.ones(2, 4).to_sparse(), "dense"),
        ("fc.weight", torch.ones(1).expand(2_000_000, 2_000_000), "cannot hold"),
        ("bn1.running_var", torch.tensor([-1.0, 1, 1, 1]), "negative"),
        ("bn1.num_batches_tracked", torch.tensor(1.5), "whole number"),
        ("bn1.num_batches_tracked", torch.tensor([1, 2]), "whole number"),
        ("epoch", 3, "'epoch', a int"),
    ],
)
def test_what_no_weight_can_be_is_refused_by_name(weights, tmp_path, name, value, word):
    refusal(saved({**weights, name: value}, tmp_path / "w.pth"), name, word)


@pytest.mark.parametrize("values", [[1, 2], {"a": 1}, {}, {"a": torch.ones(2)}, torch.ones(2)])
def test_a_file_without_a_net_is_refused(tmp_path, values):
    refusal(saved(values, tmp_path / "w.pth"), "no weights")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"\x80", b"\x80\x02", b"hello", b"\x00" * 100])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_content_is_refused(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    refusal(path)


def test_a_flipped_bit_in_a_checkpoint_is_noticed(weights, tmp_path):
    path = saved(weights, tmp_path / "w.pth")
    content = bytearray(path.read_bytes())
    content[content.find(weights["fc.weight"].numpy().tobytes()) + 1] ^= 1
    path.write_bytes(content)
    refusal(path, "CRC")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(weights, tmp_path):
    import zipfile

    path, packed = saved(weights, tmp_path / "w.pth"), tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    refusal(packed, "damaged")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refusal(tmp_path / "none.pth", "not a file")
    refusal(tmp_path, "not a file")


def tensors_by_hand(content):
    """Return the arrays of a safetensors file, read without the library."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    data, types = content[8 + length :], {"F32": "<f4", "I64": "<i8", "F16": "<f2", "F64": "<f8"}
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def test_10_000_damaged_safetensors_files_are_refused_or_read_exactly(weights, quick_folder, mutated):
    path = quick_folder / "w.safetensors"
    save_file(weights, path)
    refused = 0
    for _, content in zip(range(10_000), mutated(path.read_bytes()), strict=False):
        path.write_bytes(content)
        try:
            loaded = load_tensors(path)
        except ModelError:
            refused += 1
            continue
        expected = tensors_by_hand(content)
        assert loaded.keys() == expected.keys()
        for name, value in loaded.items():
            assert np.array_equal(value.numpy(), expected[name].astype(value.numpy().dtype))
    assert 1_000 < refused < 10_000


@pytest.mark.parametrize("archive", [True, False])
def test_5_000_damaged_checkpoints_of_each_kind_are_refused_or_read_exactly(
    weights, quick_folder, mutated, equal_weights, archive
):
    path = saved({"state_dict": weights, "epoch": 3}, quick_folder / "w.pth", _use_new_zipfile_serialization=archive)
    refused = 0
    for _, content in zip(range(5_000), mutated(path.read_bytes()), strict=False):
        path.write_bytes(content)
        try:
            loaded = load_tensors(path)
        except ModelError:
            refused += 1
            continue
        if archive:
            assert equal_weights(loaded, weights)
        else:  # without checksums, a changed number is a number like any other
            assert all(value.isfinite().all() for value in loaded.values())
    assert 500 < refused <= 5_000


def test_a_file_with_nothing_but_a_counter_of_averages_ends(tmp_path):
    torch.save({"n_averaged": torch.zeros(1, 1, 1, 1)}, tmp_path / "n.pth")
    assert load_tensors(tmp_path / "n.pth") == {}
