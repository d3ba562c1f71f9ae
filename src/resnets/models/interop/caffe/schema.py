"""The messages of caffe.proto that a classification net consists of, read from and written to binary files.

A message is a dictionary from field names to lists of values, in the order of the file. Messages that decide what a
layer computes are closed: a field that is not listed is refused, because skipping it could change the net silently.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from resnets.models.interop.caffe.protobuf import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    FormatError,
    encode_tag,
    encode_varint,
    read_fields,
    read_varints,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Values = dict[str, list[Any]]
Kind = Literal["int", "bool", "float", "text", "enum", "message", "float32s", "float64s", "ignored"]

MAX_FIELDS = 1_000_000
"""Fields of a file, a list of floats counted as one; ResNet-152 has 9,266."""
_MAX_TEXT_BYTES = 4096
_ARRAYS: dict[str, tuple[str, int]] = {"float32s": ("<f4", FIXED32), "float64s": ("<f8", FIXED64)}


@dataclass(frozen=True, slots=True)
class Field:
    """Name and type of a numbered field."""

    name: str
    kind: Kind
    message: Message | None = None
    """Fields of the message that the field holds."""
    values: Mapping[str, int] | None = None
    """Names and numbers of an enumeration."""


@dataclass(frozen=True, slots=True)
class Message:
    """Fields of a message by number."""

    name: str
    fields: Mapping[int, Field]
    closed: bool = False
    """Refuse fields that are not listed."""

    def numbers(self) -> dict[str, int]:
        """Return the number of every field by its name."""
        return {field.name: number for number, field in self.fields.items()}


def _message(message_name: str, *, closed: bool = False, **kinds: Any) -> Message:
    """Return a message from `name=(number, kind[, message or values])`; ignored fields are known to decide nothing."""
    fields: dict[int, Field] = {}
    for field, (number, kind, *detail) in kinds.items():
        message = detail[0] if kind == "message" else None
        values = detail[0] if kind == "enum" else None
        fields[number] = Field(field, kind, message, values)
    return Message(message_name, fields, closed)


BLOB_SHAPE = _message("BlobShape", closed=True, dim=(1, "int"))
BLOB = _message(
    "BlobProto",
    closed=True,
    num=(1, "int"),
    channels=(2, "int"),
    height=(3, "int"),
    width=(4, "int"),
    data=(5, "float32s"),
    diff=(6, "ignored"),
    shape=(7, "message", BLOB_SHAPE),
    double_data=(8, "float64s"),
    double_diff=(9, "ignored"),
)
_CONVOLUTION = _message(
    "ConvolutionParameter",
    closed=True,
    num_output=(1, "int"),
    bias_term=(2, "bool"),
    pad=(3, "int"),
    kernel_size=(4, "int"),
    group=(5, "int"),
    stride=(6, "int"),
    weight_filler=(7, "ignored"),
    bias_filler=(8, "ignored"),
    pad_h=(9, "int"),
    pad_w=(10, "int"),
    kernel_h=(11, "int"),
    kernel_w=(12, "int"),
    stride_h=(13, "int"),
    stride_w=(14, "int"),
    engine=(15, "ignored"),
    axis=(16, "int"),
    force_nd_im2col=(17, "ignored"),
    dilation=(18, "int"),
)
_POOLING = _message(
    "PoolingParameter",
    closed=True,
    pool=(1, "enum", {"MAX": 0, "AVE": 1, "STOCHASTIC": 2}),
    kernel_size=(2, "int"),
    stride=(3, "int"),
    pad=(4, "int"),
    kernel_h=(5, "int"),
    kernel_w=(6, "int"),
    stride_h=(7, "int"),
    stride_w=(8, "int"),
    pad_h=(9, "int"),
    pad_w=(10, "int"),
    engine=(11, "ignored"),
    global_pooling=(12, "bool"),
    round_mode=(13, "enum", {"CEIL": 0, "FLOOR": 1}),
)
_INNER_PRODUCT = _message(
    "InnerProductParameter",
    closed=True,
    num_output=(1, "int"),
    bias_term=(2, "bool"),
    weight_filler=(3, "ignored"),
    bias_filler=(4, "ignored"),
    axis=(5, "int"),
    transpose=(6, "bool"),
)
_BATCH_NORM = _message(
    "BatchNormParameter",
    closed=True,
    use_global_stats=(1, "bool"),
    moving_average_fraction=(2, "ignored"),
    eps=(3, "float"),
)
_SCALE = _message(
    "ScaleParameter",
    closed=True,
    axis=(1, "int"),
    num_axes=(2, "int"),
    filler=(3, "ignored"),
    bias_term=(4, "bool"),
    bias_filler=(5, "ignored"),
)
_ELTWISE = _message(
    "EltwiseParameter",
    closed=True,
    operation=(1, "enum", {"PROD": 0, "SUM": 1, "MAX": 2}),
    coeff=(2, "float"),
    stable_prod_grad=(3, "ignored"),
)
_RELU = _message("ReLUParameter", closed=True, negative_slope=(1, "float"), engine=(2, "ignored"))
_DROPOUT = _message("DropoutParameter", closed=True, dropout_ratio=(1, "float"), scale_train=(2, "ignored"))
_INPUT = _message("InputParameter", closed=True, shape=(1, "message", BLOB_SHAPE))
_TRANSFORMATION = _message("TransformationParameter", crop_size=(3, "int"))
_RULE = _message(
    "NetStateRule",
    closed=True,
    phase=(1, "enum", {"TRAIN": 0, "TEST": 1}),
    min_level=(2, "int"),
    max_level=(3, "int"),
    stage=(4, "text"),
    not_stage=(5, "text"),
)
_LAYER = _message(
    "LayerParameter",
    name=(1, "text"),
    type=(2, "text"),
    bottom=(3, "text"),
    top=(4, "text"),
    blobs=(7, "message", BLOB),
    include=(8, "message", _RULE),
    exclude=(9, "message", _RULE),
    transform_param=(100, "message", _TRANSFORMATION),
    convolution_param=(106, "message", _CONVOLUTION),
    dropout_param=(108, "message", _DROPOUT),
    eltwise_param=(110, "message", _ELTWISE),
    inner_product_param=(117, "message", _INNER_PRODUCT),
    pooling_param=(121, "message", _POOLING),
    relu_param=(123, "message", _RELU),
    batch_norm_param=(139, "message", _BATCH_NORM),
    scale_param=(142, "message", _SCALE),
    input_param=(143, "message", _INPUT),
)
V1_TYPES: Mapping[str, int] = {
    "ACCURACY": 1, "CONCAT": 3, "CONVOLUTION": 4, "DATA": 5, "DROPOUT": 6, "ELTWISE": 25, "FLATTEN": 8,
    "HDF5_DATA": 9, "IMAGE_DATA": 12, "INNER_PRODUCT": 14, "LRN": 15, "MEMORY_DATA": 29, "POOLING": 17, "RELU": 18,
    "SIGMOID": 19, "SILENCE": 36, "SLICE": 33, "SOFTMAX": 20, "SOFTMAX_LOSS": 21, "SPLIT": 22, "TANH": 23,
}  # fmt: skip
"""Layer types of the files of 2013 and 2014, which know no BatchNorm: those of VGG, and those that are refused."""
_V1_LAYER = _message(
    "V1LayerParameter",
    layer=(1, "ignored"),
    bottom=(2, "text"),
    top=(3, "text"),
    name=(4, "text"),
    type=(5, "enum", V1_TYPES),
    blobs=(6, "message", BLOB),
    convolution_param=(10, "message", _CONVOLUTION),
    dropout_param=(12, "message", _DROPOUT),
    inner_product_param=(17, "message", _INNER_PRODUCT),
    pooling_param=(19, "message", _POOLING),
    eltwise_param=(24, "message", _ELTWISE),
    relu_param=(30, "message", _RELU),
    include=(32, "message", _RULE),
    exclude=(33, "message", _RULE),
    transform_param=(36, "message", _TRANSFORMATION),
)
NET = _message(
    "NetParameter",
    name=(1, "text"),
    layers=(2, "message", _V1_LAYER),
    input=(3, "text"),
    input_dim=(4, "int"),
    input_shape=(8, "message", BLOB_SHAPE),
    layer=(100, "message", _LAYER),
)


def decode(data: memoryview, message: Message) -> Values:
    """Return the values of a binary message; lists of floats are arrays that are views of `data` where they can be.

    Raises:
        FormatError: it is damaged, has a field of another type, or, in a closed message, one that is not known.
    """
    return _Decoder().decode(data, message)


def encode(values: Values, message: Message) -> list[bytes | memoryview]:
    """Return a binary message in pieces, whose joined bytes are the message; arrays are not copied."""
    numbers, pieces = message.numbers(), []
    for name, entries in values.items():
        field = message.fields[numbers[name]]
        for entry in entries:
            pieces += _encode_field(numbers[name], field, entry)
    return pieces


def last(values: Values, name: str, default: Any) -> Any:
    """Return the value of a field that is not a list: the last one, as the format has it, or `default`."""
    return values[name][-1] if values.get(name) else default


class _Decoder:
    """Decodes one file; counts its fields."""

    def __init__(self) -> None:
        self._fields_left = MAX_FIELDS

    def decode(self, data: memoryview, message: Message) -> Values:
        values: Values = {}
        for number, wire_type, value in read_fields(data):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise FormatError(f"it has more than {MAX_FIELDS} fields, which no net needs")
            field = message.fields.get(number)
            if field is None:
                if message.closed:
                    raise FormatError(
                        f"{message.name} has a field {number}, which Caffe does not define; "
                        "the file is damaged, or a variant of Caffe wrote it"
                    )
            elif field.kind != "ignored":
                values.setdefault(field.name, []).extend(self._values(message, field, wire_type, value))
        return values

    def _values(self, message: Message, field: Field, wire_type: int, value: Any) -> list[Any]:
        match field.kind:
            case "message" if wire_type == BYTES and field.message is not None:
                return [self.decode(value, field.message)]
            case "text" if wire_type == BYTES:
                return [_decode_text(value)]
            case "int" | "bool" | "enum" if wire_type == VARINT:
                return [_decode_integer(field, value)]
            case "int" if wire_type == BYTES:
                integers = [_decode_integer(field, entry) for entry in read_varints(value)]
                self._fields_left -= len(integers)
                return integers
            case "float" if wire_type == FIXED32 or (wire_type == BYTES and len(value) % 4 == 0):
                if len(value) > _MAX_TEXT_BYTES:
                    raise FormatError(f"{message.name} has {len(value) // 4} values in {field.name}")
                return [_shortest(entry) for (entry,) in struct.iter_unpack("<f", value)]
            case "float32s" | "float64s":
                dtype, unpacked = _ARRAYS[field.kind]
                if wire_type == unpacked or (wire_type == BYTES and len(value) % np.dtype(dtype).itemsize == 0):
                    return [np.frombuffer(value, dtype)]
        raise FormatError(f"the field {field.name} of {message.name} is stored as something else than {field.kind}")


def _decode_text(value: memoryview) -> str:
    if len(value) > _MAX_TEXT_BYTES:
        raise FormatError(f"a name is {len(value)} bytes long")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("a name is not UTF-8") from error


def _decode_integer(field: Field, value: int) -> int | bool | str:
    if field.kind == "bool":
        return value != 0
    if field.kind == "enum":
        for name, number in (field.values or {}).items():
            if number == value:
                return name
        raise FormatError(f"{field.name} has the number {value}, which is none of {', '.join(field.values or ())}")
    return value - (1 << 64) if value >> 63 else value


def _shortest(value: float) -> float:
    """Return the shortest decimal that has this float32: 0.1 and not 0.10000000149."""
    return float(str(np.float32(value)))


def _encode_field(number: int, field: Field, value: Any) -> list[bytes | memoryview]:
    match field.kind:
        case "message" if field.message is not None:
            pieces = encode(value, field.message)
            return [encode_tag(number, BYTES), encode_varint(sum(map(len, pieces))), *pieces]
        case "text":
            text = value.encode("utf-8")
            return [encode_tag(number, BYTES), encode_varint(len(text)), text]
        case "float":
            return [encode_tag(number, FIXED32), struct.pack("<f", value)]
        case "float32s" | "float64s":
            content = np.ascontiguousarray(value, _ARRAYS[field.kind][0]).data.cast("B")
            return [encode_tag(number, BYTES), encode_varint(len(content)), content]
        case "enum":
            return [encode_tag(number, VARINT), encode_varint((field.values or {})[value])]
        case _:
            return [encode_tag(number, VARINT), encode_varint(int(value))]
