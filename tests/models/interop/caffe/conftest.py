"""Caffe files made by hand: an encoder of their wire format that shares nothing with the package's."""

import dataclasses
import struct

import numpy as np
import pytest
from jaxtyping import config

from resnets.models.interop.caffe.deploy import deploy
from resnets.models.interop.caffe.operations import write_operation
from resnets.models.interop.caffe.weights import with_blobs

PARAMETERS = {
    "Input": (143, {}),
    "Convolution": (106, {"num_output": 1, "bias_term": 2, "pad": 3, "kernel_size": 4, "group": 5, "stride": 6}),
    "BatchNorm": (139, {"use_global_stats": 1, "eps": 3}),
    "Scale": (142, {"bias_term": 4}),
    "Pooling": (121, {"pool": 1, "kernel_size": 2, "stride": 3, "pad": 4, "global_pooling": 12, "round_mode": 13}),
    "InnerProduct": (117, {"num_output": 1, "bias_term": 2}),
    "Eltwise": (110, {"operation": 1}),
    "Dropout": (108, {"dropout_ratio": 1}),
    "ReLU": (123, {"negative_slope": 1}),
}
V1 = {"Convolution": (4, 10), "ReLU": (18, 30), "Pooling": (17, 19), "InnerProduct": (14, 17), "Dropout": (6, 12)}
NUMBERS = {"MAX": 0, "AVE": 1, "SUM": 1, "CEIL": 0, "FLOOR": 1}


def varint(value):
    parts = [value >> shift & 0x7F for shift in range(0, 64, 7) if value >> shift] or [0]
    return bytes([part | 0x80 for part in parts[:-1]] + parts[-1:])


def field(number, value):
    """Return a field: an int as a varint, a float as four bytes, text and bytes with their length."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(int(value))
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def packed(array):
    return field(5, array.astype("<f4").tobytes())


def unpacked(array):
    return b"".join(field(5, float(value)) for value in array.ravel())


def doubled(array):
    return field(8, array.astype("<f8").tobytes())


def unpacked_doubles(array):
    return b"".join(varint(8 << 3 | 1) + struct.pack("<d", value) for value in array.ravel())


def halves(array):
    """Return one list in three pieces, packed and not, which a reader has to join."""
    flat = array.ravel()
    third = len(flat) // 3
    return packed(flat[:third]) + unpacked(flat[third : 2 * third]) + packed(flat[2 * third :])


def dimensions(array):
    return field(7, field(1, b"".join(map(varint, array.shape))))


def legacy_dimensions(array):
    """Return num, channels, height and width, as files had them before there was a shape."""
    sides = (1,) * (4 - array.ndim) + array.shape
    return b"".join(field(number, side) for number, side in enumerate(sides, start=1))


def encode_layer(layer, data=packed, shape=dimensions, graph=True, version=2):
    kind, settings = write_operation(layer.operation)
    blobs = [shape(blob) + data(blob) for blob in layer.blobs]
    if version == 1:
        number, parameter = V1.get(kind, (20, 39))
        own = [field(2, name) for name in layer.bottoms] + [field(3, name) for name in layer.tops]
        own += [field(4, layer.name), field(5, number)] + [field(6, blob) for blob in blobs]
    else:
        parameter = PARAMETERS[kind][0] if kind in PARAMETERS else None
        own = [field(1, layer.name), field(2, kind)] + [field(7, blob) for blob in blobs]
        if graph:
            own += [field(3, name) for name in layer.bottoms] + [field(4, name) for name in layer.tops]
    if settings and graph:
        own.append(field(parameter, encode_settings(kind, *settings.values())))
    return b"".join(own)


def encode_settings(kind, values):
    if kind == "Input":
        (shape,) = values[0]["shape"]
        return field(1, field(1, b"".join(map(varint, shape["dim"]))))
    numbers = PARAMETERS[kind][1]
    return b"".join(
        field(numbers[name], NUMBERS.get(value, value)) for name, entries in values[0].items() for value in entries
    )


@pytest.fixture
def wire():
    """The encoder: wire.field(number, value), wire.packed(array), ..."""
    functions = (field, varint, packed, unpacked, doubled, unpacked_doubles, halves, dimensions, legacy_dimensions)
    return type("Wire", (), {function.__name__: staticmethod(function) for function in functions})


@pytest.fixture
def caffe_layers():
    """The layers of a model of ours with its weights: caffe_layers(model, side)."""

    def make(model, side=None):
        return with_blobs(deploy(model.spec, side), model.spec, model.state_dict())

    return make


@pytest.fixture
def changed():
    """A list of layers with one replaced: changed(layers, name, field=value); `operation` may be a dictionary."""

    def make(layers, name, **fields):
        layer = next(layer for layer in layers if layer.name == name)
        if isinstance(fields.get("operation"), dict):
            fields["operation"] = dataclasses.replace(layer.operation, **fields["operation"])
        return [dataclasses.replace(layer, **fields) if layer.name == name else layer for layer in layers]

    return make


@pytest.fixture
def caffemodel(tmp_path):
    """A .caffemodel on disk: caffemodel(layers, data=, shape=, graph=, version=, head=)."""

    def make(layers, name="x.caffemodel", head=b"", version=2, **how):
        number = 100 if version == 2 else 2
        encoded = [field(number, encode_layer(layer, version=version, **how)) for layer in layers]
        path = tmp_path / name
        path.write_bytes(field(1, "net") + head + b"".join(encoded))
        return path

    return make


@pytest.fixture
def unchecked():
    """Leave out the checks of types at every call, which take ten times as long as reading a small file."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def array():
    """A float32 array of random values: array(*shape)."""
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape, dtype=np.float32)
