"""Mean images in Caffe's form, mean.binaryproto."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnets.models.interop.caffe.layers import read_blob
from resnets.models.interop.caffe.protobuf import FormatError
from resnets.models.interop.caffe.schema import BLOB, decode, encode
from resnets.specs.errors import ModelError

if TYPE_CHECKING:
    from jaxtyping import Float32

_MAX_BYTES = 1 << 28
_BRIGHTEST = 255.0


def read_mean(path: Path) -> Float32[np.ndarray, "h w 3"]:
    """Return the mean image of a .binaryproto, in BGR and 0..255 as it is stored there.

    Raises:
        ModelError: the file is missing or damaged, or is no image of three channels in 0..255.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FormatError(f"it has {path.stat().st_size:,} bytes, and a mean image at most {_MAX_BYTES:,}")
        blob = read_blob(decode(memoryview(path.read_bytes()), BLOB))
    except (OSError, FormatError) as error:
        raise ModelError(f"{path} is no mean image of Caffe: {error}.") from error
    if blob.ndim not in (3, 4) or blob.shape[-3] != 3 or blob.size != 3 * blob.shape[-2] * blob.shape[-1]:
        raise ModelError(f"{path} is no mean image of Caffe: its shape is {blob.shape}, and not (1, 3, height, width).")
    with np.errstate(over="ignore"):
        image = np.array(blob.reshape(blob.shape[-3:]).transpose(1, 2, 0), np.float32, order="C")
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= _BRIGHTEST):
        raise ModelError(f"{path} has values outside 0..255, so it is no mean of pixels.")
    return image


def write_mean(path: Path, image: Float32[np.ndarray, "h w 3"]) -> None:
    """Write a mean image in RGB as a .binaryproto, (1, 3, height, width) in BGR.

    Raises:
        OSError: the file cannot be written.
    """
    planes = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
    sides = {"num": 1, "channels": 3, "height": image.shape[0], "width": image.shape[1]}
    values = {**{name: [side] for name, side in sides.items()}, "data": [planes]}
    path.write_bytes(b"".join(encode(values, BLOB)))


def centre(image: Float32[np.ndarray, "h w c"], crop_px: int, source: str) -> Float32[np.ndarray, "crop crop c"]:
    """Return the centre of a mean image, which Caffe subtracts from a centre crop: of 256 x 256 pixels, 224 x 224.

    Raises:
        ModelError: the image is smaller than the crop.
    """
    height, width = image.shape[:2]
    if min(height, width) < crop_px:
        raise ModelError(f"{source} is {height} x {width} pixels, smaller than the crop of {crop_px} x {crop_px}.")
    top, left = (height - crop_px) // 2, (width - crop_px) // 2
    return np.ascontiguousarray(image[top : top + crop_px, left : left + crop_px])
