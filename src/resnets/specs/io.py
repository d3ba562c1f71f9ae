"""Specs to JSON and back: every value tagged with its kind, unknown fields refused, a hash of what counts."""

# pyright: standard
# Not strict: what comes out of JSON has no static type until it is checked here.

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import sys
import types
import typing
from typing import Any, Literal, TypeVar, overload

from resnets.specs.errors import SpecError, near_misses

T = TypeVar("T")


def to_json(spec: Any) -> dict[str, Any]:
    """Return a spec as plain JSON values; each spec carries its class name as "kind"."""
    encoded = _encode(spec)
    assert isinstance(encoded, dict)
    return encoded


@overload
def from_json(kind: type[T], value: Any, path: str = "") -> T: ...
@overload
def from_json(kind: object, value: Any, path: str = "") -> Any: ...
def from_json(kind: Any, value: Any, path: str = "") -> Any:
    """Return the spec of type `kind`, a spec class or a union of some, that `value` holds.

    Raises:
        SpecError: a field is unknown, missing or of another type; the message names its path.
    """
    return _decode(kind, value, path or getattr(kind, "__name__", "spec"))


def spec_hash(spec: Any) -> str:
    """Return 12 hexadecimal digits that are equal exactly when two specs describe the same run.

    The label `recipe` is no part of a run's identity.
    """
    value = to_json(spec)
    value.pop("recipe", None)
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return one line for each field in which two values of `to_json` differ, as `path: ours -> theirs`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        lines = []
        for name in sorted({*ours, *theirs}):
            inner = f"{path}.{name}" if path else name
            lines += differences(ours.get(name), theirs.get(name), inner)
        return lines
    return [] if ours == theirs else [f"{path}: {json.dumps(ours)} -> {json.dumps(theirs)}"]


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        inside = kind.__module__.startswith("resnets.")
        tag = kind.__name__ if inside else f"{kind.__module__}:{kind.__qualname__}"
        return {"kind": tag} | {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


def _decode(kind: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _decode_union(typing.get_args(kind), value, path)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, path)
    if origin is Literal:
        if value not in typing.get_args(kind) or isinstance(value, bool):
            raise SpecError(f"{path} is {shown(value)}; it is one of {', '.join(map(repr, typing.get_args(kind)))}.")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise SpecError(f"{path} is {shown(value)}; it is a list.")
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, entry, f"{path}[{index}]") for index, entry in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return _float(value, path)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SpecError(f"{path} is {shown(value)}; it is of type {kind.__name__}.")
    return value


def _float(value: int, path: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise SpecError(f"{path} is {shown(value)}; no float is as large.") from None


def _decode_union(members: tuple[Any, ...], value: Any, path: str) -> Any:
    tag = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(tag, str):
        raise SpecError(f'{path} is {shown(value)}; it is an object with a "kind".')
    kinds = [member.__name__ for member in members]
    if ":" in tag:
        return _decode_dataclass(_outside(tag, path, kinds), value, path)
    for member in members:
        if member.__name__ == tag:
            return _decode_dataclass(member, value, path)
    raise SpecError(f"{path} is of kind {shown(tag)}; it is one of {', '.join(kinds)}.{near_misses(tag, kinds)}")


def _outside(tag: str, path: str, kinds: list[str]) -> type:
    """Return the class of a net that `tag` names as module:class, in a module that is not ours.

    Raises:
        SpecError: it is not loaded, one of ours, or no net.
    """
    # A file never makes us import code: a spec class of the user's own must have been imported by the user.
    module, _, name = tag.partition(":")
    # Nor does looking a name up in a module's own dictionary, which asks no `__getattr__` that imports when needed.
    kind = getattr(sys.modules.get(module), "__dict__", {}).get(name)
    if "resnets" in (module.partition(".")[0], str(getattr(kind, "__module__", "")).partition(".")[0]):
        raise SpecError(
            f"{path} is of kind {shown(tag)}, which is of resnets itself; here it is one of {', '.join(kinds)}, or a net "
            "of your own as module:class."
        )
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise SpecError(
            f"{path} is of kind {shown(tag)}, which is not loaded; import {module} first (--import {module})."
        )
    if not callable(getattr(kind, "build", None)):
        raise SpecError(
            f"{path} is of kind {shown(tag)}, which has no method build() -> nn.Module, so it is no net of your own; it "
            f"is one of {', '.join(kinds)}."
        )
    return kind


def _decode_dataclass(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        raise SpecError(f"{path} is {shown(value)}; it is an object.")
    hints = _hints(kind)
    given = {name: item for name, item in value.items() if name != "kind"}
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise SpecError(f"{path} has no field {shown(unknown[0])}.{near_misses(unknown[0], hints)}")
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(given))
    if missing:
        raise SpecError(f"{path} lacks the field {missing[0]!r}.")
    return kind(**{name: _decode(hints[name], item, f"{path}.{name}") for name, item in given.items()})


def shown(value: Any) -> str:
    """Return a value of a file, which may be of any length, as a message of one line can have it: short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
