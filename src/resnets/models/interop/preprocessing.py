"""Preprocessing between our units and those of programs that scale pixels to 0..1 and state a crop as a share."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import TYPE_CHECKING, Any

from resnets.specs.errors import ModelError, SpecError
from resnets.specs.io import shown
from resnets.specs.preprocess import LARGEST_PX, Preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Literal

_LARGEST_JSON = 16 * 2**20
_LARGEST_STD = 255.5
"""Pixels in 0..1 that are not divided have 255, from which a `rescale_factor` of few digits may depart."""
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, halves of surrogate pairs, and separators of lines and paragraphs."""
_REORDERING = set(range(0x202A, 0x202F)) | set(range(0x2066, 0x206A))
"""Code points that make a terminal show the text after them in another order."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        ModelError: the file is missing, unreasonably large, damaged, or holds something else.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ModelError(f"{path} has more than {_LARGEST_JSON:,} bytes; it does not describe a net.")
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except _RepeatedError as error:
        raise ModelError(f"{path} has {error} twice in one object; it may be there once.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON; it is damaged.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a JSON {type(values).__name__}, not an object.")
    return values


class _RepeatedError(Exception):
    """A name is in a JSON object twice, of which a reader would silently keep the last."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise _RepeatedError(shown(name))
        values[name] = value
    return values


def number(values: dict[str, Any], name: str, default: float | None, where: str) -> float:
    """Return a finite number.

    Raises:
        ModelError: it is something else, or missing without a default.
    """
    value = values.get(name, default)
    if not _is_number(value):
        raise ModelError(f"{where}: {name} is {shown(value)}; it is a number.")
    return float(value)  # pyright: ignore[reportArgumentType]


def flag(values: dict[str, Any], name: str, default: bool, where: str) -> bool:
    """Return true or false.

    Raises:
        ModelError: it is something else.
    """
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise ModelError(f"{where}: {name} is {shown(value)}; it is true or false.")
    return value


def numbers(values: dict[str, Any], name: str, count: int, where: str) -> tuple[float, ...]:
    """Return `count` finite numbers.

    Raises:
        ModelError: it is something else or missing.
    """
    value = values.get(name)
    if isinstance(value, list) and len(value) == count and all(map(_is_number, value)):
        return tuple(float(item) for item in value)
    raise ModelError(f"{where}: {name} is {shown(value)}; it is a list of {count} numbers.")


def size(value: Any, name: str, where: str) -> int:
    """Return a number of pixels.

    Raises:
        ModelError: it is no whole number from 1 to 4096.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_PX:
        raise ModelError(f"{where}: {name} is {shown(value)}; it is a whole number of pixels from 1 to {LARGEST_PX}.")
    return value


def preprocess(
    *,
    resize_px: int,
    crop_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    scale: float,
    interpolation: Literal["bilinear", "bicubic"],
    where: str,
    keys: tuple[str, str],
) -> Preprocess:
    """Return our preprocessing for one that multiplies pixels by `scale` before the mean and standard deviation.

    Statistics are rounded to ten decimals, so that 0.485 of 255 is 123.675 and not a neighbour of it.

    Args:
        resize_px: shorter side of the resized image.
        crop_px: side of the centre crop.
        mean: of scaled pixels, a value a channel.
        std: of scaled pixels, a value a channel.
        scale: what pixels in 0..255 are multiplied by.
        interpolation: filter of the resize.
        where: file, for messages.
        keys: names of the mean and of the standard deviation in that file.

    Raises:
        ModelError: the values cannot be used, or are in another unit than that of the scaled pixels.
    """
    try:
        pixel_mean = tuple(round(value / scale, 10) for value in mean)
        pixel_std = tuple(round(value / scale, 10) for value in std)
        _check_unit(pixel_mean, pixel_std, where, keys, scale)
        return Preprocess(
            resize_px=resize_px, crop_px=crop_px, mean=pixel_mean, std=pixel_std, interpolation=interpolation
        )
    except (SpecError, OverflowError, ZeroDivisionError) as error:
        raise ModelError(f"{where}: {error}") from error


def _check_unit(mean: Sequence[float], std: Sequence[float], where: str, keys: tuple[str, str], scale: float) -> None:
    unit = f"for pixels multiplied by {scale:.6g}, that is"
    if not 0 <= min(mean) <= max(mean) <= 255 or (any(mean) and max(mean) <= 1):
        raise ModelError(
            f"{where}: {keys[0]} is, {unit} for pixels in 0..255, {_joined(mean)}, which no mean of pixels is; "
            "the scaling or the mean in the file is wrong."
        )
    if not 1 <= min(std) <= max(std) <= _LARGEST_STD:
        raise ModelError(
            f"{where}: {keys[1]} is, {unit} for pixels in 0..255, {_joined(std)}; below 1 it would be less than one step "
            "of a pixel, and above 255 more than all of them, so the scaling or the standard deviation in the file is "
            "wrong."
        )


def _joined(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def unit_range(values: Sequence[float]) -> list[float]:
    """Return statistics of pixels in 0..255 as those of pixels in 0..1."""
    return [round(value / 255, 13) for value in values]


def crop_share(crop_px: int, resize_px: int) -> float:
    """Return the share of the resized side that the crop has, from which rounding down gives `resize_px` again."""
    share = crop_px / resize_px
    return share if math.floor(crop_px / share) == resize_px else crop_px / (resize_px + 0.5)


def class_names(value: Any, where: str) -> tuple[str, ...]:
    """Return a list of names.

    Raises:
        ModelError: it is something else.
    """
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise ModelError(f"{where} does not name the classes as a list of strings.")
    for index, name in enumerate(value):
        check_printable(name, f"{where}[{index}]")
    return tuple(value)


def check_printable(text: str, where: str) -> None:
    """Refuse text that would do something to a terminal other than appear in it.

    Raises:
        ModelError: it has a control character; the message names the place and the character, and does not show it.
    """
    for place, character in enumerate(text, start=1):
        if unicodedata.category(character) in _UNPRINTABLE or ord(character) in _REORDERING:
            raise ModelError(
                f"{where} has the control character U+{ord(character):04X} as character {place}; remove it."
            )


def stated_licence(folder: Path) -> str:
    """Return the licence that the head of a model card (README.md) states, or an empty string.

    Raises:
        ModelError: it has a control character.
    """
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            text = file.read(65536)
    except (OSError, ValueError):
        return ""
    if not text.startswith("---"):
        return ""
    for line in text.split("---", 2)[1].split("\n"):
        if line.startswith("license:"):
            licence = line.removeprefix("license:").strip().strip("'\"")
            check_printable(licence, f"{folder / 'README.md'}: license")
            return licence
    return ""


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False
