"""Runs to report on: a short one that was really trained, and folders as a run leaves them, written by hand."""

import dataclasses
import json
from html.parser import HTMLParser

import pytest

import resnets
from resnets.specs import io
from resnets.specs.run import Machine

VOID = {"meta", "link", "img", "br", "rect", "line", "circle", "path"}


class Page(HTMLParser):
    """A page taken apart: its elements in order, and their text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.html, self.elements, self.open, self.texts = html, [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], f"elements left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self):
        return " ".join(" ".join(data for where, data in self.texts if where != "style").split())

    @property
    def structure(self):
        return [(tag, tuple(sorted(attributes))) for tag, attributes in self.elements]

    def values(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture
def page():
    return Page


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Two finished runs on the digits, which differ in their shortcuts."""
    folder = tmp_path_factory.mktemp("runs")
    for kind, family in (("plain", "plain"), ("residual", "resnet")):
        spec = resnets.shorten(resnets.recipe(f"digits.{family}8"), 8)
        machine = Machine(device="cpu", checkpoint_every=4)
        resnets.train(spec, run=folder / kind, machine=machine, quiet=True)
    return folder


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a run directory without weights: its spec, log and environment."""

    def write(name="run", lines=(), environment=None, recipe="folder.scratch", **changes):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        spec = dataclasses.replace(resnets.recipe(recipe), **changes)
        (folder / "config.json").write_text(json.dumps(io.to_json(spec)))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if environment is not None:
            (folder / "env.json").write_text(json.dumps(environment))
        return folder

    return write


def training(step, error, **values):
    return {"step": step, "split": "train", "epoch": step / 10, "loss": 1.0, "top1_error": error} | values


def validation(step, error, **values):
    return {"step": step, "split": "validation", "loss": 1.0, "top1_error": error, "images": 50, "skipped": []} | values


@pytest.fixture
def lines():
    """A short log of a folder's run, finished."""
    return [
        training(10, 80.0, lr=0.1, images_per_second=100.0, waiting_share=0.25),
        training(20, 40.0, lr=0.01, images_per_second=300.0, waiting_share=0.0),
        validation(20, 44.0),
        validation(20, 44.0, final=True),
    ]
