"""Weights by name: from a hub on this machine, from torchvision's list, and from the cache."""

import hashlib
import io
import json
import os
import pickle
import socket
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import resnets
from resnets.artifacts import pretrained
from resnets.artifacts.conversion import convert
from resnets.artifacts.hub import _ask
from resnets.artifacts.model_folder import save_model
from resnets.artifacts.pretrained import TORCHVISION, is_source, open_source
from resnets.cli.main import main
from resnets.data.preprocess import Preprocessor
from resnets.models.interop.foreign import Hints
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import DataError, ModelError, UserError
from resnets.tasks.classify.load import load_source


def logits(model, side=32, channels=3):
    images = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(images)


def test_a_model_of_the_hub_is_the_one_that_was_put_there(hub, small_net):
    stored = open_source("hf-hub:owner/small")
    assert torch.equal(logits(stored.model), logits(small_net().model))
    assert stored.classes == ("blue", "green", "red")
    assert not stored.model.training
    assert stored.licence == f"apache-2.0 ({hub.url}/owner/small at {hub.commit[:12]})"


def test_the_hubs_own_client_makes_the_same_request_and_reads_the_same(hub, monkeypatch):
    client = pytest.importorskip("huggingface_hub")
    pytest.importorskip("huggingface_hub.hf_api", exc_type=ImportError)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    open_source("hf-hub:owner/small")
    request, files = hub.requests[0], hub.models["owner/small"]
    info = client.HfApi(endpoint=hub.url, token=False).model_info("owner/small", revision="main", files_metadata=True)
    assert hub.requests[-1][0] == request[0]
    assert info.sha == hub.commit
    assert info.card_data.license == "apache-2.0"
    by_name = {sibling.rfilename: sibling for sibling in info.siblings}
    assert by_name["model.safetensors"].lfs.sha256 == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert len(by_name["config.json"].blob_id) == 40
    assert client.hf_hub_url("owner/small", "config.json", revision=hub.commit, endpoint=hub.url) == (
        f"{hub.url}{hub.requests[1][0]}"
    )


def test_python_and_evaluation_take_the_same_names(hub):
    assert resnets.load("hf-hub:owner/small").name == "cifar-resnet8"
    assert [request[0].rpartition("/")[2] for request in hub.requests] == ["main", "config.json", "model.safetensors"]
    before = len(hub.requests)
    assert resnets.load("hf-hub:owner/small").stored.licence.startswith("apache-2.0")
    assert len(hub.requests) == before


def test_the_cache_is_enough_when_the_hub_is_gone(hub, capsys):
    first = open_source("hf-hub:owner/small")
    hub.models.clear()
    again = open_source("hf-hub:owner/small")
    assert torch.equal(logits(again.model), logits(first.model))
    assert again.licence == first.licence
    with pytest.raises(ModelError, match="no such model"):
        open_source("hf-hub:owner/small@v1.0")


def test_a_revision_is_asked_for_by_its_name_and_files_by_its_commit(hub):
    open_source("hf-hub:owner/small@refs/pr/1")
    assert hub.requests[0][0] == "/api/models/owner/small/revision/refs/pr/1"
    assert hub.requests[1][0] == f"/owner/small/resolve/{hub.commit}/config.json"


