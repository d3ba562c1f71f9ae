"""A model hub on this machine, and small nets for it."""

import hashlib
import http.server
import json
import threading
import urllib.parse

import pytest
import torch

from resnets.artifacts.model_folder import StoredModel, save_model
from resnets.data.preprocess import Preprocessor
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.preprocess import Preprocess


class Hub(http.server.ThreadingHTTPServer):
    """Serves the API and the files of models as the hub does; how badly is set by the test."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commit = "0123456789abcdef0123456789abcdef01234567"
        self.models = {}
        """From OWNER/NAME to its files."""
        self.card = {"license": "apache-2.0"}
        self.siblings = []
        """Entries that the answer has besides those of the files."""
        self.change_answer = lambda answer: answer
        self.statuses = {}
        """From a path's end to the statuses that are answered first."""
        self.break_after = []
        self.storage = None
        """Another server, to which requests for weights are redirected."""
        self.requests = []
        """Path, Range and Authorization of each."""

    def requested(self, end):
        return [request for request in self.requests if request[0].endswith(end)]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path)
        self.server.requests.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
        for end, statuses in self.server.statuses.items():
            if path.endswith(end) and statuses:
                return self.send_error(statuses.pop(0))
        if path.startswith("/api/models/"):
            name = path.removeprefix("/api/models/").partition("/revision/")[0]
            if name not in self.server.models:
                return self.send_error(401)
            return self._answer(json.dumps(self._description(name)).encode())
        name, _, rest = path[1:].partition("/resolve/")
        commit, _, file = rest.partition("/")
        content = self.server.models.get(name, {}).get(file)
        if content is None or commit != self.server.commit:
            return self.send_error(404)
        if self.server.storage and file.endswith(".safetensors"):
            self.send_response(302)
            self.send_header("Location", f"{self.server.storage}{self.path}")
            return self.end_headers()
        return self._answer(content)

    def _description(self, name):
        siblings = []
        for file, content in self.server.models[name].items():
            entry = {"rfilename": file, "size": len(content), "blobId": _git_name(content)}
            if file.endswith(".safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                entry |= {
                    "blobId": _git_name(b"pointer"),
                    "lfs": {"sha256": digest, "size": len(content), "pointerSize": 134},
                }
            siblings.append(entry)
        answer = {
            "id": name,
            "sha": self.server.commit,
            "cardData": self.server.card,
            "siblings": siblings + self.server.siblings,
        }
        return self.server.change_answer(answer)

    def _answer(self, content):
        asked = self.headers.get("Range")
        start = int(asked[6:-1]) if asked else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        length = self.server.break_after.pop(0) if self.server.break_after and start + 4096 < len(content) else None
        self.wfile.write(content[start:] if length is None else content[start : start + length])


@pytest.fixture
def second_hub():
    """A server without models."""
    with _serve() as server:
        yield server
        server.shutdown()


def _serve():
    server = Hub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture
def hub(monkeypatch, tmp_path, small_net):
    """A hub with one model folder of ours, owner/small, an empty cache, and no waiting between attempts."""
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("resnets.data.download.time.sleep", lambda _: None)
    with _serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        save_model(tmp_path / "small", small_net())
        server.models["owner/small"] = {file.name: file.read_bytes() for file in (tmp_path / "small").iterdir()}
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def small_net():
    """Return stored nets with random weights and statistics, so that no two channels are alike and none is dead."""

    def make(name="cifar-resnet8", classes=("blue", "green", "red"), seed=0, **fields):
        spec = model_spec(name, num_classes=len(classes), **fields)
        model = build(spec, seed=seed).eval()
        generator = torch.Generator().manual_seed(seed)
        for key, value in model.state_dict().items():
            if key.endswith(("running_mean", "running_var")):
                lowest = -0.5 if key.endswith("mean") else 0.5
                value.copy_(torch.rand(value.shape, generator=generator) + lowest)
        channels = spec.in_channels
        preprocess = Preprocess(
            resize_px=36,
            crop_px=32,
            color="gray" if channels == 1 else "rgb",
            mean=(120.0,) * channels,
            std=(60.0,) * channels,
        )
        return StoredModel(model=model, spec=spec, preprocessor=Preprocessor(preprocess), classes=classes, metrics={})

    return make


def _git_name(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
