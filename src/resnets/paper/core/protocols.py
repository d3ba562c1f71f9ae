"""Exact checks of the test modes of Tables 2 to 5: what our tests see of an image, and how they average the scores.

They run our own code on images of a temporary folder, with a net so simple that its scores are redone by hand: its
logits are the mean colours of a window of 7 x 7 blocks of 32 pixels, as a net of the paper ends with 7 x 7 pixels of
which each is of 32. What is done by hand, `scores_by_hand`, serves for other nets and forms of the tests too.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resnets.engine.threads import threads
from resnets.paper.core.experiment import Computed, Row, Unavailable
from resnets.paper.core.verdict import Within
from resnets.specs.protocol import Center, Dense, TenCrop

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

    from resnets.data.splits import Split
    from resnets.specs.protocol import ProtocolSpec

WIDTH, HEIGHT = 341, 256
CROP_PX, BLOCK_PX = 224, 32
VIEWS = 10
"""Of an image, under ten-crop testing and in dense testing at five scales."""
PLACES = ((0, 0), (117, 0), (0, 32), (117, 32), (58, 16))
"""Left and top of the crops of an image of this size: four corners and the centre."""
SCALES_PX = (224, 256, 384, 480, 640)
"""Shorter sides of dense testing (Sec. 3.4)."""
MEAN, STD = (120.0, 110.0, 90.0), 20.0
MEMBERS = 6
"""Nets of the ensemble of Table 5."""

_SAME = Within(tolerance=1e-5, why="float32; an average of logits, or of other places, is further off")


class Seen(NamedTuple):
    """What a test of an image came to."""

    views: int
    """Different inputs that the net has seen of an image: of the one whose count is furthest from the paper's ten."""
    shorter_sides: frozenset[int]
    """Of these inputs, in pixels."""
    difference: float
    """Largest difference of a score from that by hand."""


