"""Shards on a web server: the test starts one on loopback."""

import dataclasses
import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

import resnets
from resnets.data import shard_index, shard_mirror
from resnets.data.download import DownloadError, download
from resnets.data.folder import list_folder
from resnets.data.open import dataset_spec_for, open_folder
from resnets.data.read_ahead import read_ahead
from resnets.data.shard_index import DESCRIPTION, Form, read_index
from resnets.data.shard_mirror import (
    LIMIT_VARIABLE,
    Origin,
    fetched_before,
    fetched_shards,
    fetching_nothing,
    is_url,
    mirror,
)
from resnets.data.shard_writer import prepare
from resnets.specs.data import Digits, ImageFolder
from resnets.specs.errors import DataError, ImageError, UserError
from resnets.specs.model import ResNetSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(30):
            Image.fromarray(random.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")
    root = tmp_path_factory.mktemp("shards")
    prepare(list_folder(folder), root, Form(), shard_bytes=20_000)
    return root


@pytest.fixture
def server(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("RESNETS_DATA_ROOT", str(tmp_path / "home"))
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(shards))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}", asked
    running.shutdown()
    running.server_close()
    thread.join()


def read_all(split):
    return [split.images.read(index) for index in range(len(split))]


def test_shards_of_a_server_are_those_of_its_folder_and_fetched_once_when_needed(server, shards):
    url, asked = server
    spec, root = dataset_spec_for(url + "/", Digits())
    assert spec == ImageFolder()
    ours, theirs = open_folder(ImageFolder(), root), open_folder(ImageFolder(), shards)
    assert (ours.name, ours.fingerprint) == (url, theirs.fingerprint)
    assert not [path for path in asked if path.endswith(".tar")]
    first = ours.splits["train"].images.read(0)
    assert len([path for path in asked if path.endswith(".tar")]) == 1
    assert read_all(ours.splits["train"]) == read_all(theirs.splits["train"])
    assert first == theirs.splits["train"].images.read(0)
    _, again = dataset_spec_for(f"{url}/{DESCRIPTION}", ImageFolder())
    assert again == root
    read_all(open_folder(ImageFolder(), again).splits["train"])
    fetched = [path for path in asked if path.endswith(".tar")]
    assert len(fetched) == len(set(fetched)) == len(read_index(shards).shards)
    assert asked.count("/index.npz") == 1


def test_a_server_that_is_out_of_reach_at_the_second_start_is_not_needed(server, monkeypatch, capfd):
    url, asked = server
    root = mirror(url)
    expected = read_all(open_folder(ImageFolder(), root).splits["train"])
    asked.clear()

    def unreachable(address, **_):
        asked.append(address)
        raise DownloadError("nobody answers.", out_of_reach="timed out")

    monkeypatch.setattr(shard_mirror, "read_url", unreachable)
    monkeypatch.setattr(shard_mirror, "_out_of_reach", set())
    capfd.readouterr()
    for _ in range(3):
        assert mirror(f"{url}/") == root
    said = f"{url} is out of reach (timed out): going on with what was fetched before, in {root}.\n"
    assert capfd.readouterr().err == said
    assert asked.pop() == f"{url}/{DESCRIPTION}"
    assert read_all(open_folder(ImageFolder(), root).splits["train"]) == expected
    assert not asked
    with pytest.raises(DataError, match="nobody answers"):
        mirror(f"{url}/others")
    (root / shard_mirror.INDEX).unlink()
    with pytest.raises(DataError, match="nobody answers"):
        mirror(url)


@pytest.mark.parametrize("status", [404, None])
def test_a_server_that_has_the_shards_no_more_is_not_replaced_by_what_was_fetched(server, monkeypatch, status):
    url, _ = server
    mirror(url)

    def gone(_, **__):
        raise DownloadError("gone.", status)

    monkeypatch.setattr(shard_mirror, "read_url", gone)
    with pytest.raises(DataError, match="gone"):
        mirror(url)


