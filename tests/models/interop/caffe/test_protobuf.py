import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.models.interop.caffe.protobuf import (
    FormatError,
    encode_tag,
    encode_varint,
    read_fields,
    read_varints,
)


def fields(content):
    return [
        (number, wire_type, value if isinstance(value, int) else bytes(value))
        for number, wire_type, value in read_fields(memoryview(content))
    ]


@given(st.integers(0, 2**64 - 1))
def test_a_number_comes_back(value):
    assert list(read_varints(memoryview(encode_varint(value)))) == [value]


def test_numbers_are_encoded_as_the_format_defines():
    # The two examples of the format's description, and the bounds of one byte and of ten.
    assert encode_varint(1) == b"\x01"
    assert encode_varint(150) == b"\x96\x01"
    assert encode_varint(127) == b"\x7f"
    assert encode_varint(128) == b"\x80\x01"
    assert encode_varint(-1) == b"\xff" * 9 + b"\x01"
    assert encode_tag(1, 2) == b"\x0a"


def test_all_wire_types_are_read():
    content = b"\x08\x96\x01" + b"\x12\x03abc" + b"\x1d" + struct.pack("<f", 0.5) + b"\x21" + struct.pack("<d", 0.25)
    assert fields(content) == [
        (1, 0, 150),
        (2, 2, b"abc"),
        (3, 5, struct.pack("<f", 0.5)),
        (4, 1, struct.pack("<d", 0.25)),
    ]


@pytest.mark.parametrize(("code", "kind"), [(5, "<f4"), (1, "<f8")])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 191, 192, 193, 1000])
def test_a_run_of_equal_fields_is_one_list_and_ends_where_the_next_field_begins(wire, code, kind, count):
    values = np.random.default_rng(0).standard_normal(count).astype(kind)
    tag = wire.varint(5 << 3 | code)
    run = b"".join(tag + value.tobytes() for value in values)
    assert fields(run + b"\x08\x01") == [(5, code, values.tobytes()), (1, 0, 1)]
    assert fields(b"\x08\x01" + run) == [(1, 0, 1), (5, code, values.tobytes())]


def test_a_run_with_tags_of_two_bytes_is_one_list(wire):
    values = np.arange(5, dtype="<f4")
    run = b"".join(wire.varint(77 << 3 | 5) + value.tobytes() for value in values)
    assert fields(run) == [(77, 5, values.tobytes())]


def test_millions_of_single_floats_take_no_loop(wire):
    values = np.arange(3_000_000, dtype="<f4")
    records = np.empty((len(values), 5), np.uint8)
    records[:, 0] = wire.varint(5 << 3 | 5)[0]
    records[:, 1:] = values.view(np.uint8).reshape(-1, 4)
    ((_, _, found),) = read_fields(memoryview(records.tobytes()))
    assert np.array_equal(np.frombuffer(found, "<f4"), values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x08", "cut off"),
        (b"\x08\x80", "cut off"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "no end"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "64 bits"),
        (b"\x12\x04abc", "4 bytes long, and 3 are left"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc", "cut off or damaged"),
        (b"\x1d\x00\x00", "cut off"),
        (b"\x1d\x00\x00\x00\x00\x1d\x00", "cut off"),
        (b"\x00\x01", "number 0"),
        (b"\xf8\xff\xff\xff\xff\x01\x01", "numbers are 1 to"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
    ],
)
def test_damage_is_named(content, reason):
    with pytest.raises(FormatError, match=reason):
        fields(content)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    try:
        found = fields(content)
    except FormatError:
        return
    assert sum(len(value) if isinstance(value, bytes) else 1 for _, _, value in found) <= len(content)
