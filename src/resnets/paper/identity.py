"""Sec. 1: a deeper net can always do what a shallower one does, by identity layers: the solution by construction."""

from __future__ import annotations

import functools

from resnets.engine.threads import threads
from resnets.paper.core.experiment import Computed, Experiment, Row
from resnets.paper.core.verdict import Within
from resnets.specs.catalogue import model_spec

NETS = {
    "plain-20 to plain-56": ("cifar-plain20", 6),
    "ResNet-20 to ResNet-56, option A": ("cifar-resnet20", 6),
    "ResNet-20 to ResNet-56, option B": ("cifar-resnet20-b", 6),
    "ResNet-20 to ResNet-56, option C": ("cifar-resnet20-c", 6),
    "highway-20 to highway-56": ("cifar-highway20", 6),
    "ResNet-50 with 4 more bottlenecks": ("resnet50", 1),
}
"""The catalogue's name of the shallow net, and the blocks that each of its stages gets."""


@functools.cache
def largest_difference(name: str, extra: int) -> float:
    """Return the largest difference between the logits of a net and of the deeper one, over random images.

    The net's BatchNorm has seen some batches, so that its statistics are not those of a fresh net.
    """
    import torch

    from resnets.analysis.identity import insert_identity_blocks
    from resnets.models.build import build

    side = 32 if name.startswith("cifar-") else 64
    shallow = build(model_spec(name, num_classes=10), seed=0).train()
    generator = torch.Generator().manual_seed(0)
    with threads(1), torch.no_grad():
        for _ in range(2):
            shallow(torch.randn(8, 3, side, side, generator=generator))
        shallow.eval()
        deeper = insert_identity_blocks(shallow, extra)
        images = torch.randn(4, 3, side, side, generator=generator)
        return (shallow(images) - deeper(images)).abs().max().item()


EXPERIMENT = Experiment(
    title="Sec. 1. The solution by construction",
    claim=(
        "A deeper net made of a shallower one and identity layers has the same training error; so a deep plain net that "
        "trains worse has not been solved, rather than being unable."
    ),
    rows=tuple(
        Row(
            run=run,
            meaning="largest difference of the logits",
            ours=Computed(value=lambda name=name, extra=extra: largest_difference(name, extra)),
            rule=Within(tolerance=1e-6, why="an identity changes nothing"),
            paper=0,
            source="Sec. 1",
            decimals=7,
        )
        for run, (name, extra) in NETS.items()
    ),
    notes=("Tested as for prediction, with BatchNorm's running statistics.",),
)
