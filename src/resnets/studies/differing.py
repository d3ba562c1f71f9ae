"""In which fields two specs differ, and what that means for a comparison of their runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnets.specs import io

if TYPE_CHECKING:
    from resnets.specs.run import TrainSpec

_LONGEST_FIELDS = 60
"""Letters of a spec's fields that a line has room for."""


def differing_fields(a: TrainSpec, b: TrainSpec) -> list[str]:
    """Return one line a field in which two specs differ, label and seed left out: `path: A's -> B's`.

    Specs of different classes are one field: they have no fields in common that would say more.
    """
    ours, theirs = (
        {name: value for name, value in io.to_json(spec).items() if name not in ("recipe", "seed")} for spec in (a, b)
    )
    return io.differences(*_with_whole_kinds(ours, theirs))


def _with_whole_kinds(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Return two JSON values in which specs of different kinds are texts, such as `Cosine(final_share=0.1)`."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return ours, theirs
    if ours.get("kind") != theirs.get("kind"):
        return _as_text(ours, theirs), _as_text(theirs, ours)
    pairs = {name: _with_whole_kinds(ours[name], theirs.get(name)) for name in ours}
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def _as_text(spec: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the kind of a spec with the fields that the other has not, or has otherwise; dots where they are many."""
    fields = ", ".join(f"{name}={value}" for name, value in spec.items() if value != other.get(name) and name != "kind")
    return f"{spec.get('kind')}({fields if len(fields) <= _LONGEST_FIELDS else '...'})"


def warnings(differing: list[str]) -> list[str]:
    """Return what to say of two specs before they are compared: nothing where they differ in one field."""
    if not differing:
        return ["Nothing differs between A and B: their runs are repetitions, and no difference means anything."]
    if len(differing) > 1:
        return [f"{len(differing)} fields differ: a difference in error cannot be put down to one of them."]
    return []
