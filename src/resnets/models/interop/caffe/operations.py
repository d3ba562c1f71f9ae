"""What the layers of a classification net compute, as data, read from and written to Caffe's layer messages.

Whatever a layer could do that is not described here (windows that are not square, slopes, weights of an addition) is
refused: a layer that is read is a layer that is understood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from resnets.models.interop.caffe.protobuf import FormatError
from resnets.models.interop.caffe.schema import Values, last

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

BATCH_NORM_EPSILON = 1e-5
"""Caffe's default, which is ours too."""
_LARGEST_WINDOW = 1024
_LARGEST_OUTPUT = 1 << 24


@dataclass(frozen=True, slots=True)
class Input:
    """The images; height and width are 0 where the file does not say."""

    channels: int = 0
    height: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True)
class Convolution:
    """A square window; the output has floor((side + 2 pad - kernel) / stride) + 1 pixels."""

    outputs: int
    kernel: int
    stride: int = 1
    pad: int = 0
    bias: bool = False
    groups: int = 1
    dilation: int = 1


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """(x - mean) / sqrt(variance + epsilon), with the stored statistics."""

    epsilon: float = BATCH_NORM_EPSILON


@dataclass(frozen=True, slots=True)
class Scale:
    """x * gamma, and + beta with a bias, a value a channel."""

    bias: bool = True


