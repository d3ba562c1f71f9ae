"""Figure 7: standard deviations of layer responses of plain and residual nets on CIFAR-10 (Sec. 4.2).

The response of a layer is the output of its 3x3 convolution after BatchNorm, before the ReLU or the addition. They
are measured on un-augmented training images with BatchNorm's statistics averaged anew over the same images, one
population standard deviation a layer over images, channels and pixels.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from resnets.paper.core.cifar import CPU_SETTING, GPU_DEEP_STEPS, GPU_STEPS, full, on_cpu, on_gpu
from resnets.paper.core.experiment import Computed, Experiment, FromRuns, Picture, Row, Unavailable
from resnets.paper.core.images import counting_images, training_images
from resnets.paper.core.verdict import AtMost, Below, Report, Within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from resnets.analysis.responses import LayerResponse
    from resnets.artifacts.found_runs import FoundRun
    from resnets.paper.core.experiment import Budget, PlannedRun
    from resnets.paper.core.verdict import Rule

IMAGES = 1_000
"""Training images that responses are measured on; five times as many change the mean of ResNet-20 by 0.1 %."""

NETS = ("plain20", "plain56", "resnet20", "resnet56", "resnet110")
FULL = {name: full(name) for name in NETS}
GPU = {name: on_gpu(name) for name in NETS[:4]}
GPU_DEEP = {name: on_gpu(name, steps=GPU_DEEP_STEPS) for name in ("resnet20", "resnet56", "resnet110")}
CPU = {name: on_cpu(name) for name in NETS[:4]}

MEAN = "mean standard deviation of responses"
MEDIAN = "median standard deviation of responses"
DEVIATION = "largest difference from the closed form, %"

_SMALLER = Below(limit=0, why="residual nets have smaller responses than plain ones of the same depth")
_SMALLER_CPU = AtMost(
    limit=-0.01,
    why="shortcuts make responses smaller; three seeds gave -0.30 to -0.08 at 56 layers, -0.06 to -0.05 at 20",
)
_FALLING = Below(limit=0, why="the deeper a residual net, the smaller its responses")
_SELF_CHECK = AtMost(limit=3, why="with statistics of the same images both are the same number but for the batches")


def responses(run: FoundRun) -> tuple[LayerResponse, ...]:
    """Return the responses of a finished run's net to training images.

    Raises:
        Unavailable: its weights or the images are not here.
        ModelError: the weights are damaged.
    """
    if not run.has_weights:
        raise Unavailable("the finished run was kept without its weights")
    from resnets.artifacts.run_directory import RunDirectory

    weights = RunDirectory(run.path).model / "model.safetensors"
    try:
        written = weights.stat().st_mtime_ns
    except OSError as error:
        raise Unavailable(f"{weights} cannot be read: {error.strerror or error}") from error
    return _measured(run, written)


_kept: dict[tuple[Path, int], tuple[LayerResponse, ...]] = {}


def _measured(run: FoundRun, written: int) -> tuple[LayerResponse, ...]:
    """Measure once in a process: several rows and a picture show the same responses."""
    if (run.path, written) not in _kept:
        from resnets.analysis.responses import responses_on
        from resnets.artifacts.model_folder import load_model
        from resnets.artifacts.run_directory import RunDirectory

        stored = load_model(RunDirectory(run.path).model)
        with counting_images(f"Responses of {stored.name}, two passes") as on_images:
            found = responses_on(stored, training_images(run), images=IMAGES, on_images=on_images)
        _kept[run.path, written] = tuple(found)
    return _kept[run.path, written]


def mean_response(run: FoundRun) -> float:
    """Return the mean of a net's responses over its 3x3 layers."""
    from resnets.analysis.responses import summarize

    return summarize(responses(run)).mean


def median_response(run: FoundRun) -> float:
    """Return the median of a net's responses over its 3x3 layers."""
    from resnets.analysis.responses import summarize

    return summarize(responses(run)).median


def largest_deviation(run: FoundRun) -> float:
    """Return the largest difference of a net's responses from the closed form, in percent."""
    from resnets.analysis.responses import summarize

    return summarize(responses(run)).largest_deviation


def mean_difference(first: FoundRun, second: FoundRun) -> float:
    """Return the mean response of the first net minus that of the second."""
    return mean_response(first) - mean_response(second)


@functools.cache
def digits_responses(name: str, *, like_trained: bool) -> tuple[LayerResponse, ...]:
    """Return the responses of a net to embedded digits: a new one, or one with the gammas and betas of a trained one."""
    import torch
    from torch import nn

    from resnets.analysis.responses import responses_on
    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.open import open_dataset
    from resnets.data.preprocess import preprocess_for
    from resnets.models.build import build
    from resnets.specs.catalogue import model_spec
    from resnets.specs.data import Digits

    dataset = open_dataset(Digits())
    spec = model_spec(name, num_classes=10, in_channels=1)
    model = build(spec, seed=0).eval()
    if like_trained:
        generator = torch.Generator().manual_seed(0)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, 0.1, 1.5, generator=generator)
                nn.init.normal_(norm.bias, 0, 0.5, generator=generator)
    stored = StoredModel(
        model=model,
        spec=spec,
        preprocessor=preprocess_for(Digits(), dataset.splits["train"]),
        classes=dataset.classes,
        metrics={},
    )
    return tuple(responses_on(stored, dataset.splits["train"], images=512))


def _deviation_on_digits(name: str) -> float:
    from resnets.analysis.responses import summarize

    return summarize(digits_responses(name, like_trained=True)).largest_deviation


def _off_one(name: str) -> float:
    return max(abs(one.std - 1) for one in digits_responses(name, like_trained=False))


