"""How strongly each layer of a trained net responds: the standard deviations of Fig. 7 (He et al. 2015, Sec. 4.2).

The response of a layer is its output after BatchNorm and before the ReLU or the addition; in a residual net, that of a
block's last layer is the residual function itself. Its standard deviation is over all images, channels and pixels.
The paper's figure has one value for each 3x3 layer, 6n+1 of a CIFAR net of 6n+2 layers, in the order of the layers and
sorted. Of a net that is not trained, every value is 1.

BatchNorm makes channel c have mean beta_c and standard deviation |gamma_c|, so with statistics of the same images the
value is sqrt(mean_c gamma_c^2 + Var_c beta_c). `LayerResponse.deviation` says how far the measured one is from it.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from resnets.analysis.layers import Layer, watched
from resnets.analysis.passes import told
from resnets.data.batches import evaluation_batches
from resnets.engine.device import use
from resnets.engine.distributed import Distributed
from resnets.engine.recalibrate import recalibrate_batch_norm
from resnets.specs.errors import DataError, ModelError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.splits import Split

_LEAST_BATCH = 128
_PIXELS_A_BATCH = 2**20
"""Over so many pixels BatchNorm's statistics are taken at once: 1,024 images of CIFAR. The averages of small batches
are not the statistics of all images: each layer sees what the one before makes of its own batch, and in a deep net the
differences add up."""

CLOSED_FORM_TOLERANCE = 3.0
"""Percent by which a response may differ from the closed form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerResponse:
    """The response of one layer over all images."""

    layer: Layer
    ends_block: bool
    """Whether it is the last layer of its block: in a residual net, the value of the residual function."""
    mean: float
    std: float
    """Population standard deviation over images, channels and pixels."""
    closed_form: float
    """What the standard deviation is by BatchNorm's gamma and beta."""

    @property
    def deviation(self) -> float:
        """Difference from the closed form, in percent of it."""
        if self.closed_form == 0:
            return 0.0 if self.std == 0 else math.inf
        return 100 * abs(self.std - self.closed_form) / self.closed_form


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The responses of a net in a few numbers."""

    layers: int
    mean: float
    median: float
    largest: float
    mean_of_block_ends: float | None
    """Over the last layer of each block alone; None where none is among the layers."""
    largest_deviation: float
    """From the closed form, in percent; far above 3 means that BatchNorm's statistics are not those of the images."""


def measure_responses(model: nn.Module, batches: Iterable[Tensor], *, every_layer: bool = False) -> list[LayerResponse]:
    """Return the response of each 3x3 layer, in the order of the forward pass.

    One pass over the batches, in evaluation mode; the mode is restored.

    Args:
        model: a net of convolutions followed by BatchNorm.
        batches: normalised images (n, channels, height, width) on the model's device, of any number and size.
        every_layer: also layers whose kernel is not 3x3: the first one of an ImageNet net, and the 1x1 of bottlenecks,
            which end their blocks. Projections in shortcuts never count.

    Raises:
        DataError: there are no images.
        ModelError: the net has no such layers.
    """
    running: dict[Layer, _RunningMoments] = {}
    closed_forms: dict[Layer, float] = {}

    def observe(layer: Layer, norm: nn.BatchNorm2d, output: Tensor) -> None:
        running.setdefault(layer, _RunningMoments()).add(output)
        if layer not in closed_forms:
            closed_forms[layer] = closed_form(norm)

    was_training = model.training
    model.eval()
    images = 0
    try:
        with torch.no_grad(), watched(model, observe):
            for batch in batches:
                if len(batch):
                    images += len(batch)
                    model(batch)
                    for moments in running.values():
                        moments.settle()
    finally:
        model.train(was_training)
    if not images:
        raise DataError("There are no images: nothing for the layers to respond to.")
    ends = {layer.block: layer for layer in running if layer.block}
    responses = [
        LayerResponse(
            layer=layer,
            ends_block=ends.get(layer.block) == layer,
            mean=moments.mean,
            std=math.sqrt(moments.squares / moments.count),
            closed_form=closed_forms[layer],
        )
        for layer, moments in running.items()
        if every_layer or layer.kernel == 3
    ]
    if not responses:
        raise ModelError(
            f"{type(model).__name__} has no 3x3 convolution that BatchNorm follows: no responses as in Fig. 7."
        )
    return responses


