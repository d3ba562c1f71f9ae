"""Small photographs for the studies."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder with two classes of three smooth JPEG photographs of 160 x 120 pixels."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (root / label).mkdir()
        for number in range(3):
            coarse = generator.integers(0, 256, (6, 8, 3), np.uint8)
            image = Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)
            image.save(root / label / f"{number}.jpg", quality=95)
    return root
