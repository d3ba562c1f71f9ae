"""Caffe nets read into our terms and written from them: weights, deploy.prototxt and mean image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnets.models.interop.caffe.deploy import deploy
from resnets.models.interop.caffe.executor import CaffeNet
from resnets.models.interop.caffe.graph import connect, match, recognise
from resnets.models.interop.caffe.layers import has_graph, read_blobs, read_layers, write_layers
from resnets.models.interop.caffe.mean import centre, read_mean, write_mean
from resnets.models.interop.caffe.named import fill, named_layers, variant
from resnets.models.interop.caffe.operations import Convolution, Input
from resnets.models.interop.caffe.protobuf import FormatError
from resnets.models.interop.caffe.prototxt import MAX_CHARACTERS, dump, parse
from resnets.models.interop.caffe.schema import NET, Values, decode, encode
from resnets.models.interop.caffe.weights import read_weights, with_blobs
from resnets.models.interop.foreign import Foreign, Hints
from resnets.specs.catalogue import model_name, model_spec
from resnets.specs.errors import ModelError
from resnets.specs.model import ResNetSpec, VGGSpec
from resnets.specs.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.models.interop.caffe.operations import Layer
    from resnets.specs.model import ModelSpec

WEIGHTS, DEPLOY, MEAN = "net.caffemodel", "deploy.prototxt", "mean.binaryproto"
"""Names of the files that `write` writes."""
_MAX_BYTES = (1 << 31) - 1
"""Where messages of protocol buffers end."""
_RESIZE_PX, _CROP_PX = 256, 224
"""The authors' single view (their released models; Sec. 3.4)."""


def read(path: Path, hints: Hints | None = None) -> Foreign:
    """Return a residual net, plain net or VGG of Caffe.

    The graph is that of the .prototxt that lies in the folder or is named as the weights are (X.prototxt for
    X.caffemodel, X-deploy.prototxt for X-model.caffemodel); without one, that of the .caffemodel. From it follows the
    variant, whatever the layers are called. A .caffemodel may hold no graph, only weights by name: then the names have
    to be those of the authors' models, and `hints.model` has to say the variant.

    Preprocessing is known where a folder has a mean image (.binaryproto) and the net takes 224 x 224 pixels: the
    centre crop of an image resized to 256, as the authors tested, or to `hints.resize_px`.

    Args:
        path: a .caffemodel, or a folder with one.
        hints: `model` has to agree with the graph; `color` "rgb" is for a net that was trained on RGB.

    Raises:
        ModelError: a file is missing or damaged, or holds a net that is none of ours; the message names the layer.
        SpecError: there is no model of the hinted name.
    """
    hints = hints or Hints()
    weights_path, graph_path, mean_path = _find(path)
    try:
        net = decode(_read_bytes(weights_path), NET)
    except FormatError as error:
        raise _unreadable(weights_path, error) from error
    try:
        if graph_path is not None:
            layers = fill(read_layers(_read_graph(graph_path)), read_blobs(net))
        elif has_graph(net):
            layers = read_layers(net)
        else:
            return _read_named(path, read_blobs(net), hints)
        return _read_graph_of(path, layers, hints, mean_path)
    except FormatError as error:
        raise _unreadable(weights_path, error) from error


def write(path: Path, net: Foreign) -> None:
    """Write a folder: net.caffemodel, deploy.prototxt and, where a mean image is subtracted, mean.binaryproto.

    Layers have the names of the authors' models, and the first convolution takes BGR. A net with torchvision's pool
    after conv1 needs a Caffe that knows `round_mode` (BVLC's since 2018); all others run in any Caffe.

    Raises:
        ModelError: Caffe has no layers for the net.
        OSError: the folder or a file cannot be written.
    """
    if net.spec is None:
        raise ModelError(f"{net.source} cannot be written for Caffe: its variant is not known.")
    if net.mean_image is not None and net.mean_image.shape[2] != 3:
        raise ModelError("Caffe cannot express this net: its mean image has one channel, and Caffe's have three.")
    side = net.preprocess.crop_px if net.preprocess else None
    try:
        layers = with_blobs(deploy(net.spec, side), net.spec, net.weights)
    except FormatError as error:
        raise ModelError(f"Caffe cannot express this net: {str(error).rstrip('.')}.") from error
    name = model_name(net.spec)
    path.mkdir(parents=True, exist_ok=True)
    with (path / WEIGHTS).open("wb") as file:
        file.writelines(encode(write_layers(name, layers, weights=True), NET))
    text = _comment(net) + dump(write_layers(name, layers, weights=False), NET)
    (path / DEPLOY).write_text(text, encoding="utf-8")
    if net.mean_image is not None:
        write_mean(path / MEAN, net.mean_image)


def check_written(path: Path, net: Foreign) -> None:
    """Compare what the files of `write` say about images with what they were to say, which `read` returns in part.

    Raises:
        ModelError: the size of the images, the comment or the mean image is another.
    """
    text, graph = (path / DEPLOY).read_text(encoding="utf-8"), _read_graph(path / DEPLOY)
    (images,) = (layer.operation for layer in read_layers(graph) if isinstance(layer.operation, Input))
    side = net.preprocess.crop_px if net.preprocess else images.height
    if not text.startswith(_comment(net)) or (images.height, images.width) != (side, side):
        raise ModelError(f"{path / DEPLOY} says something else about images or licence than it should.")
    if net.mean_image is not None and not np.array_equal(read_mean(path / MEAN)[:, :, ::-1], net.mean_image):
        raise ModelError(f"{path / MEAN} is not the mean image that it should be.")


