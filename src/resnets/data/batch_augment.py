"""What is done to a normalised training batch before the model sees it: random erasing, then Mixup or CutMix."""

import numpy as np
from jaxtyping import Int64

from resnets.data.erase import ERASE_DRAWS, erase_, rectangles
from resnets.data.mix import MIX_DRAWS, mixed
from resnets.data.order import ERASE_STREAM, MIX_STREAM, TrainingStream
from resnets.data.splits import Batch
from resnets.specs.data import Mix


class BatchAugment:
    """Erases and mixes images, with random numbers that follow from their positions in the training stream."""

    def __init__(self, stream: TrainingStream, erase_probability: float, mix: Mix) -> None:
        """Keep what is needed."""
        self._stream = stream
        self._erase_probability = erase_probability
        self._mix = mix

    def __call__(
        self, batch: Batch, positions: Int64[np.ndarray, " of_pass"], places: Int64[np.ndarray, " n"] | None = None
    ) -> Batch:
        """Return the batch as it is trained on; its images may be overwritten.

        Args:
            batch: the images of a pass that could be read.
            positions: where the images of the pass are in the training stream.
            places: which of them the batch has; None is all.
        """
        if self._erase_probability and len(batch):
            of_batch = positions if places is None else positions[places]
            draws = self._stream.uniforms(of_batch, ERASE_DRAWS, ERASE_STREAM)
            height, width = batch.images.shape[2:]
            erase_(batch.images, rectangles(self._erase_probability, height, width, draws))
        if self._mix.mixup_alpha or self._mix.cutmix_alpha:
            return mixed(batch, self._mix, self._stream.uniforms(positions[:1], MIX_DRAWS, MIX_STREAM)[0])
        return batch
