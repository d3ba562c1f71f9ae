"""What a foreign net's files say, completed by what the person says: asked for by name, never guessed."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import TYPE_CHECKING

import numpy as np

from resnets.models.interop.preprocessing import check_printable
from resnets.specs.errors import ModelError, SpecError, counted
from resnets.specs.preprocess import LARGEST_PX, Preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    from jaxtyping import Float32
    from torch import Tensor

    from resnets.models.interop.foreign import Foreign, Hints

_USUAL_MEANS = ((123.5, 116.3, 103.5), (125.3, 123.0, 113.9))
"""Means, red, green, blue, of ImageNet and of CIFAR-10, as most nets for them subtract them."""
_CLOSE = 2.5
_MOST_NAMED = 3
_IMAGENET_PX, _CIFAR_PX = (256, 224), (32, 32)


class IncompleteError(ModelError):
    """A net's files do not say everything about it."""

    def __init__(self, source: str, missing: Sequence[str]) -> None:
        """Keep `missing`: the flags of `resnets convert` that say the rest, with the values that fit."""
        super().__init__(f"{source} does not say everything about its net; give {', '.join(missing)}.")
        self.missing = tuple(missing)


def complete(foreign: Foreign, hints: Hints) -> Foreign:
    """Return the net with variant, preprocessing, class names and licence all known, for RGB images.

    Where sizes are not stated, they are those of the paper's single view (Sec. 3.4 and 4.2): a 224 x 224 crop of an
    image whose shorter side is 256, or a whole image of 32 x 32 pixels. With a mean image, the crop has its size.

    Raises:
        IncompleteError: something is not known; the message names every flag that is missing.
        ModelError: what is given contradicts the files.
        SpecError: a value that is given cannot be right.
    """
    _check_statistics(hints)
    for index, name in enumerate(hints.classes or ()):
        check_printable(name, f"The class name of output {index}")
    check_printable(hints.licence or "", "--licence")
    if foreign.format == "caffe" and hints.mean_image is not None:  # 256 x 256 pixels, of which a crop uses the centre
        from resnets.models.interop.caffe import centre

        crop = min(_IMAGENET_PX[1] if hints.crop_px is None else hints.crop_px, *hints.mean_image.shape[:2])
        hints = dataclasses.replace(hints, mean_image=centre(hints.mean_image, crop, "The mean image"))
    if foreign.preprocess is None:
        foreign = _in_rgb(foreign) if hints.color == "bgr" and foreign.format != "caffe" else foreign
    else:
        _check_agreement(foreign, hints)
    first, last = _ends(foreign.weights)
    channels, outputs = first.shape[1], last.shape[0]
    missing = list(foreign.missing)
    classes = hints.classes or foreign.classes
    if foreign.preprocess is None and hints.mean_image is None:
        values = "r,g,b" if channels == 3 else "GRAY"
        flags = [f"{name} {values}" for name, given in (("--mean", hints.mean), ("--std", hints.std)) if given is None]
        if flags:
            instead = ""
            if hints.mean is None and (foreign.mean_files or hints.std is None):
                beside = f"{_named(foreign.mean_files)}, which lies there," if foreign.mean_files else "FILE"
                instead = f"; or --mean-image {beside} in the place of {'both' if len(flags) == 2 else 'it'}"
            missing += [*flags[:-1], f"{flags[-1]} (for pixels in 0..255{instead})"]
    if classes is None:
        missing.append(f"--class-names FILE ({counted(outputs, 'name')} in the order of the outputs, one a line)")
    if missing:
        raise IncompleteError(foreign.source, missing)
    assert classes is not None
    if len(classes) != outputs:
        raise ModelError(
            f"{counted(len(classes), 'class name')} {'is' if len(classes) == 1 else 'are'} given, and {foreign.source} "
            f"has {counted(outputs, 'output')}; give one name for each."
        )
    preprocess, mean_image = foreign.preprocess, foreign.mean_image
    if preprocess is None:
        preprocess, mean_image = _preprocess(foreign, hints, channels), hints.mean_image
    return dataclasses.replace(
        foreign,
        preprocess=preprocess,
        mean_image=mean_image,
        classes=tuple(classes),
        licence=foreign.licence if hints.licence is None else hints.licence,
    )


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the class names of a file: one a line, or a JSON list.

    Raises:
        ModelError: the file cannot be read, or holds something else, or a name has a control character.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path} for --class-names.") from error
    except OSError as error:
        raise ModelError(f"The class names {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ModelError(f"The class names {path} are not UTF-8 text; save the file as UTF-8.") from error
    if _is_object(text):
        raise ModelError(
            f"The class names {path} are a JSON object; a list of names in the order of the outputs is wanted, or one "
            "name a line."
        )
    as_list = text.lstrip().startswith("[")
    if not as_list:
        names = [line.strip(" \t") for line in text.split("\n")]
        while names and not names[-1]:
            names.pop()
    else:
        try:
            names = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"The class names {path} begin as a JSON list and are none.") from error
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ModelError(f"The class names {path} are not one name a line, or a JSON list of names, without gaps.")
    for place, name in enumerate(names, start=1):
        check_printable(name, f"The class names {path}: {'name' if as_list else 'line'} {place}")
    return tuple(names)