def _read_graph_of(path: Path, layers: Sequence[Layer], hints: Hints, mean_path: Path | None) -> Foreign:
    graph = connect(layers)
    first = next((node.layers[0] for node in graph.nodes if isinstance(node.operation, Convolution)), None)
    if first is None or not first.blobs or first.blobs[0].ndim != 4:
        raise FormatError("it has no convolution with weights")
    channels = first.blobs[0].shape[1]
    spec = recognise(graph, channels)
    if hints.model is not None:
        spec = dataclasses.replace(_hinted(hints.model), num_classes=spec.num_classes, in_channels=channels)
    pairs = match(graph, spec)
    bgr = hints.color != "rgb"
    preprocess, mean_image = None, None
    if mean_path is not None and channels == 3 and graph.images.height in (0, _CROP_PX):
        resize_px = max(hints.resize_px or _RESIZE_PX, _CROP_PX)
        preprocess = Preprocess(resize_px=resize_px, crop_px=_CROP_PX, mean_image=True)
        mean = read_mean(mean_path)
        mean_image = centre(mean[:, :, ::-1] if bgr else mean, _CROP_PX, str(mean_path))
    return Foreign(
        format="caffe",
        source=str(path),
        weights=read_weights(pairs, spec, bgr=bgr),
        spec=spec,
        preprocess=preprocess,
        mean_image=mean_image,
        mean_files=_mean_files(path) if preprocess is None else (),
        reference=CaffeNet(layers, str(path), bgr=bgr),
    )


def _read_named(path: Path, blobs: dict[str, tuple[np.ndarray, ...]], hints: Hints) -> Foreign:
    """Return a net of which only weights and names are known."""
    spec, stand_in, missing = variant(blobs, hints, str(path))
    layers = named_layers(stand_in, blobs)
    weights = read_weights(match(connect(layers), stand_in), stand_in, bgr=hints.color != "rgb")
    reference = CaffeNet(layers, str(path), bgr=hints.color != "rgb") if spec is not None else None
    return Foreign(
        format="caffe",
        source=str(path),
        weights=weights,
        spec=spec,
        missing=missing,
        mean_files=_mean_files(path),
        reference=reference,
    )


def _hinted(model: str | ModelSpec | Any) -> ResNetSpec | VGGSpec:
    spec = model_spec(model) if isinstance(model, str) else model
    if not isinstance(spec, ResNetSpec | VGGSpec):
        raise FormatError(f"it is a residual net, plain net or VGG, not {model_name(spec)}")
    return spec


def _find(path: Path) -> tuple[Path, Path | None, Path | None]:
    """Return the files of weights, graph and mean image; None for one that is not there."""
    if path.is_file():
        return path, _graph_beside(path), None
    if not path.is_dir():
        raise ModelError(f"There is no file {path}; name a .caffemodel, or a folder with one.")
    weights = sorted(path.glob("*.caffemodel"))
    if len(weights) != 1:
        raise ModelError(f"{path} has {len(weights)} files that end in .caffemodel, and a net is one; name the file.")
    graphs, means = sorted(path.glob("*.prototxt")), sorted(path.glob("*.binaryproto"))
    graph = graphs[0] if len(graphs) == 1 else _graph_beside(weights[0])
    return weights[0], graph, means[0] if len(means) == 1 else None


def _mean_files(path: Path) -> tuple[str, ...]:
    folder = path if path.is_dir() else path.parent
    return tuple(str(file) for file in sorted(folder.glob("*.binaryproto")))


def _graph_beside(weights: Path) -> Path | None:
    names = f"{weights.stem}.prototxt", f"{weights.stem.removesuffix('-model')}-deploy.prototxt"
    return next((path for path in (weights.with_name(name) for name in names) if path.is_file()), None)


def _read_bytes(path: Path) -> memoryview:
    if path.suffix == ".prototxt":
        raise ModelError(f"{path} has a net without weights; name the .caffemodel.")
    try:
        size = path.stat().st_size
        if not 0 < size <= _MAX_BYTES:
            raise ModelError(f"{path} has {size:,} bytes; a .caffemodel has 1 to {_MAX_BYTES:,}.")
        return memoryview(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or error}).") from error


def _read_graph(path: Path) -> Values:
    try:
        with path.open(encoding="utf-8") as file:
            return parse(file.read(MAX_CHARACTERS + 1), NET)
    except (OSError, UnicodeDecodeError, FormatError) as error:
        raise ModelError(f"{path} cannot be read as a Caffe net: {error}.") from error


def _unreadable(path: Path, error: FormatError) -> ModelError:
    return ModelError(f"{path} cannot be read as a net of the paper: {str(error).rstrip('.')}.")


def _comment(net: Foreign) -> str:
    """Return what the layers do not say, as lines that Caffe ignores."""
    lines = [f"{net.source}, written by resnets"]
    preprocess = net.preprocess
    if preprocess is not None:
        sizes = f"shorter side resized to {preprocess.resize_px}, centre crop {preprocess.crop_px}"
        mean, std = (", ".join(f"{value:g}" for value in own[::-1]) for own in (preprocess.mean, preprocess.std))
        mean = f"the mean image {MEAN}" if preprocess.mean_image else f"the mean {mean}"
        order = "blue, green, red" if preprocess.channels == 3 else "gray"
        divided = "" if set(preprocess.std) == {1.0} else f", then divided by {std}"
        lines.append(f"Images: {sizes}; {order} in 0..255, less {mean}{divided}.")
    if net.licence:
        lines.append(f"Licence of the weights: {net.licence}")
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)
