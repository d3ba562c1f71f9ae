"""The text form of protocol buffers, in which Caffe states a net without its weights (deploy.prototxt)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from resnets.models.interop.caffe.protobuf import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resnets.models.interop.caffe.schema import Field, Message, Values

MAX_CHARACTERS = 4_000_000
"""Length of a text that is read; that of ResNet-152 has some 105,000 characters."""
_MAX_DEPTH = 20
_TOKEN = re.compile(
    r"""(?:\s|\#[^\n]*)*+
    (?: (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<word>[-+\w.]+)
    | (?P<mark>[{}<>\[\]:,;])
    | (?P<end>\Z) )""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?)f?")
_CLOSING = {"{": "}", "<": ">"}
_LARGEST_INT, _LARGEST_FLOAT = 1 << 63, 3.4028235e38


def parse(text: str, message: Message) -> Values:
    """Return the values of a message in text form.

    Raises:
        FormatError: it is damaged, a value is not of its field's type, or, in a closed message, a field is not known.
    """
    if len(text) > MAX_CHARACTERS:
        raise FormatError(f"it has {len(text):,} characters; a net needs fewer than {MAX_CHARACTERS:,}")
    return _Reader(text).fields(message, "", 0)


def dump(values: Values, message: Message, indent: int = 0) -> str:
    """Return a message in text form, a field a line; lists of floats cannot be written."""
    numbers, lines, margin = message.numbers(), [], "  " * indent
    for name, entries in values.items():
        field = message.fields[numbers[name]]
        for entry in entries:
            if field.kind == "message" and field.message is not None:
                lines.append(f"{margin}{name} {{\n{dump(entry, field.message, indent + 1)}{margin}}}\n")
            else:
                lines.append(f"{margin}{name}: {_dump_value(field, entry)}\n")
    return "".join(lines)


class _Reader:
    """Reads one text from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._kind, self._token = next(self._tokens)

    def fields(self, message: Message | None, closing: str, depth: int) -> Values:
        """Read fields up to `closing`; without a message nothing is kept."""
        if depth > _MAX_DEPTH:
            raise self._error(f"messages are nested more than {_MAX_DEPTH} deep")
        by_name = {} if message is None else {field.name: field for field in message.fields.values()}
        values: Values = {}
        while self._token != closing:
            if self._kind != "word":
                raise self._error(f"a field's name is expected, not {self._token[:80]!r}")
            name, _ = self._token, self._next()
            field = by_name.get(name)
            if field is None and message is not None and message.closed:
                raise self._error(f"{message.name} has no field {name!r} in Caffe")
            entries = self._entries(field, depth)
            if field is not None and field.kind != "ignored":
                values.setdefault(name, []).extend(entries)
            if self._token in (",", ";"):
                self._next()
        return values

    def _entries(self, field: Field | None, depth: int) -> list[Any]:
        """Read the value after a field's name, or the list of values."""
        colon = self._token == ":"
        if colon:
            self._next()
        if self._token in _CLOSING:
            return [self._message(field, depth)]
        if self._token != "[":
            if not colon:
                raise self._error(f"a colon or a brace is expected, not {self._token[:80]!r}")
            return [self._value(field)]
        entries: list[Any] = []
        self._next()
        while self._token != "]":
            entries.append(self._message(field, depth) if self._token in _CLOSING else self._value(field))
            if self._token == ",":
                self._next()
            elif self._token != "]":
                raise self._error(f"a comma or ] is expected, not {self._token[:80]!r}")
        self._next()
        return entries

    def _message(self, field: Field | None, depth: int) -> Values:
        if field is not None and field.kind not in ("message", "ignored"):
            raise self._error(f"{field.name} is a value, not a message")
        closing = _CLOSING[self._token]
        self._next()
        values = self.fields(field.message if field else None, closing, depth + 1)
        self._next()
        return values

    def _value(self, field: Field | None) -> Any:
        kind, token = self._kind, self._token
        if kind not in ("text", "word"):
            raise self._error(f"a value is expected, not {self._token[:80]!r}")
        self._next()
        if kind == "text":
            parts = [token]
            while self._kind == "text":
                parts.append(self._token)
                self._next()
            token = "".join(re.sub(r"\\(.)", r"\1", part[1:-1]) for part in parts)
        if field is None or field.kind == "ignored":
            return None
        value = _convert(field, kind, token)
        if value is None:
            raise self._error(f"{field.name} cannot be {token[:80]!r}; it is of type {field.kind}")
        return value

    def _next(self) -> None:
        self._kind, self._token = next(self._tokens, ("end", ""))

    def _split(self) -> Iterator[tuple[str, str]]:
        self._position = 0
        while match := _TOKEN.match(self._text, self._position):
            kind = match.lastgroup or ""
            self._position = match.end()
            yield kind, match[kind]
            if kind == "end":
                return
        rest = self._text[self._position :].lstrip()
        self._position = len(self._text) - len(rest)
        raise self._error(f"{rest[:1]!r} is out of place")

    def _error(self, reason: str) -> FormatError:
        line = self._text.count("\n", 0, self._position) + 1
        return FormatError(f"line {line}: {reason}")


def _convert(field: Field, kind: str, token: str) -> Any:
    """Return the value that a token states, or None where it is of another type."""
    if field.kind == "text" or kind == "text":
        return token if field.kind == kind == "text" else None
    match field.kind:
        case "enum":
            return token if token in (field.values or ()) else None
        case "bool":
            return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}.get(token.lower())
        case "int" if re.fullmatch(r"-?(0|[1-9]\d{0,18})", token) and abs(int(token)) < _LARGEST_INT:
            return int(token)
        case "float" if _NUMBER.fullmatch(token) and abs(float(token.rstrip("f"))) <= _LARGEST_FLOAT:
            return float(token.rstrip("f"))
        case _:
            return None


def _dump_value(field: Field, value: Any) -> str:
    match field.kind:
        case "text":
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'
        case "bool":
            return "true" if value else "false"
        case _:
            return str(value)