def _is_object(text: str) -> bool:
    try:
        return text.lstrip().startswith("{") and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def read_mean_image(path: Path, color: Literal["rgb", "bgr"] | None) -> Float32[np.ndarray, "h w rgb"]:
    """Return a mean image with its channels as red, green, blue.

    Args:
        path: .npy, floats (h, w, c) or (c, h, w), in the order of `color`; .safetensors as a model folder has it, in
            the same order; or Caffe's .binaryproto, which is BGR unless `color` says otherwise.
        color: order of the channels in the file; None is the order of its format, RGB but for Caffe's.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    if path.suffix == ".binaryproto":
        from resnets.models.interop.caffe import read_mean

        image, color = read_mean(path), color or "bgr"
    elif path.suffix == ".safetensors":
        from resnets.artifacts.tensors import read_tensors

        tensor = read_tensors(path).get("mean_image")
        image = None if tensor is None else tensor.numpy()
    else:
        try:
            image = np.load(path, allow_pickle=False)
        except OSError as error:
            raise ModelError(f"The mean image {path} cannot be read: {error.strerror or error}.") from error
        except Exception as error:  # numpy has Python's own parser read the head, which fails in many ways
            raise ModelError(f"The mean image {path} is damaged, or not an array that numpy saved.") from error
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.dtype.kind not in "fu":
        raise ModelError(f"The mean image {path} is not an array of numbers (height, width, channels).")
    if image.shape[2] not in (1, 3) and image.shape[0] in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.shape[2] not in (1, 3) or image.shape[0] != image.shape[1] or not 8 <= image.shape[0] <= LARGEST_PX:
        raise ModelError(f"The mean image {path} has shape {image.shape}; it is square, with 1 or 3 channels.")
    image = np.ascontiguousarray(image[:, :, ::-1] if color == "bgr" else image, dtype=np.float32)
    if not np.isfinite(image).all():
        raise ModelError(f"The mean image {path} has values that are not finite.")
    return image


def _named(files: Sequence[str]) -> str:
    return " or ".join(map(shlex.quote, files[:_MOST_NAMED]))


def _preprocess(foreign: Foreign, hints: Hints, channels: int) -> Preprocess:
    if channels not in (1, 3):
        raise ModelError(f"{foreign.source} takes images of {channels} channels; only gray and RGB images can be had.")
    resize, crop = _CIFAR_PX if _ends(foreign.weights)[0].shape[-1] == 3 and _has_stem(foreign) else _IMAGENET_PX
    if hints.mean_image is not None:
        side = hints.mean_image.shape[0]
        resize, crop = round(side * resize / crop), side
    crop = crop if hints.crop_px is None else hints.crop_px
    resize = max(resize, crop) if hints.resize_px is None else hints.resize_px
    if not 8 <= crop <= resize <= LARGEST_PX:
        raise SpecError(f"--resize is {resize} and --crop {crop}; 8 <= crop <= resize <= {LARGEST_PX} pixels.")
    if hints.mean_image is not None and hints.mean_image.shape != (crop, crop, channels):
        raise ModelError(
            f"The mean image has shape {hints.mean_image.shape}; a net of {channels} channels with --crop {crop} needs "
            f"{(crop, crop, channels)}."
        )
    mean = hints.mean if hints.mean_image is None else (0.0,) * channels
    std = hints.std if hints.std is not None else (1.0,) * channels
    assert mean is not None
    for name, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels:
            raise SpecError(
                f"{name} has {counted(len(values), 'value')}, and {foreign.source} takes {counted(channels, 'channel')}."
            )
    return Preprocess(
        resize_px=resize,
        crop_px=crop,
        color="rgb" if channels == 3 else "gray",
        mean=mean,
        std=std,
        mean_image=hints.mean_image is not None,
    )


def _check_statistics(hints: Hints) -> None:
    """Refuse statistics in the wrong unit or channel order, which no later step could notice."""
    if hints.mean is not None and hints.mean_image is not None:
        raise SpecError("--mean and --mean-image are both given; a net subtracts one of them.")
    for name, values in (("--mean", hints.mean), ("--std", hints.std)):
        if values is not None and not np.isfinite(values).all():
            raise SpecError(f"{name} is {_written(values)}; it has finite values.")
    if hints.std is not None and min(hints.std) <= 0:
        raise SpecError(f"--std is {_written(hints.std)}; every value is above 0.")
    if hints.std is not None and max(hints.std) < 1:
        raise SpecError(_wrong_unit("--std", hints.std))
    if hints.mean is not None and any(hints.mean) and max(map(abs, hints.mean)) <= 1:
        raise SpecError(_wrong_unit("--mean", hints.mean))
    mean = hints.mean
    if hints.mean_image is not None:
        mean = tuple(float(value) for value in hints.mean_image.mean(axis=(0, 1)))
        if max(map(abs, mean)) <= 1 and any(mean):
            raise SpecError(
                f"--mean-image has values for pixels in 0..1 (mean {_written(mean)}); multiply them by 255."
            )
        image = hints.mean_image
        if not 0 <= image.min() <= image.max() <= 255:
            raise SpecError(
                f"--mean-image has values from {image.min():g} to {image.max():g}; a mean of pixels is in 0..255."
            )
    if mean is not None and not 0 <= min(mean) <= max(mean) <= 255:
        raise SpecError(
            f"{'--mean-image' if hints.mean is None else '--mean'} is {_written(mean)}; pixels are in 0..255."
        )
    for name, size in (("--resize", hints.resize_px), ("--crop", hints.crop_px)):
        if size is not None and size < 1:
            raise SpecError(f"{name} is {size}; it is at least 1 pixel.")
    if mean is None or len(mean) != 3:
        return
    for usual in _USUAL_MEANS:
        if all(abs(value - other) < _CLOSE for value, other in zip(mean, reversed(usual), strict=True)):
            given = "--mean-image" if hints.mean is None else "--mean"
            raise SpecError(
                f"{given} is {_written(mean)} in the order red, green, blue, which are the usual means backwards. "
                "Give red first (--color bgr is for a net that takes BGR images), or name the order of a mean image "
                "with --color."
            )


def _wrong_unit(name: str, values: Sequence[float]) -> str:
    scaled = _written([round(255 * value, 6) for value in values])
    return f"{name} is {_written(values)}, for pixels in 0..1; pixels are in 0..255 here: multiply by 255, {name} {scaled}."


def _check_agreement(foreign: Foreign, hints: Hints) -> None:
    stated = foreign.preprocess
    assert stated is not None
    pairs = {
        "--resize": (hints.resize_px, stated.resize_px),
        "--crop": (hints.crop_px, stated.crop_px),
        "--mean": (hints.mean, None if stated.mean_image else stated.mean),
        "--std": (hints.std, stated.std),
        "--color": (hints.color if foreign.format != "caffe" else None, stated.color),
    }
    for name, (given, own) in pairs.items():
        same = given is None or given == own
        if isinstance(given, tuple) and isinstance(own, tuple) and len(given) == len(own):
            same = np.allclose(given, own, rtol=1e-5, atol=1e-3)
        if not same:
            own = _written(own) if isinstance(own, tuple) else own
            raise ModelError(f"{name} contradicts {foreign.source}, which says {own}. Leave {name} out.")
    if hints.mean_image is not None and not np.array_equal(hints.mean_image, foreign.mean_image):  # pyright: ignore[reportArgumentType]
        raise ModelError(f"--mean-image contradicts {foreign.source}, which states its own mean. Leave it out.")


def _in_rgb(foreign: Foreign) -> Foreign:
    """Return the net for RGB images that equals one for BGR images: its first convolution takes them reversed."""
    name = "conv1.weight" if _has_stem(foreign) else "features.0.weight"
    weights = dict(foreign.weights)
    if weights[name].shape[1] != 3:
        raise ModelError(
            f"--color bgr is given, and {foreign.source} takes images of {counted(weights[name].shape[1], 'channel')}."
        )
    weights[name] = weights[name].flip(1)
    reference = foreign.reference
    reversed_ = None if reference is None else _on_reversed(reference)
    return dataclasses.replace(foreign, weights=weights, reference=reversed_)


def _on_reversed(reference: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda images: reference(images.flip(1))


def _ends(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the weights of the first convolution and of the last fully-connected layer."""
    if "conv1.weight" in weights:
        return weights["conv1.weight"], weights["fc.weight"]
    return weights["features.0.weight"], weights["classifier.6.weight"]


def _has_stem(foreign: Foreign) -> bool:
    return "conv1.weight" in foreign.weights


def _written(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