def test_old_shards_make_room_for_new_ones(server, shards, monkeypatch):
    url, asked = server
    largest = max(shard.bytes for shard in read_index(shards).shards)
    monkeypatch.setenv(LIMIT_VARIABLE, str(2.5 * largest / 1e9))
    root = mirror(url)
    split = open_folder(ImageFolder(), root).splits["train"]
    expected = read_all(open_folder(ImageFolder(), shards).splits["train"])
    for _ in range(2):
        assert read_all(split) == expected
        assert sum(path.stat().st_size for path in root.glob("*.tar")) <= 2.5 * largest
    assert len([path for path in asked if path.endswith(".tar")]) > len(read_index(shards).shards)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_cannot_be_had_ends_the_reading_instead_of_leaving_out_its_images(
    server, shards, monkeypatch, workers
):
    url, asked = server
    root = mirror(url)
    split = open_folder(ImageFolder(), root).splits["train"]
    victim = shards / read_index(shards).shards[0].file
    content = victim.read_bytes()
    monkeypatch.setattr("resnets.data.download.time.sleep", lambda _: None)
    try:
        victim.write_bytes(content[:600] + b"x" + content[601:])
        with pytest.raises(
            DataError, match=r"^[^\n]*train-000000\.tar\.part has the sha256 checksum[^\n]*$"
        ) as refused:
            list(read_ahead(Contents(split.images), range(len(split)), workers=workers, device=torch.device("cpu")))
        assert not isinstance(refused.value, ImageError)
        assert asked.count("/train-000000.tar") <= max(workers, 1)
        assert not (root / victim.name).exists()
        victim.unlink()
        with pytest.raises(DataError, match=r"train-000000\.tar cannot be downloaded: the server answers 404"):
            split.images.read(int(np.flatnonzero(split.images.shard == 0)[0]))
    finally:
        victim.write_bytes(content)


class Contents(TorchDataset[bytes]):
    def __init__(self, images):
        self.images = images

    def __getitem__(self, number):
        return self.images.read(number)


def test_a_shard_that_another_process_removes_before_it_is_read_is_fetched_again(server, shards, monkeypatch):
    url, _ = server
    fetch, removed = Origin.fetch, []

    def fetched_and_removed(self, number):
        fetch(self, number)
        if len(removed) < 3:
            removed.append(number)
            (self.folder / self.shards[number].file).unlink()

    monkeypatch.setattr(Origin, "fetch", fetched_and_removed)
    split = open_folder(ImageFolder(), mirror(url)).splits["train"]
    assert read_all(split) == read_all(open_folder(ImageFolder(), shards).splits["train"])
    assert len(removed) == 3


def test_a_shard_that_is_removed_while_a_process_waits_for_another_to_fetch_it_is_fetched_again(
    server, shards, monkeypatch
):
    url, _ = server
    split = open_folder(ImageFolder(), mirror(url)).splits["train"]
    lost = []

    def download_or_lose(*given, **named):
        if len(lost) < 2:
            lost.append(given)
            raise DataError("cannot be written") from FileNotFoundError()
        return download(*given, **named)

    monkeypatch.setattr(shard_mirror, "download", download_or_lose)
    assert read_all(split) == read_all(open_folder(ImageFolder(), shards).splits["train"])
    assert len(lost) == 2


def test_a_set_that_fetches_nothing_reads_the_images_that_are_here_in_the_place_of_others(server, shards):
    url, asked = server
    assert fetched_before(url) is None
    assert not asked
    root = mirror(url)
    assert (fetched_before(f"{url}/{DESCRIPTION}"), fetched_shards(root), fetched_shards(shards)) == (root, 0, None)
    split = open_folder(ImageFolder(), root).splits["train"]
    with fetching_nothing():
        nothing = open_folder(ImageFolder(), root).splits["train"]
    with pytest.raises(ImageError, match="cannot be read"):
        nothing.images.read(0)
    assert not [path for path in asked if path.endswith(".tar")]
    here = np.flatnonzero(split.images.shard == split.images.shard[0])
    expected = [split.images.read(int(index)) for index in here]
    assert fetched_shards(root) == 1
    with fetching_nothing():
        some = open_folder(ImageFolder(), root).splits["train"]
    asked.clear()
    assert (len(some), set(read_all(some))) == (len(split), set(expected))
    assert [some.images.read(int(index)) for index in here] == expected
    assert not asked
    assert len(set(read_all(open_folder(ImageFolder(), root).splits["train"]))) == len(split)


