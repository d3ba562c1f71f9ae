"""The parts a report is made of: figures with a key and the numbers behind them, tables, pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from resnets.report.curves import line_classes

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of text; the first column names the row."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: frozenset[int] = field(default=frozenset({0}))
    """Columns that hold words, which are set flush left; the others hold numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyEntry:
    """What a line or a dash of a chart stands for."""

    kind: Literal["net", "bold", "thin", "diagonal", "gap", "bar"]
    text: str
    color: int = 0

    @property
    def classes(self) -> str:
        """Those of the net's line in the style sheet."""
        return line_classes(self.color)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A chart with its caption, its key, and its numbers as a table."""

    identifier: str
    title: str
    caption: str
    svg: Markup
    key: tuple[KeyEntry, ...] = ()
    table: Table | None = None
    size: Literal["wide", "small"] = "wide"
    shows_title: bool = True
    """Whether the title stands above it; not where a heading says the same."""