def test_a_broken_download_goes_on_where_it_stopped(hub, small_net):
    size = len(hub.models["owner/small"]["model.safetensors"])
    hub.break_after = [size // 2]
    stored = open_source("hf-hub:owner/small")
    assert [request[1] for request in hub.requested("model.safetensors")] == [None, f"bytes={size // 2}-"]
    assert torch.equal(logits(stored.model), logits(small_net().model))


def test_a_start_after_an_interruption_goes_on_with_the_same_revision(hub, tmp_path):
    size = len(hub.models["owner/small"]["model.safetensors"])
    hub.break_after = [1000, 0, 0, 0, 0]
    with pytest.raises(ModelError, match="Without network"):
        open_source("hf-hub:owner/small")
    hub.break_after = []
    hub.requests.clear()
    open_source("hf-hub:owner/small")
    assert [(request[0].rpartition("/")[2], request[1]) for request in hub.requests] == [
        ("model.safetensors", "bytes=1000-")
    ]
    assert size > 1000


@pytest.mark.parametrize("end", ["main", "config.json", "model.safetensors"])
def test_a_failure_that_passes_is_outlasted(hub, end):
    hub.statuses = {end: [500, 503]}
    assert open_source("hf-hub:owner/small").name == "cifar-resnet8"


def test_progress_is_that_of_the_weights(hub, capsys):
    seen = []
    open_source("hf-hub:owner/small", on_progress=lambda *state: seen.append(state))
    size = len(hub.models["owner/small"]["model.safetensors"])
    assert seen[-1] == (size, size)
    assert capsys.readouterr().err == ""
    open_source("hf-hub:owner/small@other")
    captured = capsys.readouterr()
    assert "small: " in captured.err
    assert captured.out == ""


def test_weights_with_another_checksum_are_not_kept(hub, tmp_path):
    def lie(answer):
        answer["siblings"][-1]["lfs"]["sha256"] = "0" * 64
        return answer

    hub.models["owner/small"] = dict(sorted(hub.models["owner/small"].items()))
    hub.change_answer = lie
    with pytest.raises(DataError, match="checksum"):
        open_source("hf-hub:owner/small")
    assert not list((tmp_path / "cache").rglob("model.safetensors*"))


def test_a_configuration_with_another_checksum_is_not_kept(hub, tmp_path):
    original = hub.models["owner/small"]["config.json"]

    def after_the_answer(answer):
        hub.models["owner/small"]["config.json"] = original.replace(b"blue", b"pink")
        return answer

    hub.change_answer = after_the_answer
    with pytest.raises(DataError, match="git checksum"):
        open_source("hf-hub:owner/small")
    assert not list((tmp_path / "cache").rglob("config.json*"))


def test_names_in_the_answer_never_become_paths(hub, tmp_path):
    hostile = ["../../../escaped", "/etc/escaped", "..\\escaped", "sub/../../model.safetensors", "a\0b", ".", ""]
    hub.siblings = [{"rfilename": name, "blobId": "0" * 40} for name in hostile]
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    open_source("hf-hub:owner/small")
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    names = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert {name.removesuffix(".verified") for name in names} == {"config.json", "model.safetensors", "source.json"}


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: [],
        lambda answer: "text",
        lambda answer: answer | {"sha": "../../../main"},
        lambda answer: answer | {"sha": 7},
        lambda answer: answer | {"siblings": {"rfilename": 1}},
        lambda answer: answer | {"siblings": None},
        lambda answer: answer | {"siblings": [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]},
        lambda answer: answer | {"siblings": [entry | {"lfs": {"sha256": "x"}} for entry in answer["siblings"]]},
        lambda answer: {name: value for name, value in answer.items() if name != "sha"},
    ],
)
def test_an_answer_of_another_form_is_refused(hub, tmp_path, change):
    hub.change_answer = change
    with pytest.raises(ModelError):
        open_source("hf-hub:owner/small")
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_an_endless_answer_is_broken_off(hub, monkeypatch):
    monkeypatch.setattr("resnets.artifacts.hub._JSON_BYTES", 1000)
    hub.change_answer = lambda answer: answer | {"padding": "x" * 5000}
    with pytest.raises(ModelError, match="more than the 1000 bytes"):
        open_source("hf-hub:owner/small")


def test_pickled_weights_are_refused_unread(hub):
    hub.models["owner/pickled"] = {"config.json": b"{}", "pytorch_model.bin": pickle.dumps({})}
    with pytest.raises(ModelError, match=r"pytorch_model\.bin only.*resnets convert"):
        open_source("hf-hub:owner/pickled")
    assert not hub.requested("pytorch_model.bin")