@functools.cache
def seen_under(protocol: TenCrop | Dense) -> Seen:
    """Test two images of 341 x 256 pixels under a protocol, as `resnets evaluate` does."""
    import numpy as np
    from PIL import Image

    from resnets.data.open import open_test_folder

    random = np.random.default_rng(0)
    # A dark and a bright one: an input tells by its mean of which image it is.
    images = [
        Image.fromarray(random.integers(least, least + 128, (8, 11, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
        for least in (0, 128)
    ]
    inputs: tuple[dict[bytes, int], ...] = ({}, {})
    try:
        with tempfile.TemporaryDirectory() as folder, threads(1):
            for number, image in enumerate(images):
                path = Path(folder) / f"class {number}" / "image.png"
                path.parent.mkdir()
                image.save(path)
            scores = _our_scores(protocol, open_test_folder(Path(folder)).splits["test"], inputs)
    except OSError as error:
        raise Unavailable(f"needs a folder for temporary files: {error.strerror or error}") from error
    # The paper's form, whatever is tested.
    if isinstance(protocol, TenCrop):
        papers = TenCrop(corners="image")
    else:
        papers = Dense(scales_px=SCALES_PX, form=protocol.form, flips=True)
    by_hand = np.stack([scores_by_hand(image, papers, MEAN_COLOURS) for image in images])
    return Seen(
        views=max(map(len, inputs), key=lambda count: abs(count - VIEWS)),
        shorter_sides=frozenset(side for seen in inputs for side in seen.values()),
        difference=float(np.abs(scores - by_hand).max()),
    )


def _our_scores(protocol: TenCrop | Dense, split: Split, inputs: tuple[dict[bytes, int], ...]) -> np.ndarray:
    """Return the scores of each image, and keep the shorter side of each input that the net has seen of it."""
    import numpy as np
    import torch

    from resnets.data.preprocess import Preprocessor
    from resnets.engine.distributed import Distributed
    from resnets.specs.preprocess import Preprocess
    from resnets.tasks.classify.score import scored_batches

    spec = Preprocess(resize_px=HEIGHT, crop_px=CROP_PX, mean=MEAN, std=(STD, STD, STD))
    ranks = Distributed(device=torch.device("cpu"))
    scores = np.empty((len(split), 3))
    for batch in scored_batches(_mean_colours(inputs), split, Preprocessor(spec), protocol, ranks=ranks):
        scores[batch.indices] = batch.logits.double().softmax(1).numpy()
    return scores


def _mean_colours(inputs: tuple[dict[bytes, int], ...]) -> nn.Module:
    """Return the net, which notes its inputs: those of the dark image first, then those of the bright one."""
    import hashlib

    import torch
    from torch.nn.functional import avg_pool2d

    class MeanColours(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return self.score_map(images, None)[:, :, 0, 0]

        def score_map(self, images: Tensor, window: int | None) -> Tensor:
            for image in images:
                if image.any():  # an empty one is to find out how large the last map is
                    bright = float((image * STD).mean()) + sum(MEAN) / 3 > 127.5
                    inputs[bright][hashlib.sha256(image.contiguous().numpy().tobytes()).digest()] = min(image.shape[1:])
            blocks = avg_pool2d(images, BLOCK_PX)
            return blocks.mean(dim=(2, 3), keepdim=True) if window is None else avg_pool2d(blocks, window, stride=1)

    return MeanColours().eval()


class NetByHand(NamedTuple):
    """A net in float64 that sees one view at a time."""

    resize_px: int
    """Shorter side of an image, before crops are cut from it."""
    crop_px: int
    """Side of a crop."""
    stride_px: int
    """Pixels of the input for one of the last map."""
    last_map: Callable[[np.ndarray], np.ndarray]
    """Takes pixels (height, width, 3), uint8, and returns the last map (rows, columns, channels)."""
    logits: Callable[[np.ndarray], np.ndarray]
    """Takes the mean of a window of the last map and returns the logits."""


def _mean_blocks(pixels: np.ndarray) -> np.ndarray:
    height, width = (side // BLOCK_PX for side in pixels.shape[:2])
    pixels = pixels[: height * BLOCK_PX, : width * BLOCK_PX].astype(float)
    return ((pixels - MEAN) / STD).reshape(height, BLOCK_PX, width, BLOCK_PX, 3).mean(axis=(1, 3))


MEAN_COLOURS = NetByHand(
    resize_px=HEIGHT, crop_px=CROP_PX, stride_px=BLOCK_PX, last_map=_mean_blocks, logits=lambda mean: mean
)
"""The net of these checks."""


def scores_by_hand(
    image: Image.Image, protocol: ProtocolSpec, net: NetByHand, *, of_logits: bool = False
) -> np.ndarray:
    """Return the averaged softmax scores of an image in float64, view by view and window by window.

    Nothing of the code that it is to check is used.

    Args:
        image: RGB.
        protocol: which views.
        net: gives the logits of a window.
        of_logits: average the logits instead, which is another test.
    """
    import numpy as np

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()

    def score(pixels: np.ndarray) -> np.ndarray:
        last = net.last_map(pixels)
        height, width, _ = last.shape
        windowed = isinstance(protocol, Dense) and protocol.form == "window"
        down, across = (net.crop_px // net.stride_px,) * 2 if windowed else (height, width)
        logits = [
            net.logits(last[y : y + down, x : x + across].mean(axis=(0, 1)))
            for y in range(height - down + 1)
            for x in range(width - across + 1)
        ]
        return np.mean(logits if of_logits else [softmax(one) for one in logits], axis=0)

    mean = np.mean([score(pixels) for pixels in _views_by_hand(image, protocol, net)], axis=0)
    return softmax(mean) if of_logits else mean


def _views_by_hand(image: Image.Image, protocol: ProtocolSpec, net: NetByHand) -> list[np.ndarray]:
    """Return the pixels (height, width, 3) of each view of an image."""
    import numpy as np
    from PIL import Image as Pillow

    def resized(side: int) -> np.ndarray:
        width, height = image.size
        size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
        return np.asarray(image.resize(size, Pillow.Resampling.BILINEAR))

    if isinstance(protocol, Dense):
        # Sizes are those for a crop of 224.
        views = [resized(round(scale * net.crop_px / 224)) for scale in protocol.scales_px]
        return views + [view[:, ::-1] for view in views] if protocol.flips else views
    pixels, crop = resized(net.resize_px), net.crop_px
    height, width, _ = pixels.shape
    places = [(round((width - crop) / 2), round((height - crop) / 2))]
    if not isinstance(protocol, Center):
        left, top, right, bottom = 0, 0, width, height
        if protocol.corners == "square":
            square = min(width, height)
            left, top = round((width - square) / 2), round((height - square) / 2)
            right, bottom = left + square, top + square
        places += [(x, y) for x in (left, right - crop) for y in (top, bottom - crop)]
    crops = [pixels[y : y + crop, x : x + crop] for x, y in places]
    return crops if isinstance(protocol, Center) else crops + [one[:, ::-1] for one in crops]


def crops_elsewhere() -> int:
    """Return how many of the five crops of an image of 341 x 256 pixels are not at its corners and its centre."""
    from resnets.data.views import five_crops

    return len(set(PLACES) ^ set(five_crops(WIDTH, HEIGHT, CROP_PX, TenCrop().corners)))


def other_scales() -> int:
    """Return how many sizes dense testing has that are not the paper's, or lacks."""
    return len(set(SCALES_PX) ^ seen_under(Dense()).shorter_sides)


@functools.cache
def ensemble_difference() -> float:
    """Return the largest difference of the scores of six nets together from the mean of their softmax by hand.

    Their logits are random numbers; every second net has its classes in the opposite order.
    """
    import numpy as np
    import torch

    from resnets.artifacts.model_folder import StoredModel
    from resnets.data.preprocess import Preprocessor
    from resnets.data.splits import ResidentSplit
    from resnets.engine.distributed import Distributed
    from resnets.specs.catalogue import model_spec
    from resnets.specs.preprocess import Preprocess
    from resnets.specs.protocol import Center
    from resnets.tasks.classify.ensemble import Member, evaluate_ensemble, shares

    class Given(torch.nn.Module):
        """Has logits for each image, which is known by its pixels."""

        def __init__(self, logits: Tensor) -> None:
            super().__init__()
            self.logits = logits

        def forward(self, images: Tensor) -> Tensor:
            return self.logits[images[:, 0, 0, 0].round().long()]

    images, classes = 16, ("a", "b", "c", "d")
    logits = 2 * torch.randn(MEMBERS, images, len(classes), generator=torch.Generator().manual_seed(0))
    pixels = np.broadcast_to(np.arange(images, dtype=np.uint8)[:, None, None, None], (images, 8, 8, 3)).copy()
    split = ResidentSplit(images=pixels, labels=np.arange(images) % len(classes))
    members = [
        Member(
            name=f"net {number}",
            stored=StoredModel(
                model=Given(own),
                spec=model_spec("cifar-resnet8", num_classes=len(classes)),
                preprocessor=Preprocessor(Preprocess(resize_px=8, crop_px=8)),
                classes=classes[:: 1 - 2 * (number % 2)],
                metrics={},
            ),
            module=Given(own),
            share=share,
        )
        for number, (own, share) in enumerate(zip(logits, shares(None, MEMBERS), strict=True))
    ]
    _, scores = evaluate_ensemble(members, split, Center(), ranks=Distributed(device=torch.device("cpu")))
    powers = np.exp(logits.double().numpy())
    each = powers / powers.sum(axis=2, keepdims=True)
    by_hand = np.mean([one[:, :: 1 - 2 * (number % 2)] for number, one in enumerate(each)], axis=0)
    return float(np.abs(scores.log_probabilities.double().exp().numpy() - by_hand).max())


def ten_crop_rows() -> tuple[Row, ...]:
    """Return the rows about ten-crop testing, for the tables whose errors are under it."""
    run, source = "our ten-crop test, 341 x 256 pixels", "Sec. 3.4"
    return (
        _counted(
            run,
            "views of an image",
            lambda: seen_under(TenCrop()).views,
            10,
            source,
            why="four corners and the centre, and all five mirrored",
        ),
        _counted(
            run,
            "crops elsewhere than in the corners and the centre",
            crops_elsewhere,
            0,
            source,
            why="places are exact",
        ),
        _averaged(run, lambda: seen_under(TenCrop()).difference, source),
    )


def dense_rows() -> tuple[Row, ...]:
    """Return the rows about dense testing at five scales."""
    run, source = "our dense test, 341 x 256 pixels", "Sec. 3.4"
    return (
        _counted(
            run,
            "views of an image",
            lambda: seen_under(Dense()).views,
            10,
            source,
            why="five scales, each mirrored too",
        ),
        _counted(
            run, "shorter sides other than 224, 256, 384, 480 and 640", other_scales, 0, source, why="sizes are exact"
        ),
        _averaged(run, lambda: seen_under(Dense()).difference, source),
        _averaged("the same, --dense-form global", lambda: seen_under(Dense(form="global")).difference, source),
    )


def ensemble_rows() -> tuple[Row, ...]:
    """Return the row about the mean of the scores of several nets."""
    return (_averaged("our ensemble of six, random logits", ensemble_difference, "Sec. 4.1"),)


def _counted(run: str, meaning: str, value: Callable[[], int], paper: int, source: str, *, why: str) -> Row:
    return Row(
        run=run,
        meaning=meaning,
        ours=Computed(value=value, slow=True),
        rule=Within(tolerance=0, why=why),
        paper=paper,
        source=source,
        decimals=0,
    )


def _averaged(run: str, value: Callable[[], float], source: str) -> Row:
    return Row(
        run=run,
        meaning="largest difference from softmax scores averaged by hand",
        ours=Computed(value=value, slow=True),
        rule=_SAME,
        paper=0,
        source=source,
        decimals=7,
    )