@dataclass(frozen=True, slots=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """Maximum or average of a square window; without `floor`, windows that hang over at the end count."""

    kind: Literal["max", "average"]
    kernel: int = 0
    stride: int = 1
    pad: int = 0
    floor: bool = False
    whole_map: bool = False


@dataclass(frozen=True, slots=True)
class Addition:
    """Sum of all inputs."""


@dataclass(frozen=True, slots=True)
class InnerProduct:
    """A fully-connected layer on all values of an image."""

    outputs: int
    bias: bool = True


@dataclass(frozen=True, slots=True)
class Copy:
    """Nothing, when a net is used: dropout, a split into several names, a change of shape before a fully-connected."""

    kind: Literal["Dropout", "Split", "Flatten"] = "Dropout"
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Ending:
    """What comes after the logits: softmax, losses and scores, which are not part of a net here."""

    kind: str = "Softmax"


Operation = Input | Convolution | BatchNorm | Scale | ReLU | Pooling | Addition | InnerProduct | Copy | Ending


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a net."""

    name: str
    operation: Operation
    bottoms: tuple[str, ...]
    """Names of its inputs."""
    tops: tuple[str, ...]
    """Names of its outputs; one that is an input as well is overwritten."""
    blobs: tuple[np.ndarray, ...] = ()
    """Its weights as they are stored, float32 or float64, in their stored shapes."""


ENDINGS = ("Softmax", "SoftmaxWithLoss", "Accuracy", "Silence", "ArgMax")
INPUTS = ("Input", "Data", "ImageData", "MemoryData", "HDF5Data", "DummyData", "Python", "WindowData")


def read_operation(kind: str, values: Values) -> Operation:
    """Return what a LayerParameter of type `kind` computes.

    Raises:
        FormatError: it is of no type that these nets have, or does what is not described here.
    """
    match kind:
        case "Convolution":
            return _read_convolution(last(values, "convolution_param", {}))
        case "BatchNorm":
            return _read_batch_norm(last(values, "batch_norm_param", {}))
        case "Scale":
            return _read_scale(last(values, "scale_param", {}))
        case "ReLU":
            _require(last(last(values, "relu_param", {}), "negative_slope", 0.0) == 0, "has a negative slope")
            return ReLU()
        case "Pooling":
            return _read_pooling(last(values, "pooling_param", {}))
        case "Eltwise":
            settings = last(values, "eltwise_param", {})
            _require(last(settings, "operation", "SUM") == "SUM", "is no sum")
            _require(set(settings.get("coeff", [])) <= {1.0}, "is a weighted sum")
            return Addition()
        case "InnerProduct":
            return _read_inner_product(last(values, "inner_product_param", {}))
        case "Dropout":
            return Copy("Dropout", last(last(values, "dropout_param", {}), "dropout_ratio", 0.5))
        case "Split" | "Flatten":
            return Copy(kind)
        case _ if kind in ENDINGS:
            return Ending(kind)
        case _ if kind in INPUTS:
            return _read_input(values)
        case _:
            raise FormatError(f"is of type {kind or 'nothing'!r}, which neither a residual net nor VGG has")


def write_operation(operation: Operation) -> tuple[str, Values]:
    """Return type and settings of a LayerParameter."""
    match operation:
        case Input(channels, height, width):
            return "Input", {"input_param": [{"shape": [{"dim": [1, channels, height, width]}]}]}
        case Convolution():
            return "Convolution", {"convolution_param": [_write_convolution(operation)]}
        case BatchNorm():
            return "BatchNorm", {"batch_norm_param": [{"use_global_stats": [True]}]}
        case Scale(bias):
            return "Scale", {"scale_param": [{"bias_term": [bias]}]}
        case ReLU():
            return "ReLU", {}
        case Pooling():
            return "Pooling", {"pooling_param": [_write_pooling(operation)]}
        case Addition():
            return "Eltwise", {"eltwise_param": [{"operation": ["SUM"]}]}
        case InnerProduct(outputs, bias):
            return "InnerProduct", {"inner_product_param": [{"num_output": [outputs], "bias_term": [bias]}]}
        case Copy("Dropout", dropout):
            return "Dropout", {"dropout_param": [{"dropout_ratio": [dropout]}]}
        case Copy(kind) | Ending(kind):
            return kind, {}


def describe(operation: Operation) -> str:
    """Return an operation in a few words for messages."""
    match operation:
        case Convolution():
            words = f"a {operation.kernel}x{operation.kernel} convolution with {operation.outputs} outputs"
            words += f", stride {operation.stride}, padding {operation.pad}"
            words += f", {operation.groups} groups" if operation.groups != 1 else ""
            return words + (f", dilation {operation.dilation}" if operation.dilation != 1 else "")
        case Pooling():
            if operation.whole_map:
                return f"{operation.kind} pooling of the whole map"
            rounding = "floor" if operation.floor else "ceil"
            words = f"{operation.kind} pooling {operation.kernel}x{operation.kernel}, stride {operation.stride}"
            return f"{words}, padding {operation.pad}, size rounded by {rounding}"
        case InnerProduct(outputs, _):
            return f"a fully-connected layer with {outputs} outputs"
        case BatchNorm():
            return "BatchNorm and Scale"
        case Scale():
            return "a Scale without a BatchNorm before it"
        case Addition():
            return "an addition"
        case Input():
            return "the input"
        case ReLU():
            return "a ReLU"
        case Copy(kind) | Ending(kind):
            return kind


def _read_convolution(values: Values) -> Convolution:
    _require(last(values, "axis", 1) == 1, "convolves along another axis than channels")
    return Convolution(
        outputs=_integer(values, "num_output", None, 1, _LARGEST_OUTPUT),
        kernel=_window(values, "kernel_size", "kernel", None, 1),
        stride=_window(values, "stride", "stride", 1, 1),
        pad=_window(values, "pad", "pad", 0, 0),
        bias=last(values, "bias_term", True),
        groups=_integer(values, "group", 1, 1, _LARGEST_OUTPUT),
        dilation=_window(values, "dilation", "", 1, 1),
    )


def _read_batch_norm(values: Values) -> BatchNorm:
    _require(
        last(values, "use_global_stats", True),
        "has use_global_stats: false, with which Caffe normalises by the mean and variance of each batch in testing "
        "too, so that an image's logits depend on the images beside it; if the stored ones are meant, put a .prototxt "
        "with use_global_stats: true beside the .caffemodel under the same name",
    )
    epsilon = last(values, "eps", BATCH_NORM_EPSILON)
    _require(0 < epsilon < 1, f"has an eps of {epsilon}, and it lies between 0 and 1")
    return BatchNorm(epsilon)


def _read_scale(values: Values) -> Scale:
    axes = last(values, "axis", 1), last(values, "num_axes", 1)
    _require(axes == (1, 1), f"scales along axis {axes[0]} and {axes[1]} axes in all, not one value a channel")
    return Scale(last(values, "bias_term", False))


def _read_pooling(values: Values) -> Pooling:
    kind = last(values, "pool", "MAX")
    _require(kind in ("MAX", "AVE"), "pools at random")
    whole = last(values, "global_pooling", False)
    kernel = 0 if whole else _window(values, "kernel_size", "kernel", None, 1)
    pad = _window(values, "pad", "pad", 0, 0)
    _require(pad == 0 if whole else pad < kernel, f"has a padding of {pad} and a window of {kernel}")
    stride = _window(values, "stride", "stride", 1, 1)
    _require(
        whole or stride <= kernel, f"has a window of {kernel} and a stride of {stride}, which can leave windows empty"
    )
    return Pooling(
        kind="max" if kind == "MAX" else "average",
        kernel=kernel,
        stride=stride,
        pad=pad,
        floor=last(values, "round_mode", "CEIL") == "FLOOR",
        whole_map=whole,
    )


def _read_inner_product(values: Values) -> InnerProduct:
    _require(last(values, "axis", 1) == 1, "multiplies along another axis than that of images")
    _require(not last(values, "transpose", False), "has transposed weights")
    return InnerProduct(_integer(values, "num_output", None, 1, _LARGEST_OUTPUT), last(values, "bias_term", True))


def _read_input(values: Values) -> Input:
    shapes = last(values, "input_param", {}).get("shape", [])
    if shapes:
        return read_input_shape(shapes[0].get("dim", []))
    crop = last(last(values, "transform_param", {}), "crop_size", 0)
    _require(0 <= crop <= 1 << 16, f"crops {crop} pixels")
    return Input(0, crop, crop)


def read_input_shape(dimensions: list[int]) -> Input:
    """Return the input whose batches have these dimensions: images, channels, height, width.

    Raises:
        FormatError: they are not four, or out of any range.
    """
    if len(dimensions) != 4 or not all(1 <= side <= 1 << 16 for side in dimensions):
        raise FormatError(f"gives images of shape {tuple(dimensions[:8])}, and not images x channels x height x width")
    return Input(*dimensions[1:])


def _write_convolution(operation: Convolution) -> Values:
    values: dict[str, Any] = {"num_output": operation.outputs, "bias_term": operation.bias, "pad": operation.pad}
    values |= {"kernel_size": operation.kernel, "stride": operation.stride}
    return {name: [value] for name, value in values.items()}


def _write_pooling(operation: Pooling) -> Values:
    values: dict[str, Any] = {"pool": "MAX" if operation.kind == "max" else "AVE"}
    if operation.whole_map:
        values["global_pooling"] = True
    else:
        values |= {"kernel_size": operation.kernel, "stride": operation.stride}
    if operation.pad:
        values["pad"] = operation.pad
    if operation.floor:
        values["round_mode"] = "FLOOR"
    return {name: [value] for name, value in values.items()}


def _window(values: Mapping[str, list[Any]], name: str, short: str, default: int | None, lowest: int) -> int:
    """Return the side of a square: one value, the same for both directions, or a value a direction."""
    found = set(values.get(name, [])) | {
        value for side in ("h", "w") for value in (values.get(f"{short}_{side}", [])[-1:] if short else [])
    }
    if not found and default is not None:
        return default
    _require(len(found) == 1, f"has {name} {sorted(found) or 'nowhere'}; it is one number, the same in both directions")
    value = found.pop()
    _require(lowest <= value <= _LARGEST_WINDOW, f"has {name} {value}; it is {lowest} to {_LARGEST_WINDOW}")
    return value


def _integer(values: Values, name: str, default: int | None, lowest: int, highest: int) -> int:
    value = last(values, name, default)
    _require(value is not None, f"lacks {name}")
    _require(lowest <= value <= highest, f"has {name} {value}; it is {lowest} to {highest}")
    return value


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise FormatError(reason)
