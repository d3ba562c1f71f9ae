"""The scores of every image of a split under a test protocol (He et al. 2015, Sec. 4.1).

The centre crop is scored as in training. Of ten crops, and of all locations of the image at several sizes, the
softmax scores are averaged: over locations, over the mirror images and over crops or sizes, in this order. The
averages are taken of logarithms, so that no score is rounded to zero.

Shapes: n images, v views of an image, h x w pixels, c channels.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from resnets.data.batches import evaluation_batches
from resnets.data.preprocess import Preprocessor
from resnets.data.splits import FileSplit
from resnets.data.transfer import sent
from resnets.data.view_loader import view_batches
from resnets.data.views import REFERENCE_CROP_PX, shorter_sides
from resnets.engine.device import without_trials
from resnets.engine.gpu_memory import ForwardPasses
from resnets.engine.loop import EvaluationStopped
from resnets.engine.step import autocast
from resnets.specs.errors import ModelError, UserError
from resnets.specs.protocol import Center, Dense, TenCrop, protocol_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaxtyping import Float, Int64, UInt8
    from torch import Tensor, nn

    from resnets.data.splits import Skipped, Split
    from resnets.data.view_loader import DecodedViews
    from resnets.engine.distributed import Distributed
    from resnets.specs.protocol import ProtocolSpec

    _ScoreMap = Callable[[Tensor, int | None], Tensor]

BATCH_SIZE = 256
"""Most images a forward pass, each a single view."""

# Larger images share a pass with fewer: 256 at 448 px take several times what training at a usual batch does.
_CENTRE_PIXELS_A_PASS = BATCH_SIZE * 224**2

# A core's cache holds the maps of few pixels; an accelerator is busy only with many.
_PIXELS_A_PASS = {"cpu": 2**19}
_PIXELS_A_PASS_ELSEWHERE = 2**23


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """The scores of a batch, on the device."""

    logits: Float[Tensor, "n classes"]
    """In float32; their softmax is the probability of each class. Without images, there are no columns either."""
    labels: Int64[Tensor, " n"]
    indices: Int64[np.ndarray, " n"]
    """Index of each image in its split."""
    skipped: tuple[Skipped, ...] = ()
    """Images that belong into this batch but could not be read."""

    def __len__(self) -> int:
        """Return the number of images with scores."""
        return len(self.indices)


def check_protocol(
    protocol: ProtocolSpec, model: nn.Module, preprocessor: Preprocessor, split: Split, name: str
) -> None:
    """Refuse a protocol that the images or the model called `name` do not allow, before an image is read.

    Args:
        protocol: what is asked for.
        model: in evaluation mode: dense testing tries it on an image of the smallest scale.
        preprocessor: of the model.
        split: the images.
        name: of the model, for messages.

    Raises:
        UserError: it needs image files, and the images are in memory; or a scale is too small for the net.
        ModelError: dense testing needs `score_map`, and the model has none.
    """
    if isinstance(protocol, Center):
        return
    if not isinstance(split, FileSplit):
        raise UserError(
            f"--protocol {protocol_name(protocol)} sees more of an image than the model's crop, but digits and CIFAR "
            "images are no larger; test them with --protocol center."
        )
    if not isinstance(protocol, Dense):
        return
    if not callable(getattr(model, "score_map", None)):
        raise ModelError(
            f"{name} cannot be tested densely: it has no score_map(images, window), which gives its logits at every "
            "location. Add it, or test with --protocol center or ten-crop."
        )
    _check_smallest_scale(protocol, model, preprocessor, name)


def _check_smallest_scale(protocol: Dense, model: nn.Module, preprocessor: Preprocessor, name: str) -> None:
    """Refuse a scale at which nothing is left of an image in the net's last map.

    The net is tried where it is, not on the meta device: one of the user's own may do what has no meaning there. A
    scale from the crop's size on needs no trial, so the trial is never larger than a training image.
    """
    spec = preprocessor.spec
    device = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0)).device

    def trial(side: int) -> RuntimeError | None:
        images = torch.zeros(1, spec.channels, side, side, device=device)
        try:
            with torch.inference_mode():
                cast("_ScoreMap", model.score_map)(images, None)
        except RuntimeError as error:
            return error
        return None

    side, scale = min(zip(shorter_sides(protocol, spec.crop_px), protocol.scales_px, strict=True))
    if side >= spec.crop_px or (failure := trial(side)) is None:
        return
    if trial(spec.crop_px) is not None:
        # A crop fails as well, so the scale is not the cause.
        raise failure
    least = bisect.bisect_left(range(spec.crop_px), True, lo=side + 1, key=lambda size: trial(size) is None)
    raise UserError(
        f"--scales: {scale}, for a crop of {REFERENCE_CROP_PX}, is {side} px for the crop of {spec.crop_px} of {name}; "
        f"the net needs at least {least} px. Give scales from {math.ceil(least * REFERENCE_CROP_PX / spec.crop_px)} on."
    ) from failure


def scored_batches(
    model: nn.Module,
    split: Split,
    preprocessor: Preprocessor,
    protocol: ProtocolSpec,
    *,
    ranks: Distributed,
    precision: str = "fp32",
    channels_last: bool = True,
    workers: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    on_images: Callable[[int], None] = lambda count: None,
) -> Iterator[Scored]:
    """Yield the scores of every image of this rank once; images that cannot be read are named in their batch.

    Args:
        model: gives logits (n, classes), and for `Dense` has `score_map`; in evaluation mode.
        split: the images; for other protocols than `Center` they are files.
        preprocessor: how they become inputs.
        protocol: which views of an image are scored.
        ranks: the processes that share the images: rank::world_size are this one's.
        precision: "fp32", "bf16" or "fp16" of the forward pass.
        channels_last: memory layout of the inputs.
        workers: processes that decode files; see `ViewBatches.read` for protocols of many views.
        should_stop: asked before each batch, on every rank equally often.
        on_images: told the number of images of each batch, unreadable ones included.

    Raises:
        EvaluationStopped: `should_stop` returned true.
        DataError: the images do not fit the model.
        DeviceError: the device's memory is not enough for one image.
        ResnetsError: a worker process died.
    """
    if isinstance(protocol, Center):
        batch_size = _images_a_pass(preprocessor.spec.crop_px)
        count = math.ceil(len(range(ranks.rank, len(split), ranks.world_size)) / batch_size)
        batches = _centre_scores(model, split, preprocessor, ranks, precision, channels_last, workers, batch_size)
    else:
        assert isinstance(split, FileSplit)
        planned = view_batches(split, preprocessor, protocol, rank=ranks.rank, world_size=ranks.world_size)
        count = planned.count
        decoded = planned.read(workers=workers, device=ranks.device)
        batches = map(_ViewScorer(model, preprocessor, protocol, ranks.device, precision, channels_last), decoded)
    # Ranks ask each other before each batch whether to stop, so all have to go round equally often.
    for _ in range(max(ranks.gather([count]))):
        if should_stop():
            raise EvaluationStopped
        batch = next(batches, None)
        if batch is not None:
            yield batch
            on_images(len(batch) + len(batch.skipped))


def _images_a_pass(side: int) -> int:
    """Return the number of images of side x side pixels of a batch, the same on every rank."""
    return max(1, min(BATCH_SIZE, _CENTRE_PIXELS_A_PASS // side**2))


def _centre_scores(
    model: nn.Module,
    split: Split,
    preprocessor: Preprocessor,
    ranks: Distributed,
    precision: str,
    channels_last: bool,
    workers: int,
    batch_size: int,
) -> Iterator[Scored]:
    passes = ForwardPasses(batch_size, ranks.device, precision)
    batches = evaluation_batches(
        split,
        preprocessor,
        batch_size=batch_size,
        device=ranks.device,
        channels_last=channels_last,
        workers=workers,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    for batch in batches:
        logits = torch.empty(0, 0)
        if len(batch):
            with torch.no_grad(), autocast(precision, ranks.device):
                logits = passes(model, batch.images).float()
        yield Scored(logits=logits, labels=batch.labels, indices=batch.indices, skipped=batch.skipped)


class _ViewScorer:
    """Turns the views of a batch of images into their scores."""

    def __init__(
        self,
        model: nn.Module,
        preprocessor: Preprocessor,
        protocol: TenCrop | Dense,
        device: torch.device,
        precision: str,
        channels_last: bool,
    ) -> None:
        self._device = device
        self._precision = precision
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._preprocessor = preprocessor
        self._passes: dict[tuple[int, int], ForwardPasses] = {}
        if isinstance(protocol, Dense):
            self._flips = protocol.flips
            # A crop's mean image has no place in an image of another size, so no size gets it.
            self._preprocessor = with_mean_of_channels(preprocessor)
            score_map = cast("_ScoreMap", model.score_map)
            window = _window(score_map, preprocessor, device) if protocol.form == "window" else None
            self._logits = lambda images: score_map(images, window)
            self._algorithms = without_trials
        else:
            self._flips = True
            self._logits = lambda images: model(images)[:, :, None, None]
            self._algorithms = nullcontext

    @torch.inference_mode()
    def __call__(self, decoded: DecodedViews) -> Scored:
        """Return the logarithms of the averaged scores; the images are in the order of their groups."""
        # One context for all passes: the weights are rounded to the precision once in it.
        with self._algorithms(), autocast(self._precision, self._device):
            groups = [self._averaged([self._of_one_size(views) for views in group.sizes]) for group in decoded.groups]
        return Scored(
            logits=torch.cat([*groups]) if groups else torch.empty(0, 0),
            labels=torch.cat([torch.empty(0, dtype=torch.int64), *(g.labels for g in decoded.groups)]).to(self._device),
            indices=np.concatenate([np.empty(0, np.int64), *(g.indices.numpy() for g in decoded.groups)]),
            skipped=tuple(decoded.skipped),
        )

    def _of_one_size(self, views: UInt8[Tensor, "n v h w c"]) -> Float[Tensor, "n classes"]:
        pixels = views.flatten(0, 1).permute(0, 3, 1, 2)
        scores = self._passes_of(pixels.shape[2], pixels.shape[3])(self._of_one_pass, pixels)
        return self._averaged(list(scores.unflatten(0, views.shape[:2]).unbind(1)))

    def _passes_of(self, height: int, width: int) -> ForwardPasses:
        # A pass that was too large for memory says what fits of that size alone.
        if (height, width) not in self._passes:
            limit = _PIXELS_A_PASS.get(self._device.type, _PIXELS_A_PASS_ELSEWHERE)
            most = limit // ((2 if self._flips else 1) * height * width)
            self._passes[height, width] = ForwardPasses(most, self._device, self._precision)
        return self._passes[height, width]

    def _of_one_pass(self, pixels: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        pixels = sent(pixels, self._device)
        if self._flips:
            pixels = torch.cat([pixels, pixels.flip(3)])
        images = self._preprocessor.normalize(pixels).contiguous(memory_format=self._layout)
        scores = self._logits(images).float().log_softmax(dim=1).flatten(2)
        scores = scores.logsumexp(dim=2) - math.log(scores.shape[2])
        return self._averaged(list(scores.chunk(2))) if self._flips else scores

    @staticmethod
    def _averaged(scores: list[Float[Tensor, "n classes"]]) -> Float[Tensor, "n classes"]:
        """Return the logarithm of the mean of scores that are given as logarithms."""
        return torch.stack(scores).logsumexp(dim=0) - math.log(len(scores))


def with_mean_of_channels(preprocessor: Preprocessor) -> Preprocessor:
    """Return the preprocessing with the average of its mean image, a value a channel, in the mean image's place."""
    if preprocessor.mean_image is None:
        return preprocessor
    mean = preprocessor.mean_image.mean(axis=(0, 1), dtype=np.float64)
    return Preprocessor(dataclasses.replace(preprocessor.spec, mean_image=False, mean=tuple(mean.tolist())))


def _window(score_map: _ScoreMap, preprocessor: Preprocessor, device: torch.device) -> int:
    """Return the side of the last map of a training crop, which is the number of its windows of one pixel a row."""
    spec = preprocessor.spec
    crop = torch.zeros(1, spec.channels, spec.crop_px, spec.crop_px, device=device)
    with torch.inference_mode():
        return score_map(crop, 1).shape[3]
