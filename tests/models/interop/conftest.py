"""Small nets with values under which a wrong key, order or variant shows in the logits."""

import random
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from resnets.models.build import build
from resnets.models.interop.foreign import Foreign
from resnets.specs.model import ResNetSpec
from resnets.specs.preprocess import Preprocess


@pytest.fixture(autouse=True)
def _one_thread():
    """Two threads on nets of a few filters mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small():
    """A spec with few filters: small(block="bottleneck", ...)."""

    def make(**fields):
        stem = fields.get("stem", "7x7")
        pool = "torchvision" if stem == "7x7" else "none"
        defaults = {"block": "basic", "blocks": (1, 2), "widths": (4, 8), "stem": stem, "stem_pool": pool}
        return ResNetSpec(**{**defaults, "shortcut": "B", "num_classes": 3, **fields})

    return make


@pytest.fixture
def net():
    """A net in evaluation mode with weights and BatchNorm statistics of its own: net(spec)."""

    def make(spec, seed=0):
        model = build(spec, seed=seed)
        generator = torch.Generator().manual_seed(seed + 1)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.data.uniform_(0.3, 0.7, generator=generator)
                norm.bias.data.uniform_(-0.2, 0.2, generator=generator)
                norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
                norm.running_var.uniform_(0.5, 1.5, generator=generator)
                norm.num_batches_tracked.fill_(7)
        return model.eval()

    return make


@pytest.fixture
def outgoing():
    """A net of ours as the writers take it: outgoing(model, classes=..., preprocess=...)."""

    def make(model, **fields):
        spec = model.spec
        defaults = {
            "preprocess": Preprocess(
                resize_px=256, crop_px=224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
            ),
            "classes": tuple(f"class {index}" for index in range(spec.num_classes)),
        }
        values = {**defaults, **fields}
        return Foreign(format="", source="ours", weights=model.state_dict(), spec=spec, **values)

    return make


@pytest.fixture
def mutated():
    """Endless damaged copies of some bytes: mutated(content, seed)."""

    def make(content, seed=0):
        source = random.Random(seed)
        while True:
            data = bytearray(content)
            for _ in range(source.choice((1, 1, 1, 2, 8))):
                place = source.randrange(len(data))
                match source.randrange(6):
                    case 0 | 1:
                        data[place] ^= 1 << source.randrange(8)
                    case 2:
                        data[place] = source.choice((0, 0x7F, 0x80, 0xFF, 0x30, 0x39, 0x22))
                    case 3:
                        del data[place : place + source.choice((1, 4, 64))]
                    case 4:
                        data[place:place] = source.randbytes(source.choice((1, 4, 16)))
                    case 5:
                        del data[place:]
                if not data:
                    data = bytearray(b"\x00")
            yield bytes(data)

    return make


@pytest.fixture
def equal_weights():
    """Whether two state dicts have the same names, types and bits."""

    def same(ours, theirs):
        return ours.keys() == theirs.keys() and all(
            value.dtype == theirs[name].dtype and torch.equal(value, theirs[name]) for name, value in ours.items()
        )

    return same


@pytest.fixture
def quick_folder(tmp_path):
    """A folder in memory where the machine has one, for thousands of small files."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