def responses_on(
    stored: StoredModel,
    split: Split,
    *,
    images: int | None = None,
    recalibrate: bool = True,
    every_layer: bool = False,
    device: torch.device | str = "cpu",
    workers: int = 0,
    on_images: Callable[[int, int], None] = lambda done, of: None,
) -> list[LayerResponse]:
    """Return the responses of a stored model to the first images of a split, not augmented.

    Args:
        stored: the model; it stays as it is.
        split: images, usually those it was trained on.
        images: how many of them; None is all.
        recalibrate: first average BatchNorm's statistics over the same images, as the authors' models have it and the
            closed form supposes; False keeps the moving averages of training.
        every_layer: as for `measure_responses`.
        device: where to compute.
        workers: processes that read files.
        on_images: told how many images are done, of how many: of two passes if statistics are averaged first. It is
            told layer by layer, since a batch of a deep net takes long.

    Raises:
        UserError: `images` is below 2.
        DataError: no image can be read.
        ModelError: the net has no 3x3 convolution that BatchNorm follows.
    """
    if images is not None and images < 2:
        raise UserError(f"images is {images}; responses need 2 or more.")
    device = torch.device(device)
    use(device)
    model = copy.deepcopy(stored.model).to(device).eval()
    of = len(split) if images is None else min(images, len(split))
    most = max(_LEAST_BATCH, _PIXELS_A_BATCH // stored.preprocessor.spec.crop_px**2)
    # Each batch weighs the same in BatchNorm's statistics, so none may be much smaller than the others.
    batch_size = max(1, math.ceil(of / max(1, math.ceil(of / most))))

    def batches() -> Iterator[Tensor]:
        count = of
        every = evaluation_batches(
            split,
            stored.preprocessor,
            batch_size=batch_size,
            device=device,
            channels_last=False,
            workers=workers,
        )
        for batch in itertools.islice(every, math.ceil(count / batch_size)):
            yield batch.images[: max(0, count)]
            count -= batch_size

    with told(model, on_images, of=2 * of if recalibrate else of) as passed_on:
        if recalibrate:
            recalibrate_batch_norm(model, passed_on(batches()), "fp32", Distributed(device=device))
        return measure_responses(model, passed_on(batches()), every_layer=every_layer)


def closed_form(norm: nn.BatchNorm2d) -> float:
    """Return sqrt(mean_c gamma_c^2 + Var_c beta_c), the standard deviation of a BatchNorm's output."""
    if norm.weight is None or norm.bias is None:
        return 1.0
    # On the CPU, as Apple's GPUs have no float64.
    gamma, beta = norm.weight.detach().cpu().double(), norm.bias.detach().cpu().double()
    return math.sqrt(float((gamma**2).mean() + beta.var(correction=0)))


def sorted_by_magnitude(responses: Sequence[LayerResponse]) -> list[float]:
    """Return the standard deviations from the largest to the smallest, as in the lower half of Fig. 7."""
    return sorted((response.std for response in responses), reverse=True)


def summarize(responses: Sequence[LayerResponse]) -> Summary:
    """Return the mean, median and largest of at least one response."""
    values = [response.std for response in responses]
    ends = [response.std for response in responses if response.ends_block]
    return Summary(
        layers=len(values),
        mean=statistics.fmean(values),
        median=statistics.median(values),
        largest=max(values),
        mean_of_block_ends=statistics.fmean(ends) if ends else None,
        largest_deviation=max(response.deviation for response in responses),
    )


class _RunningMoments:
    """Mean and sum of squared differences over batches, merged pairwise (Chan, Golub and LeVeque 1979).

    Sums of squares would lose the variance where the mean is large.
    """

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self._waiting: list[tuple[int, Tensor]] = []

    def add(self, values: Tensor) -> None:
        """Note the moments of a batch; the device is not waited for."""
        variance, mean = torch.var_mean(values.float(), correction=0)
        self._waiting.append((values.numel(), torch.stack((mean, variance))))

    def settle(self) -> None:
        """Merge what was noted, in float64."""
        for count, moments in self._waiting:
            mean, variance = moments.tolist()
            total = self.count + count
            difference = mean - self.mean
            self.mean += difference * count / total
            self.squares += variance * count + difference**2 * self.count * count / total
            self.count = total
        self._waiting.clear()
