"""Shards on a web server: the test starts one on loopback."""

import http.server
import threading

import numpy as np
import pytest
from PIL import Image

from resnets.data.folder import list_folder
from resnets.data.open import dataset_spec_for, open_folder
from resnets.data.shard_index import DESCRIPTION, Form, read_index
from resnets.data.shard_mirror import LIMIT_VARIABLE, is_url, mirror
from resnets.data.shard_writer import prepare
from resnets.specs.data import Digits, ImageFolder
from resnets.specs.errors import DataError, ImageError


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


def test_a_shard_that_cannot_be_had_is_named_with_its_images(server, shards, tmp_path, monkeypatch):
    url, _ = server
    root = mirror(url)
    split = open_folder(ImageFolder(), root).splits["train"]
    victim = shards / read_index(shards).shards[0].file
    content = victim.read_bytes()
    monkeypatch.setattr("resnets.data.download.time.sleep", lambda _: None)
    try:
        victim.write_bytes(content[:600] + b"x" + content[601:])
        named = {}
        for index in range(len(split)):
            try:
                split.images.read(index)
            except ImageError as error:
                named[int(split.images.shard[index])] = str(error)
    finally:
        victim.write_bytes(content)
    assert list(named) == [0]
    assert "its shard cannot be had" in named[0]
    assert "checksum" in named[0]
    assert not (root / victim.name).exists()


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