def draw(runs: Mapping[str, FoundRun], path: Path, title: str) -> None:
    """Draw both halves of Fig. 7 from the runs whose weights are there.

    Raises:
        Unavailable: no run has weights, or the images are not here.
    """
    from resnets.report.layer_curves import LayerValues, draw_layer_values

    nets = [
        LayerValues(
            label=name,
            values=tuple(one.std for one in responses(run)),
            group=name.rpartition("-")[2],
            dashed=name.startswith("plain"),
        )
        for name, run in runs.items()
        if run.has_weights
    ]
    if not nets:
        raise Unavailable("its runs were kept without their weights")
    draw_layer_values(nets, path, title=title)


def _of_each(
    plans: Mapping[str, PlannedRun], meaning: str, read: Callable[[FoundRun], float], rule: Rule, budget: Budget
) -> list[Row]:
    return [
        Row(
            run=plan.name,
            meaning=meaning,
            ours=FromRuns(runs=(plan,), read=read, needs_weights=True),
            rule=rule,
            source="Fig. 7",
            budget=budget,
        )
        for plan in plans.values()
    ]


def _compared(plans: Mapping[str, PlannedRun], first: str, second: str, rule: Rule, budget: Budget) -> Row:
    return Row(
        run=f"{plans[first].name} - {plans[second].name}",
        meaning=f"{MEAN}, difference",
        ours=FromRuns(runs=(plans[first], plans[second]), read=mean_difference, needs_weights=True),
        rule=rule,
        source="Fig. 7",
        budget=budget,
        decimals=3,
    )


_DRAWN = Report(why="the paper draws the curve and prints no value")
_SMALL = Report(why="in small; the paper draws the full runs")

EXPERIMENT = Experiment(
    title="Figure 7. Standard deviations of layer responses on CIFAR-10",
    claim=(
        "Residual nets have generally smaller responses than plain ones, so residual functions are closer to zero; and "
        "the deeper the residual net, the less each layer changes the signal."
    ),
    rows=(
        *(
            Row(
                run=f"{name} on digits, random gamma, beta",
                meaning=DEVIATION,
                ours=Computed(value=lambda net=net: _deviation_on_digits(net), slow=True),
                rule=_SELF_CHECK,
                source="not printed",
            )
            for name, net in (("plain-20", "cifar-plain20"), ("ResNet-20", "cifar-resnet20"))
        ),
        Row(
            run="ResNet-20 on digits, not trained",
            meaning="largest difference of a response from 1",
            ours=Computed(value=lambda: _off_one("cifar-resnet20"), slow=True),
            rule=Within(tolerance=0.02, why="gamma is 1 and beta 0: the figure means something for trained nets only"),
            paper=0,
            source="not printed",
            decimals=3,
        ),
        *_of_each(FULL, MEAN, mean_response, _DRAWN, "full"),
        _compared(FULL, "resnet20", "plain20", _SMALLER, "full"),
        _compared(FULL, "resnet56", "plain56", _SMALLER, "full"),
        _compared(FULL, "resnet56", "resnet20", _FALLING, "full"),
        _compared(FULL, "resnet110", "resnet56", _FALLING, "full"),
        *_of_each(FULL, MEDIAN, median_response, _DRAWN, "full"),
        *_of_each(FULL, DEVIATION, largest_deviation, _SELF_CHECK, "full"),
        *_of_each(GPU, MEAN, mean_response, _SMALL, "gpu"),
        *_of_each(GPU, MEDIAN, median_response, _SMALL, "gpu"),
        _compared(GPU, "resnet20", "plain20", _SMALLER, "gpu"),
        _compared(GPU, "resnet56", "plain56", _SMALLER, "gpu"),
        _compared(GPU_DEEP, "resnet56", "resnet20", _FALLING, "gpu"),
        _compared(GPU_DEEP, "resnet110", "resnet56", _FALLING, "gpu"),
        *_of_each(CPU, MEAN, mean_response, _SMALL, "cpu"),
        _compared(CPU, "resnet56", "plain56", _SMALLER_CPU, "cpu"),
        _compared(CPU, "resnet20", "plain20", _SMALLER_CPU, "cpu"),
        _compared(CPU, "resnet56", "resnet20", Report(why="does not show in so few iterations"), "cpu"),
        *_of_each(CPU, DEVIATION, largest_deviation, _SELF_CHECK, "cpu"),
    ),
    pictures=(
        Picture(
            name="figure7",
            title="Fig. 7. Responses of layers, CIFAR-10",
            runs=tuple(FULL.values()),
            budget="full",
            draw=draw,
        ),
        Picture(
            name="figure7-gpu",
            title=f"Fig. 7 after {GPU_STEPS:,} iterations. Responses of layers, CIFAR-10",
            runs=tuple(GPU.values()),
            budget="gpu",
            draw=draw,
        ),
        Picture(
            name="figure7-cpu",
            title="Fig. 7 in small. Responses of layers, CIFAR-10",
            runs=tuple(CPU.values()),
            budget="cpu",
            draw=draw,
        ),
    ),
    cost={
        "cpu": "4 nets, those of `degradation`; about 4 minutes on two cores",
        "gpu": f"4 nets of {GPU_STEPS:,} iterations and 3 of {GPU_DEEP_STEPS:,}: tens of minutes on one GPU",
        "full": "64,000 iterations of 5 nets: those of figures 1 and 6",
    },
    notes=(
        f"Measured on {IMAGES:,} training images, not augmented, with BatchNorm's statistics averaged anew over them; the "
        "paper does not say on which. A new net has a response of 1 everywhere.",
        "The closed form is sqrt(mean gamma^2 + variance of beta) over the channels of a layer's BatchNorm.",
        f"Budget cpu: {CPU_SETTING}.",
    ),
)
