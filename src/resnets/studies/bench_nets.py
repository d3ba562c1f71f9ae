"""Ways to compute a net's answer, for the prediction benchmark: from image files, and from normalised images.

All have the weights of the same model. Before anything is timed, the logits of a net are compared with those of that
model in fp32: one that computes something else has failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from resnets.engine.device import check_precision, choose_device, set_up, use
from resnets.engine.step import autocast
from resnets.models.fold import fold_batch_norm
from resnets.specs.errors import ModelError, ResnetsError
from resnets.specs.run import Machine
from resnets.studies.accelerator import wait_for
from resnets.studies.bench import Prepared, System
from resnets.studies.usual_nets import largest_difference, plain_cifar_net, timm_net, torchvision_net, with_weights
from resnets.tasks.classify.load import load_source
from resnets.tasks.classify.predict import predict

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from resnets.artifacts.model_folder import StoredModel

TOLERANCE = {"fp32": 1e-4, "bf16": 0.1, "fp16": 0.02}
"""Largest difference of a logit from that of the model in fp32, as a share of the largest one."""
TOP_K = 5


@dataclass(frozen=True, kw_only=True)
class PredictionSystem(System):
    """A way to predict; subclasses say which. It can be sent to a process."""

    model: str
    """A run directory, a model folder, or weights by name."""
    device: str

    def prepare(self) -> Prepared:
        """Load the model, give the first answer, and return the function that gives it again."""
        started = time.perf_counter()
        device = choose_device(self.device)
        stored = load_source(self.model)
        call, facts = self.caller(stored, device)
        call()
        wait_for(device)
        facts |= {"batch": self.images, "first_answer_seconds": round(time.perf_counter() - started, 2)}

        def run(number: int) -> None:
            call()
            wait_for(device)

        return Prepared(run, facts)

    def caller(self, stored: StoredModel, device: torch.device) -> tuple[Callable[[], Any], dict[str, Any]]:
        """Return what gives the answer once, and facts for the row."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OurPrediction(PredictionSystem):
    """What `resnets.load(...).predict` does: from files to labels."""

    photographs: tuple[Path, ...]

    def caller(self, stored: StoredModel, device: torch.device) -> tuple[Callable[[], Any], dict[str, Any]]:
        """Return a prediction of the photographs."""
        return lambda: list(predict(stored, self.photographs, top_k=TOP_K, device=device)), {}


@dataclass(frozen=True, kw_only=True)
class UsualPrediction(PredictionSystem):
    """Pillow, torchvision's transforms and an eager net in the default layout, as most scripts have it."""

    photographs: tuple[Path, ...]

    def caller(self, stored: StoredModel, device: torch.device) -> tuple[Callable[[], Any], dict[str, Any]]:
        """Return a prediction of the photographs."""
        from PIL import Image
        from torchvision import transforms

        use(device)
        spec = stored.preprocessor.spec
        model = usual_net(stored).eval().to(device)
        transform = transforms.Compose(
            [
                transforms.Resize(spec.resize_px, transforms.InterpolationMode(spec.interpolation)),
                transforms.CenterCrop(spec.crop_px),
                transforms.ToTensor(),
                transforms.Normalize([value / 255 for value in spec.mean], [value / 255 for value in spec.std]),
            ]
        )
        mode = "L" if spec.channels == 1 else "RGB"

        @torch.no_grad()
        def call() -> list[list[int]]:
            images = []
            for path in self.photographs:
                with Image.open(path) as opened:
                    images.append(transform(opened.convert(mode)))
            probabilities = model(torch.stack(images).to(device)).softmax(1)
            return probabilities.topk(min(TOP_K, len(stored.classes))).indices.tolist()

        return call, {}


@dataclass(frozen=True, kw_only=True)
class NetAlone(PredictionSystem):
    """A net on normalised images that are on the device."""

    net: Literal["ours", "usual", "timm"]
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    folded: bool = False
    """BatchNorm folded into the convolutions."""
    compile: bool = False

    def caller(self, stored: StoredModel, device: torch.device) -> tuple[Callable[[], Any], dict[str, Any]]:
        """Return a forward pass.

        Raises:
            ResnetsError: its logits are not those of the model.
        """
        check_precision(self.precision, device)
        set_up(device, Machine())
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        spec = stored.preprocessor.spec
        images = torch.randn(
            self.images, spec.channels, spec.crop_px, spec.crop_px, generator=torch.Generator().manual_seed(0)
        )
        with torch.no_grad():
            expected = stored.model(images[:2])
        model: Any = self._net(stored).eval()
        model = fold_batch_norm(model) if self.folded else model
        model = model.to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue]
        if self.compile:
            model = torch.compile(model, dynamic=False)
        images = images.to(device).contiguous(memory_format=layout)

        @torch.inference_mode()
        def call() -> torch.Tensor:
            with autocast(self.precision, device):
                return model(images)

        difference = largest_difference(call()[:2].float().cpu(), expected)
        if not difference <= TOLERANCE[self.precision]:
            raise ResnetsError(f"its logits differ from the model's by {difference:.2g} of the largest")
        facts = {"precision": self.precision, "channels_last": self.channels_last, "compile": self.compile}
        return call, facts | {"folded": self.folded, "logit_difference": float(f"{difference:.2g}")}

    def _net(self, stored: StoredModel) -> nn.Module:
        if self.net == "ours":
            return stored.model
        if self.net == "usual":
            return usual_net(stored)
        model = timm_net(stored.spec)
        if model is None:
            raise ModelError("timm has no such net.")
        return with_weights(model, stored.model.state_dict())


def usual_net(stored: StoredModel) -> nn.Module:
    """Return the model as others have it, with the same weights; the model itself where nobody has it."""
    model = torchvision_net(stored.spec) or plain_cifar_net(stored.spec)
    return stored.model if model is None else with_weights(model, stored.model.state_dict())