def test_the_doctor_fetches_no_shards_and_needs_some(server, tmp_path):
    url, asked = server
    net = ResNetSpec(block="basic", blocks=(1,), widths=(8,), stem="3x3", shortcut="B")
    dataset = ImageFolder(image_px=24, resize_px=28, mean_image=True)
    spec = dataclasses.replace(resnets.recipe("folder.scratch"), model=net, dataset=dataset, global_batch=4)
    machine = resnets.Machine(device="cpu", threads=1, workers=0)
    refused = f"No training shard of {url} was fetched to this machine yet"
    with pytest.raises(UserError, match=refused):
        resnets.doctor(spec, data=url, machine=machine, seconds=1.0)
    assert not asked
    assert not (tmp_path / "home").exists()
    root = mirror(url)
    for data in (url, root):
        with pytest.raises(UserError, match="No training shard of"):
            resnets.doctor(spec, data=data, machine=machine, seconds=1.0)
    open_folder(ImageFolder(), root).splits["train"].images.read(0)
    asked.clear()
    before = sorted(root.iterdir())
    diagnosis = resnets.doctor(spec, data=url, machine=machine, seconds=1.0).diagnosis
    assert "read the training images in 1 shard that is here already" in " ".join(diagnosis.notes)
    assert diagnosis.measured.images == len(open_folder(ImageFolder(), root).splits["train"])
    assert not asked
    assert sorted(root.iterdir()) == before


def test_less_room_than_a_shard_takes_is_refused(server, monkeypatch):
    url, asked = server
    monkeypatch.setenv(LIMIT_VARIABLE, "0.00001")
    with pytest.raises(DataError, match=r"RESNETS_SHARD_CACHE_GB is 0\.00001, but the largest of these shards takes"):
        open_folder(ImageFolder(), mirror(url))
    assert not [path for path in asked if path.endswith(".tar")]


def test_shards_of_a_server_are_prepared_as_those_of_a_folder(server, shards, tmp_path):
    url, _ = server
    resnets.prepare(url, tmp_path / "small", resize_px=8, raw=True, workers=0)
    resnets.prepare(shards, tmp_path / "same", resize_px=8, raw=True, workers=0)
    assert (tmp_path / "small" / DESCRIPTION).read_bytes() == (tmp_path / "same" / DESCRIPTION).read_bytes()


def test_processes_that_start_at_once_get_the_same_index(server):
    url, _ = server
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(mirror, [url] * 40))) == 1


@pytest.mark.parametrize("checksum", [None, 5, "../../../../../x", "ab" * 31])
def test_an_index_whose_checksum_is_none_names_no_folder(server, shards, tmp_path, checksum):
    url, _ = server
    whole = (shards / DESCRIPTION).read_bytes()
    described = json.loads(whole) | {"index_sha256": checksum}
    del described["checksum"]
    try:
        (shards / DESCRIPTION).write_text(json.dumps(described | {"checksum": shard_index._checksum(described)}))
        with pytest.raises(DataError, match="has no checksum"):
            mirror(url)
    finally:
        (shards / DESCRIPTION).write_bytes(whole)
    assert not (tmp_path / "home").exists()


def test_an_address_without_shards_is_refused(server):
    url, _ = server
    with pytest.raises(DataError, match=r"404.*address of a folder of shards"):
        mirror(url + "/nowhere")
    assert is_url("HTTPS://host/x")
    assert not is_url("photos/http://")


@pytest.mark.parametrize("limit", ["much", "0", "nan", "-1"])
def test_a_limit_that_is_none_is_refused_before_anything_is_fetched(server, monkeypatch, limit):
    url, asked = server
    monkeypatch.setenv(LIMIT_VARIABLE, limit)
    with pytest.raises(DataError, match=f"{LIMIT_VARIABLE} is '{limit}'"):
        mirror(url)
    assert asked == ["/shards.json"]