@pytest.mark.parametrize("damage", ["truncated", "nan", "text", "other net", "config"])
def test_files_that_are_damaged_on_the_hub_are_refused(hub, damage):
    files = hub.models["owner/small"]
    match damage:
        case "truncated":
            files["model.safetensors"] = files["model.safetensors"][:-1000]
        case "nan":
            header = 8 + int.from_bytes(files["model.safetensors"][:8], "little")
            files["config.json"] = files["config.json"].replace(b"format_version", b"architecture", 1)
            files["model.safetensors"] = files["model.safetensors"][:header] + b"\xff" * (
                len(files["model.safetensors"]) - header
            )
        case "text":
            files["model.safetensors"] = b"<html>not found</html>"
        case "other net":
            config = json.loads(files["config.json"])
            config["model"]["blocks"] = [2, 2, 2]
            files["config.json"] = json.dumps(config).encode()
        case "config":
            files["config.json"] = b"[" * 100_000
    with pytest.raises(ModelError):
        open_source("hf-hub:owner/small")


def test_a_hub_that_cannot_be_reached_says_what_to_put_where(monkeypatch, tmp_path, small_net):
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("resnets.data.download.time.sleep", lambda _: None)
    with socket.socket() as silent:  # bound and not listening: it refuses, and no other program gets its port
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(ModelError, match="sha256sum") as caught:
            open_source("hf-hub:owner/small")
    folder = tmp_path / "cache" / "hub" / "owner" / "small" / "main"
    assert f"{url}/owner/small/tree/main" in str(caught.value)
    assert str(folder) in str(caught.value)
    save_model(folder, small_net())
    assert torch.equal(logits(open_source("hf-hub:owner/small").model), logits(small_net().model))


