"""The wire format of protocol buffers: numbered fields, each an integer, four or eight bytes, or a length and bytes.

Strict where the format leaves room: a field that is cut off, a number beyond 64 bits and the groups that nothing
writes any more are refused. Data is little-endian throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types: how the value of a field is stored."""

_WIDTHS = {FIXED32: 4, FIXED64: 8}
_LARGEST_NUMBER = (1 << 29) - 1
_LONGEST_VARINT = 10


class FormatError(ValueError):
    """A file does not follow its format; the message says where."""


def read_fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield (field number, wire type, value) of every field of one message in its order.

    A value is an int of 0 to 2**64 - 1 (VARINT), or bytes: of a view of `data` (BYTES), or of one or more values of
    4 or 8 bytes (FIXED32, FIXED64). Fields of fixed width that follow each other with the same number, which is how a
    list without packing looks, come as one, so that millions of floats take no loop.

    Raises:
        FormatError: the message is damaged.
    """
    position, end = 0, len(data)
    while position < end:
        start = position
        tag, position = data[position], position + 1  # most are of one byte, and a call for each takes its time
        if tag > 0x7F:
            tag, position = _read_varint(data, start)
        number, wire_type = tag >> 3, tag & 7
        if not 1 <= number <= _LARGEST_NUMBER:
            raise FormatError(f"a field has the number {number}, and numbers are 1 to {_LARGEST_NUMBER}")
        if wire_type == VARINT:
            value, position = _read_varint(data, position)
        elif wire_type == BYTES:
            length, position = _read_varint(data, position)
            _check_left(number, length, end - position)
            value = data[position : position + length]
            position += length
        elif wire_type in _WIDTHS:
            width = _WIDTHS[wire_type]
            _check_left(number, width, end - position)
            value, position = _read_run(data, start, position, width)
        else:
            raise FormatError(f"field {number} has the wire type {wire_type}, which is none of 0, 1, 2 and 5")
        yield number, wire_type, value


def read_varints(data: memoryview) -> Iterator[int]:
    """Yield the integers, 0 to 2**64 - 1, of a packed list.

    Raises:
        FormatError: the last one is cut off, or one is beyond 64 bits.
    """
    position = 0
    while position < len(data):
        value, position = _read_varint(data, position)
        yield value


def encode_varint(value: int) -> bytes:
    """Return an integer of -2**63 to 2**64 - 1 as 1 to 10 bytes of seven bits each."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_tag(number: int, wire_type: int) -> bytes:
    """Return what goes before the value of field `number`."""
    return encode_varint(number << 3 | wire_type)


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return the integer at `position` and the position after it."""
    if position < len(data) and data[position] < 0x80:
        return data[position], position + 1
    value = 0
    for index, byte in enumerate(data[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >> 64:
                raise FormatError("a number is beyond 64 bits")
            return value, position + index + 1
    raise FormatError("a number is cut off" if len(data) - position < _LONGEST_VARINT else "a number has no end")


def _read_run(data: memoryview, start: int, first: int, width: int) -> tuple[memoryview, int]:
    """Return the values of the fields from `start` on that have the tag of the first, and the position after them."""
    tag = data[start:first]
    after = first + width
    if data[after : after + len(tag)] != tag:
        return data[first:after], after
    stride = len(tag) + width
    count = _count_records(data[start:], np.frombuffer(tag, np.uint8), stride)
    records = np.frombuffer(data, np.uint8, count * stride, start).reshape(count, stride)
    return memoryview(records[:, len(tag) :].tobytes()), start + count * stride


def _count_records(data: memoryview, tag: np.ndarray, stride: int) -> int:
    """Return how many records of `stride` bytes, from the start of `data` on and at least one, begin with `tag`."""
    possible = len(data) // stride
    count, step = 1, 64
    while count < possible:
        step = min(step, possible - count)
        records = np.frombuffer(data, np.uint8, step * stride, count * stride).reshape(step, stride)
        equal = (records[:, : len(tag)] == tag).all(axis=1)
        if not equal.all():
            return count + int(equal.argmin())
        count, step = count + step, 2 * step
    return count


def _check_left(number: int, length: int, left: int) -> None:
    if length > left:
        raise FormatError(f"field {number} is {length} bytes long, and {left} are left: the file is cut off or damaged")