def test_the_token_goes_to_the_hub_and_not_where_it_redirects(hub, second_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", " hf_secret\n")
    second_hub.models = hub.models
    hub.storage = second_hub.url
    open_source("hf-hub:owner/small")
    assert {request[2] for request in hub.requests} == {"Bearer hf_secret"}
    assert [request[2] for request in second_hub.requests] == [None]
    for wrong in ("a b", "a\r\nHost: x", "naïve"):
        monkeypatch.setenv("HF_TOKEN", wrong)
        with pytest.raises(UserError, match="HF_TOKEN"):
            open_source("hf-hub:owner/small@new")


def test_a_licence_is_one_printable_line(hub):
    hub.card = {"license": "other", "license_name": "own\x1b[2J\nterms", "license_link": "x" * 1000}
    licence = open_source("hf-hub:owner/small").licence
    assert licence.isprintable()
    assert licence.startswith("other, own[2Jterms, xxx")
    assert len(licence) < 500


@pytest.mark.parametrize(
    "source",
    [
        "hf-hub:",
        "hf-hub:owner",
        "hf-hub:owner/name/more",
        "hf-hub:../name",
        "hf-hub:owner/..",
        "hf-hub:owner/a..b",
        "hf-hub:owner/name@",
        "hf-hub:owner/name@../../x",
        "hf-hub:owner/name@.",
        "hf-hub:owner/name?x=1",
        "hf-hub:owner/name@" + "é" * 150,
        "hf-hub:owner/name@" + "/" * 150,
        "hf-hub:owner/name@" + "x" * 201,
        "hf-hub:owner/name@a\x1b[2J",
        "hf-hub:owner/name@a\0b",
        "hf-hub:owner/name@main\n",
        "hf-hub:öwner/name",
        "hf-hub:https://example.org/x",
        "timm:",
        "timm:owner/name",
        "torchvision:",
        "torchvision:resnet51",
        "torchvision:resnet50.IMAGENET1K_V3",
        "torchvision:vgg16.IMAGENET1K_FEATURES",
        "torchvision:../resnet50",
    ],
)
def test_a_name_of_no_form_is_refused_without_a_request(hub, source):
    with pytest.raises(ModelError):
        open_source(source)
    assert hub.requests == []


def test_a_bare_word_is_never_looked_up(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for word in ("resnet50", "owner/name", "http://example.org/x", "Torchvision:resnet50"):
        assert not is_source(word)
        with pytest.raises(ModelError, match=r"torchvision:resnet50.*timm:NAME or hf-hub:OWNER/NAME"):
            load_source(word)
    assert hub.requests == []


def test_an_unknown_name_of_timm_is_told_about_tags(hub):
    with pytest.raises(ModelError, match=r"timm:resnet50\.a1_in1k"):
        open_source("timm:resnet50")
    assert hub.requests[0][0] == "/api/models/timm/resnet50/revision/main"


def test_an_endpoint_that_is_no_address_is_refused(hub, monkeypatch):
    for wrong in ("file:///etc", "huggingface.co", "http://", "https://x/?a=1"):
        monkeypatch.setenv("HF_ENDPOINT", wrong)
        with pytest.raises(UserError, match="HF_ENDPOINT"):
            open_source("hf-hub:owner/small")


@pytest.fixture
def transformers_net(hub, tmp_path, small_net):
    """The net of timm/name.tag, which is in the layout of transformers."""
    stored = small_net("resnet18-v1.5", blocks=(1, 1, 1, 1), widths=(4, 8, 16, 32))
    convert(stored, tmp_path / "converted", to="huggingface")
    hub.models["timm/name.tag"] = {file.name: file.read_bytes() for file in (tmp_path / "converted").iterdir()}
    return stored


def test_a_net_in_the_layout_of_another_program_is_converted_once(transformers_net, hub, monkeypatch):
    stored = transformers_net
    first = open_source("timm:name.tag")
    assert torch.equal(logits(first.model), logits(stored.model))
    assert (first.classes, first.spec) == (stored.classes, stored.spec)
    assert not first.model.training

    def refuse(*_, **__):
        raise AssertionError("converted again")

    monkeypatch.setattr("resnets.artifacts.conversion.import_foreign", refuse)
    again = open_source("timm:name.tag")
    assert torch.equal(logits(again.model), logits(stored.model))
    assert (again.classes, again.spec, again.licence) == (first.classes, first.spec, first.licence)


def test_class_names_of_imagenet_are_taken_where_the_tag_says_so():
    from torchvision.models import ResNet50_Weights

    names = pretrained._imagenet_classes({"num_classes": 1000, "pretrained_cfg": {"tag": "a1_in1k"}})
    assert names == tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    for config in (
        {"num_classes": 1000, "pretrained_cfg": {"tag": "mine"}},
        {"num_classes": 999, "pretrained_cfg": {"tag": "a1_in1k"}},
        {"num_classes": 1000, "pretrained_cfg": {"tag": "a1_in1k", "label_names": ["x"]}},
        {"num_classes": 1000, "label_names": ["x"], "pretrained_cfg": {"tag": "a1_in1k"}},
        {"num_classes": 1000, "pretrained_cfg": "in1k"},
        {"num_classes": 1000, "pretrained_cfg": "label_names in1k"},
        {"num_classes": 1000, "pretrained_cfg": 5},
        {"num_classes": 1000, "pretrained_cfg": True},
        {"num_classes": 1000, "pretrained_cfg": ["label_names"]},
        {"num_classes": 1000, "pretrained_cfg": None},
        {"num_classes": 1000},
    ):
        assert pretrained._imagenet_classes(config) is None


@pytest.mark.parametrize("inner", [5, True, "label_names", [], None])
def test_a_configuration_of_another_form_is_refused_and_not_stumbled_over(timm_net, hub, inner):
    files = hub.models["timm/name.tag"]
    config = json.loads(files["config.json"]) | {"pretrained_cfg": inner}
    config.pop("label_names", None)
    files["config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match="pretrained_cfg"):
        open_source("timm:name.tag")


def test_a_net_without_class_names_is_sent_to_convert_whose_folder_can_then_be_given(timm_net, hub, tmp_path):
    files = hub.models["timm/name.tag"]
    config = json.loads(files["config.json"])
    config.pop("label_names", None)
    config["pretrained_cfg"].pop("label_names", None)
    files["config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match=r"resnets convert .* FOLDER` with --class-names FILE \(3 names") as caught:
        open_source("timm:name.tag")
    assert "\n" not in str(caught.value)
    folder = tmp_path / "cache" / "hub" / "timm" / "name.tag" / "main"
    assert f"resnets convert {folder} FOLDER" in str(caught.value)
    convert(folder, tmp_path / "named", Hints(classes=("blue", "green", "red")))
    assert torch.equal(logits(load_source(str(tmp_path / "named")).model), logits(timm_net.model))


def interrupted(hub):
    """Break the first download off, and return the folder where the rest is to be put."""
    hub.break_after = [1000, 0, 0, 0, 0]
    with pytest.raises(ModelError, match="Without network") as caught:
        open_source("hf-hub:owner/small")
    assert f"{hub.url}/owner/small/tree/{hub.commit}" in str(caught.value)
    hub.requests.clear()
    return pretrained.weights_cache() / "hub" / "owner" / "small" / "main"


def test_files_put_beside_the_record_of_a_broken_download_are_verified_before_their_origin_is_stated(hub, small_net):
    folder = interrupted(hub)
    save_model(folder.with_name("other"), small_net(seed=1))
    other = folder.with_name("other") / "model.safetensors"
    (folder / "model.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(DataError, match=rf"sha256 checksum.*{hub.commit[:12]}.*remove .*source\.json"):
        open_source("hf-hub:owner/small")
    (folder / "model.safetensors").write_bytes(hub.models["owner/small"]["model.safetensors"])
    assert hub.commit[:12] in open_source("hf-hub:owner/small").licence
    (folder / "model.safetensors").write_bytes(other.read_bytes())
    os.utime(folder / "model.safetensors", (1, 1))  # two changes in quick succession may have one time
    with pytest.raises(DataError, match="sha256 checksum"):
        open_source("hf-hub:owner/small")
    (folder / "source.json").unlink()
    stored = open_source("hf-hub:owner/small")
    assert torch.equal(logits(stored.model), logits(small_net(seed=1).model))
    assert stored.licence == ""
    assert hub.requests == []


def test_a_file_that_the_record_does_not_have_is_refused(hub):
    open_source("hf-hub:owner/small")
    folder = pretrained.weights_cache() / "hub" / "owner" / "small" / "main"
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(DataError, match=r"preprocessor_config\.json is none of the files"):
        open_source("hf-hub:owner/small")


@pytest.mark.parametrize(
    "change",
    [
        {"checksums": {}},
        {"checksums": {"config.json": "sha256:1", "model.safetensors": "sha256:2"}},
        {"checksums": {"config.json": "none:" + "0" * 64, "model.safetensors": "sha256:" + "0" * 64}},
        {"sizes": {}},
        {"sizes": {"config.json": "1", "model.safetensors": True}},
        {"commit": "main"},
        {"licence": None},
        {"more": 1},
    ],
)
def test_a_record_that_is_garbled_vouches_for_nothing(hub, change):
    open_source("hf-hub:owner/small")
    record = pretrained.weights_cache() / "hub" / "owner" / "small" / "main" / "source.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    assert open_source("hf-hub:owner/small").licence == ""


@pytest.mark.parametrize("recorded", [True, False])
def test_a_conversion_is_not_that_of_other_files_or_of_another_origin(
    transformers_net, hub, tmp_path, small_net, recorded
):
    folder = tmp_path / "cache" / "hub" / "timm" / "name.tag" / "main"
    first = open_source("timm:name.tag")
    assert hub.commit[:12] in first.licence
    if not recorded:
        (folder / "source.json").unlink()
        by_hand = open_source("timm:name.tag")
        assert torch.equal(logits(by_hand.model), logits(first.model))
        assert hub.commit[:12] not in by_hand.licence
    other = small_net("resnet18-v1.5", blocks=(1, 1, 1, 1), widths=(4, 8, 16, 32), seed=1)
    convert(other, tmp_path / "other", to="huggingface")
    (folder / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    if recorded:
        with pytest.raises(DataError, match="sha256 checksum"):
            open_source("timm:name.tag")
    else:
        assert torch.equal(logits(open_source("timm:name.tag").model), logits(other.model))


@pytest.mark.parametrize("size", [None, -1, 0, True, "5", 1.5, (8 << 30) + 1])
def test_a_size_that_no_weights_have_is_refused_unread(hub, size):
    def change(answer):
        for entry in answer["siblings"]:
            if "lfs" in entry:
                entry["lfs"]["size"] = size
        return answer

    hub.change_answer = change
    with pytest.raises(ModelError, match="size of model"):
        open_source("hf-hub:owner/small")
    assert [request[0].rpartition("/")[2] for request in hub.requests] == ["main"]


def test_weights_of_more_bytes_than_the_hub_states_are_broken_off(hub, tmp_path):
    def understate(answer):
        for entry in answer["siblings"]:
            if "lfs" in entry:
                entry["lfs"]["size"] -= 1
        return answer

    hub.change_answer = understate
    with pytest.raises(DataError, match="more than the"):
        open_source("hf-hub:owner/small")
    assert not list((tmp_path / "cache").rglob("model.safetensors*"))


def test_a_configuration_of_any_size_is_not_downloaded(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("resnets.artifacts.hub._JSON_BYTES", 5000)
    hub.models["owner/small"]["config.json"] += b" " * 10_000
    with pytest.raises(DataError, match="more than the 5000 bytes"):
        open_source("hf-hub:owner/small")
    assert not list((tmp_path / "cache").rglob("config.json*"))


@pytest.fixture
def timm_net(hub, tmp_path, small_net):
    """The net of timm/name.tag, which is in the layout of timm."""
    stored = small_net("resnet18-v1.5")
    convert(stored, tmp_path / "for-timm", to="timm")
    hub.models["timm/name.tag"] = {file.name: file.read_bytes() for file in (tmp_path / "for-timm").iterdir()}
    return stored


@pytest.fixture
def torchvision_file(hub, monkeypatch):
    """torchvision's resnet18 with three classes, saved as its own files are: without counters of batches."""
    import torchvision

    net = torchvision.models.resnet18(num_classes=3).eval()
    for name, value in net.state_dict().items():
        if "running" in name:
            value.copy_(torch.rand_like(value) + 0.5)
    buffer = io.BytesIO()
    torch.save({name: value for name, value in net.state_dict().items() if "num_batches" not in name}, buffer)
    content = buffer.getvalue()
    digits = hashlib.sha256(content).hexdigest()[:8]
    hub.models["files"] = {f"resnet18-{digits}.pth": content}
    entry = types.SimpleNamespace(
        url=f"{hub.url}/files/resolve/{hub.commit}/resnet18-{digits}.pth",
        meta={"categories": ["blue", "green", "red"]},
        transforms=torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms,
    )
    monkeypatch.setattr(pretrained, "_torchvision_weights", lambda net, tag: entry)
    return net, f"resnet18-{digits}.pth"


def test_torchvisions_weights_give_torchvisions_logits(torchvision_file, hub, tmp_path):
    net, name = torchvision_file
    stored = open_source("torchvision:resnet18")
    assert stored.name == "resnet18-v1.5"
    torch.testing.assert_close(logits(stored.model, 64), logits(net, 64), rtol=0, atol=1e-5)
    assert stored.classes == ("blue", "green", "red")
    assert "torchvision states none" in stored.licence
    before = len(hub.requests)
    assert torch.equal(open_source("torchvision:resnet18").model.fc.weight, net.fc.weight)
    assert len(hub.requests) == before
    path = tmp_path / "cache" / "torchvision" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="checksum"):
        open_source("torchvision:resnet18")


def test_torchvisions_weights_that_cannot_be_had_are_asked_for(torchvision_file, hub, tmp_path):
    _, name = torchvision_file
    content = hub.models.pop("files")[name]
    path = tmp_path / "cache" / "torchvision" / name
    with pytest.raises(ModelError) as caught:
        open_source("torchvision:resnet18")
    assert f"{hub.url}/files/" in str(caught.value)
    assert str(path) in str(caught.value)
    assert f"begins with {name[9:17]}" in str(caught.value)
    path.write_bytes(content)
    assert open_source("torchvision:resnet18").name == "resnet18-v1.5"
    path.unlink()
    path.write_bytes(pickle.dumps(types.SimpleNamespace))
    with pytest.raises(DataError, match="checksum"):
        open_source("torchvision:resnet18")
    assert path.is_file()


def test_a_verified_file_is_not_read_again_for_its_checksum(torchvision_file, hub, monkeypatch):
    open_source("torchvision:resnet18")
    open_source("hf-hub:owner/small")

    def refuse(*_):
        raise AssertionError("verified again")

    monkeypatch.setattr("resnets.data.download.verify", refuse)
    open_source("torchvision:resnet18")
    open_source("hf-hub:owner/small")


def test_every_entry_of_torchvision_has_what_is_taken_from_it():
    import torchvision

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 370, 3), dtype=np.uint8))
    seen = 0
    for net, ours in TORCHVISION.items():
        for entry in torchvision.models.get_model_weights(net):
            if entry.meta["categories"] is None:
                continue
            seen += 1
            weights = pretrained._torchvision_weights(net, entry.name)
            assert weights is entry
            digits = weights.url.rpartition("-")[2].removesuffix(".pth")
            assert len(digits) == 8
            assert int(digits, 16)
            assert model_spec(ours).num_classes == len(weights.meta["categories"])
            preprocessor = Preprocessor(pretrained._torchvision_preprocess(weights))
            pixels = torch.from_numpy(preprocessor.pixels(image)).permute(2, 0, 1)[None]
            difference = preprocessor.normalize(pixels)[0] - weights.transforms()(image)
            assert difference.abs().max() < 1e-5
        assert pretrained._torchvision_weights(net, "") is torchvision.models.get_model_weights(net).DEFAULT
    assert seen == 10


def test_a_hub_model_predicts_from_the_command_line(hub, tmp_path, capsys):
    image = tmp_path / "image.png"
    Image.new("RGB", (40, 40), (200, 30, 30)).save(image)
    assert main(["predict", "hf-hub:owner/small", str(image), "--json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)[0]["predictions"]) == 3
    assert "small: 0." in captured.err
    assert "note: licence of hf-hub:owner/small: apache-2.0" in captured.err
    for source, words in (("hf-hub:owner/missing", "no such model or revision"), ("resnet50", "torchvision:resnet50")):
        assert main(["predict", source, str(image)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert words in captured.err
        assert "Traceback" not in captured.err


def test_a_cache_that_is_a_file_is_named(hub, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file.*cannot be written"):
        open_source("hf-hub:owner/small")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FILES = st.fixed_dictionaries(
    {"rfilename": st.sampled_from(["config.json", "model.safetensors", "../x"]) | JSON},
    optional={"blobId": st.just("a" * 40) | JSON, "lfs": st.just({"sha256": "b" * 64}) | JSON},
)
ANSWERS = st.fixed_dictionaries(
    {"sha": st.just("c" * 40) | JSON, "siblings": st.lists(FILES, max_size=4) | JSON},
    optional={"cardData": st.dictionaries(st.sampled_from(["license", "license_link"]), JSON) | JSON, "tags": JSON},
)


@settings(max_examples=300)
@given(ANSWERS | JSON)
def test_whatever_the_hub_answers_is_understood_or_refused(answer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resnets.artifacts.hub.read_url", lambda url, **_: json.dumps(answer).encode())
        try:
            model = _ask("owner/name", "main")
        except ModelError:
            return
    assert (model.commit, set(model.checksums)) == ("c" * 40, {"config.json", "model.safetensors"})
    assert set(model.checksums.values()) <= {"git:" + "a" * 40, "sha256:" + "b" * 64}
    assert model.licence.isprintable()
