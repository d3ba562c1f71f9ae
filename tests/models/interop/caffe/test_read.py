"""Caffe files of all ages and forms become our nets: the same weights, the same variant, the same logits."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from resnets.models.build import build
from resnets.models.interop import caffe
from resnets.models.interop.caffe import convert
from resnets.models.interop.caffe.operations import (
    Convolution,
    Copy,
    Ending,
    InnerProduct,
    Input,
    Layer,
    Pooling,
    ReLU,
    Scale,
)
from resnets.models.interop.caffe.schema import NET
from resnets.models.interop.foreign import Hints
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import ModelError
from resnets.specs.model import VGGSpec
from resnets.specs.preprocess import Preprocess

IMAGE_MEAN = Preprocess(resize_px=256, crop_px=224, mean_image=True)

VARIANTS = [
    {"stem_pool": "official"},
    {"stem_pool": "torchvision", "stride_on": "3x3"},
    {"shortcut": "C", "stem_pool": "official"},
    {"shortcut": "none", "stem_pool": "official"},
    {"stem": "3x3", "stride_on": "1x1"},
    {"stem": "3x3", "in_channels": 1},
    {"stem_pool": "none"},
    {"block": "bottleneck", "stem_pool": "official", "blocks": (1, 2, 1), "widths": (2, 3, 5)},
    {"block": "bottleneck", "stride_on": "3x3", "stem_pool": "torchvision"},
    {"block": "bottleneck", "stem_pool": "official", "stride_on": "3x3", "shortcut": "C"},
    {"blocks": (1, 8, 27), "widths": (1, 2, 2), "stem": "3x3"},
    {"blocks": (1,), "widths": (3,), "stem": "3x3"},
]


def without_counters(weights):
    return {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}


def logits(foreign, images):
    """Return the logits of our net with the weights of a foreign one, and those of its reference."""
    with torch.device("meta"):
        model = build(foreign.spec).eval()
    model.load_state_dict(foreign.weights, strict=True, assign=True)
    with torch.no_grad():
        return model.double()(images.double()), foreign.reference(images.double())


@pytest.mark.parametrize("fields", VARIANTS)
def test_ours_to_caffe_to_ours_is_bit_exact(small, net, outgoing, equal_weights, tmp_path, fields):
    model = net(small(**fields))
    caffe.write(tmp_path / "c", outgoing(model))
    again = caffe.read(tmp_path / "c")
    assert again.spec == model.spec or (again.spec.block, fields.get("stride_on")) == ("basic", "3x3")
    assert again.spec == dataclasses.replace(model.spec, stride_on=again.spec.stride_on)
    assert equal_weights(without_counters(again.weights), without_counters(model.state_dict()))
    assert set(again.weights) == set(model.state_dict())
    assert again.missing == ()
    alone = caffe.read(tmp_path / "c" / "net.caffemodel")  # the file has the graph, too
    assert alone.spec == again.spec
    assert equal_weights(dict(alone.weights), dict(again.weights))


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet18-v1.5", "resnet18-c", "plain18", "cifar-resnet20-b", "cifar-plain20"]
)
def test_nets_of_the_catalogue_come_back_as_themselves(net, outgoing, equal_weights, tmp_path, name):
    model = net(model_spec(name))
    caffe.write(tmp_path / "c", dataclasses.replace(outgoing(model), preprocess=None))
    again = caffe.read(tmp_path / "c")
    assert again.spec == model.spec
    assert equal_weights(without_counters(again.weights), without_counters(model.state_dict()))


def test_vgg_comes_back_bit_for_bit(outgoing, equal_weights, tmp_path):
    spec = VGGSpec(convs=(1, 2), widths=(3, 4), hidden=5, dropout=0.1, num_classes=3)
    model = build(spec, seed=0).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.01)
    caffe.write(tmp_path / "c", dataclasses.replace(outgoing(model), preprocess=None))
    again = caffe.read(tmp_path / "c")
    assert again.spec == spec
    assert equal_weights(dict(again.weights), model.state_dict())
    torch.testing.assert_close(*logits(again, torch.randn(2, 3, 28, 28)), rtol=1e-9, atol=1e-12)


def test_conv1_takes_bgr_in_the_file_and_rgb_in_our_net(small, net, caffe_layers, caffemodel):
    model = net(small())
    layers = caffe_layers(model)
    ours, theirs = model.state_dict()["conv1.weight"].numpy(), layers[1].blobs[0]
    assert np.array_equal(theirs, ours[:, ::-1])
    path = caffemodel(layers)
    assert np.array_equal(caffe.read(path).weights["conv1.weight"].numpy(), ours)
    rgb = caffe.read(path, Hints(color="rgb"))
    assert np.array_equal(rgb.weights["conv1.weight"].numpy(), theirs)
    torch.testing.assert_close(*logits(rgb, torch.randn(1, 3, 224, 224)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("data", ["packed", "unpacked", "doubled", "unpacked_doubles", "halves"])
@pytest.mark.parametrize("shape", ["dimensions", "legacy_dimensions"])
def test_weights_are_the_same_however_they_are_stored(
    small, net, caffe_layers, caffemodel, equal_weights, wire, data, shape
):
    model = net(small(block="bottleneck", stem_pool="official"))
    path = caffemodel(caffe_layers(model), data=getattr(wire, data), shape=getattr(wire, shape))
    found = caffe.read(path).weights
    assert equal_weights(without_counters(found), without_counters(model.state_dict()))


def test_the_bias_of_conv1_is_merged_into_the_running_mean(net, caffe_layers, caffemodel, changed, array):
    """conv1 of the authors' ResNet-50, and of no other of their nets, has a bias."""
    model = net(model_spec("resnet50", num_classes=5))
    layers = caffe_layers(model, 64)
    bias = array(64)
    weight = next(layer for layer in layers if layer.name == "conv1").blobs[0]
    with_bias = changed(layers, "conv1", operation={"bias": True}, blobs=(weight, bias))
    found = caffe.read(caffemodel(with_bias))
    assert found.spec == model.spec
    expected = model.bn1.running_mean.numpy().astype(np.float64) - bias
    assert np.array_equal(found.weights["bn1.running_mean"].numpy(), expected.astype(np.float32))
    images = torch.randn(1, 3, 64, 64)
    ours, theirs = logits(found, images)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        assert (model(images) - theirs).abs().max() > 1e-3


@pytest.mark.parametrize("factor", [1.0, 999.982, 0.25])
def test_statistics_are_divided_by_their_factor(small, net, caffe_layers, caffemodel, changed, factor):
    model = net(small(stem_pool="official"))
    layers = caffe_layers(model)
    mean, variance, _ = next(layer for layer in layers if layer.name == "bn2a_branch2a").blobs
    scaled = tuple((values * np.float32(factor)) for values in (mean, variance))
    layers = changed(layers, "bn2a_branch2a", blobs=(*scaled, np.array([factor], np.float32)))
    found = caffe.read(caffemodel(layers))
    np.testing.assert_allclose(found.weights["layer1.0.bn1.running_mean"].numpy(), mean, rtol=3e-7)
    np.testing.assert_allclose(found.weights["layer1.0.bn1.running_var"].numpy(), variance, rtol=3e-7)
    ours, theirs = logits(found, torch.randn(1, 3, 224, 224))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_factor_of_0_stands_for_statistics_of_0(small, net, caffe_layers, caffemodel, changed):
    layers = caffe_layers(net(small(stem_pool="official")))
    zero = np.zeros(1, np.float32)
    found = caffe.read(caffemodel(changed(layers, "bn_conv1", blobs=(*layers[2].blobs[:2], zero))))
    assert not found.weights["bn1.running_mean"].any()
    assert not found.weights["bn1.running_var"].any()
    torch.testing.assert_close(*logits(found, torch.randn(1, 3, 224, 224)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("epsilon", [2e-5, 1e-3, 1e-6])
def test_another_eps_is_moved_into_the_variance(small, net, caffe_layers, caffemodel, changed, wire, epsilon):
    model = net(small(stem_pool="official"))
    path = caffemodel(caffe_layers(model))
    # use_global_stats: true alone, 2 bytes, becomes use_global_stats and eps.
    old, new = wire.field(139, wire.field(1, True)), wire.field(139, wire.field(1, True) + wire.field(3, epsilon))
    content = path.read_bytes()
    assert content.count(old) >= 4
    layers = [layer.operation for layer in caffe_layers(model)]
    assert len(layers) > 4
    path.write_bytes(_with_replaced(content, old, new, wire))
    found = caffe.read(path)
    expected = model.bn1.running_var.numpy().astype(np.float64) + epsilon - 1e-5
    np.testing.assert_allclose(found.weights["bn1.running_var"].numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(*logits(found, torch.randn(1, 3, 224, 224)), rtol=1e-6, atol=1e-7)


def _with_replaced(content, old, new, wire):
    """Replace a piece in every layer of a file, and correct the lengths of the layers."""
    from resnets.models.interop.caffe.protobuf import read_fields

    return b"".join(
        wire.field(number, bytes(value).replace(old, new)) for number, _, value in read_fields(memoryview(content))
    )


def test_a_batch_norm_without_scale_has_gamma_1_and_beta_0(small, net, caffe_layers, caffemodel):
    layers = [layer for layer in caffe_layers(net(small(stem_pool="official"))) if layer.name != "scale2a_branch2b"]
    found = caffe.read(caffemodel(layers))
    assert (found.weights["layer1.0.bn2.weight"] == 1).all()
    assert (found.weights["layer1.0.bn2.bias"] == 0).all()
    torch.testing.assert_close(*logits(found, torch.randn(1, 3, 224, 224)), rtol=1e-9, atol=1e-12)


def test_names_decide_nothing_where_there_is_a_graph(small, net, caffe_layers, caffemodel, equal_weights):
    model = net(small(block="bottleneck", stem_pool="official"))
    layers = caffe_layers(model)
    numbers = {layer.name: f"layer {index}" for index, layer in enumerate(layers)}
    renamed = [
        dataclasses.replace(
            layer,
            name=numbers[layer.name],
            bottoms=tuple(reversed([numbers[name] for name in layer.bottoms])),
            tops=tuple(numbers[name] for name in layer.tops),
        )
        for layer in layers
    ]
    found = caffe.read(caffemodel(renamed))
    assert found.spec == model.spec
    assert equal_weights(without_counters(found.weights), without_counters(model.state_dict()))
    torch.testing.assert_close(*logits(found, torch.randn(1, 3, 224, 224)), rtol=1e-9, atol=1e-12)


def test_a_snapshot_of_training_is_read(small, net, caffe_layers, caffemodel, wire, equal_weights):
    """Data layers for both phases, splits where a map is used twice, loss and accuracy instead of the softmax."""
    model = net(small(stem_pool="official"))
    layers = caffe_layers(model)[1:-1]
    block = next(index for index, layer in enumerate(layers) if layer.name == "res2a_branch2a")
    split = Layer("split", Copy("Split"), ("pool1",), ("pool1_0", "pool1_1"))
    layers = [
        dataclasses.replace(
            layer,
            bottoms=tuple(
                name if name != "pool1" else "pool1_0" if layer.name == "res2a_branch2a" else "pool1_1"
                for name in layer.bottoms
            ),
        )
        for layer in layers
    ]
    layers = [*layers[:block], split, *layers[block:]]
    loss = Layer("loss", Ending("SoftmaxWithLoss"), ("fc3", "label"), ("loss",))
    accuracy = Layer("accuracy", Ending("Accuracy"), ("fc3", "label"), ("accuracy",))
    data = b"".join(
        wire.field(
            100,
            wire.field(1, "data")
            + wire.field(2, "Data")
            + wire.field(4, "data")
            + wire.field(4, "label")
            + wire.field(8, wire.field(1, phase))
            + wire.field(100, wire.field(3, 224)),
        )
        for phase in (0, 1)
    )
    found = caffe.read(caffemodel([*layers, loss, accuracy], head=data))
    assert found.spec == model.spec
    assert equal_weights(without_counters(found.weights), without_counters(model.state_dict()))
    torch.testing.assert_close(*logits(found, torch.randn(1, 3, 224, 224)), rtol=1e-9, atol=1e-12)


def test_layers_for_training_only_are_left_out(small, net, caffe_layers, caffemodel, wire):
    path = caffemodel(caffe_layers(net(small(stem_pool="official"))))
    only = wire.field(1, "extra") + wire.field(2, "LRN") + wire.field(3, "conv1") + wire.field(4, "conv1")
    for rule in (wire.field(8, wire.field(1, 0)), wire.field(9, wire.field(1, 1)), wire.field(8, wire.field(4, "x"))):
        trained = path.with_name("t.caffemodel")
        trained.write_bytes(path.read_bytes() + wire.field(100, only + rule))
        assert caffe.read(trained).spec is not None
    trained.write_bytes(path.read_bytes() + wire.field(100, only))
    with pytest.raises(ModelError, match="'LRN'"):
        caffe.read(trained)


def test_statistics_of_the_batch_in_testing_are_refused_in_binary_and_in_text(
    small, net, caffe_layers, caffemodel, outgoing, wire, tmp_path
):
    model = net(small(stem_pool="official"))
    path = caffemodel(caffe_layers(model))
    old, new = (wire.field(139, wire.field(1, stored)) for stored in (True, False))
    path.write_bytes(_with_replaced(path.read_bytes(), old, new, wire))
    bad(path, "use_global_stats: false", "layer 'bn_conv1'", "images beside it", "put a .prototxt")
    caffe.write(tmp_path / "written", outgoing(model))
    text = (tmp_path / "written" / "deploy.prototxt").read_text()
    path.with_suffix(".prototxt").write_text(text)  # what the message advises
    assert caffe.read(path).spec == model.spec
    path.with_suffix(".prototxt").write_text(text.replace("use_global_stats: true", "use_global_stats: false"))
    bad(path, "use_global_stats: false", "layer 'bn_conv1'")
    path.with_suffix(".prototxt").write_text(text.replace("use_global_stats: true", ""))  # Caffe's default in testing
    assert caffe.read(path).spec == model.spec


def test_statistics_of_the_batch_in_layers_for_training_only_are_no_matter(small, net, outgoing, tmp_path):
    model = net(small(stem_pool="official"))
    caffe.write(tmp_path / "c", outgoing(model))
    with (tmp_path / "c" / "deploy.prototxt").open("a") as file:
        file.write(
            'layer { name: "bn_conv1" type: "BatchNorm" bottom: "conv1" top: "conv1" include { phase: TRAIN }\n'
            "batch_norm_param { use_global_stats: false } }\n"
        )
    assert caffe.read(tmp_path / "c").spec == model.spec


def vgg_layers(array):
    """A VGG of two stages for 28 x 28 pixels, as files of 2014 have it, with pads and windows of the first format."""
    chain, bottom, channels = [], "data", 3
    for name, outputs in (("conv1_1", 2), ("conv2_1", 4)):
        chain.append(
            Layer(
                name,
                Convolution(outputs, 3, 1, 1, True),
                (bottom,),
                (name,),
                (array(outputs, channels, 3, 3), array(outputs)),
            )
        )
        chain.append(Layer(f"relu{name}", ReLU(), (name,), (name,)))
        chain.append(Layer(f"pool{name}", Pooling("max", 2, 2), (name,), (f"pool{name}",)))
        bottom, channels = f"pool{name}", outputs
    inputs = channels * 7 * 7
    for name, outputs in (("fc6", 5), ("fc7", 5), ("fc8", 3)):
        chain.append(Layer(name, InnerProduct(outputs), (bottom,), (name,), (array(outputs, inputs), array(outputs))))
        if name != "fc8":
            chain.append(Layer(f"relu{name}", ReLU(), (name,), (name,)))
            chain.append(Layer(f"drop{name}", Copy("Dropout", 0.5), (name,), (name,)))
        bottom, inputs = name, outputs
    return [*chain, Layer("prob", Ending("Softmax"), ("fc8",), ("prob",))]


def test_layers_of_the_first_version_are_read(caffemodel, array, wire):
    head = wire.field(3, "data") + b"".join(wire.field(4, side) for side in (10, 3, 28, 28))
    path = caffemodel(vgg_layers(array), version=1, head=head, shape=wire.legacy_dimensions)
    found = caffe.read(path)
    assert found.spec == VGGSpec(convs=(1, 1), widths=(2, 4), hidden=5, dropout=0.5, num_classes=3)
    torch.testing.assert_close(*logits(found, torch.randn(2, 3, 28, 28)), rtol=1e-9, atol=1e-12)


def test_files_of_before_layers_had_types_are_refused_with_what_to_do(tmp_path, wire):
    path = tmp_path / "x.caffemodel"
    path.write_bytes(wire.field(2, wire.field(1, wire.field(1, "conv1")) + wire.field(2, "data")))
    with pytest.raises(ModelError, match="upgrade_net_proto_binary"):
        caffe.read(path)


def test_the_graph_comes_from_the_prototxt_beside_the_weights(
    small, net, caffe_layers, caffemodel, outgoing, tmp_path, equal_weights
):
    model = net(small(block="bottleneck", stem_pool="official"))
    weights = caffemodel(caffe_layers(model), name="X-model.caffemodel", graph=False)
    caffe.write(tmp_path / "written", outgoing(model))
    text = (tmp_path / "written" / "deploy.prototxt").read_text()
    (tmp_path / "X-deploy.prototxt").write_text(text)
    found = caffe.read(weights)
    assert found.spec == model.spec
    assert equal_weights(without_counters(found.weights), without_counters(model.state_dict()))
    (tmp_path / "X-deploy.prototxt").write_text(text.replace("res2a_branch2a", "other"))
    with pytest.raises(ModelError, match="no weights for layer 'other'"):
        caffe.read(weights)
    (tmp_path / "X-deploy.prototxt").write_text(text[:-30])
    with pytest.raises(ModelError, match=r"X-deploy\.prototxt cannot be read as a Caffe net: line \d+"):
        caffe.read(weights)


def test_two_layers_of_one_name_cannot_take_weights_by_name(small, net, caffe_layers, caffemodel, outgoing, tmp_path):
    model = net(small(stem_pool="official"))
    path = caffemodel(caffe_layers(model), graph=False)
    caffe.write(tmp_path / "written", outgoing(model))
    text = (tmp_path / "written" / "deploy.prototxt").read_text()
    (tmp_path / "x.prototxt").write_text(text.replace('name: "res2a_branch2b"', 'name: "res2a_branch2a"'))
    bad(path, "two layers with weights are called 'res2a_branch2a'")
    again = path.read_bytes() + caffemodel(caffe_layers(model)[1:2], name="y.caffemodel", graph=False).read_bytes()
    (tmp_path / "x.prototxt").write_text(text)
    path.write_bytes(again)
    bad(path, "two layers with weights are called 'conv1'")


def test_weights_without_a_graph_need_the_variant(small, net, caffe_layers, caffemodel, changed, array, equal_weights):
    model = net(small(block="bottleneck", stem_pool="official"))
    layers = caffe_layers(model)
    path = caffemodel(layers, graph=False)
    unknown = caffe.read(path)
    assert unknown.spec is None
    assert unknown.reference is None
    assert "--model" in unknown.missing[0]
    assert equal_weights(without_counters(unknown.weights), without_counters(model.state_dict()))
    known = caffe.read(path, Hints(model=model.spec))
    assert known.spec == model.spec
    torch.testing.assert_close(*logits(known, torch.randn(1, 3, 224, 224)), rtol=1e-9, atol=1e-12)
    with_bias = changed(layers, "conv1", operation={"bias": True}, blobs=(layers[1].blobs[0], array(4)))
    known = caffe.read(caffemodel(with_bias, graph=False), Hints(model=model.spec))
    torch.testing.assert_close(*logits(known, torch.randn(1, 3, 224, 224)), rtol=1e-6, atol=1e-7)


def test_the_names_of_catalogued_nets_that_fit_are_listed(caffemodel, net, caffe_layers):
    path = caffemodel(caffe_layers(net(model_spec("resnet18", num_classes=7))), graph=False)
    (missing,) = caffe.read(path).missing
    assert missing == "--model NAME (resnet18: the authors' pooling; resnet18-v1.5: torchvision's pooling)"
    assert caffe.read(path, Hints(model="resnet18")).spec == model_spec("resnet18", num_classes=7)
    with pytest.raises(ModelError, match="resnet34"):
        caffe.read(path, Hints(model="resnet34"))


def test_a_hinted_model_that_is_another_variant_is_refused(small, net, caffe_layers, caffemodel):
    path = caffemodel(caffe_layers(net(small(block="bottleneck", stem_pool="official"))))
    other = small(block="bottleneck", stem_pool="official", stride_on="3x3")
    with pytest.raises(ModelError, match="layer 'res3a_branch2a' is a 1x1 convolution with 8 outputs, stride 2"):
        caffe.read(path, Hints(model=other))
    with pytest.raises(ModelError, match="layer 'conv1' is"):
        caffe.read(path, Hints(model="resnet50"))


def test_the_mean_image_goes_both_ways(net, outgoing, tmp_path):
    model = net(model_spec("resnet18"))
    image = np.random.default_rng(0).uniform(0, 255, (224, 224, 3)).astype(np.float32)
    written = dataclasses.replace(outgoing(model), preprocess=IMAGE_MEAN, mean_image=image)
    caffe.write(tmp_path / "c", written)
    found = caffe.read(tmp_path / "c")
    assert found.preprocess == written.preprocess
    assert np.array_equal(found.mean_image, image)
    assert caffe.read(tmp_path / "c" / "net.caffemodel").preprocess is None


def test_the_prototxt_says_how_images_are_prepared(small, net, outgoing, tmp_path):
    caffe.write(tmp_path / "c", dataclasses.replace(outgoing(net(small())), licence="CC BY 4.0\nlayer {"))
    text = (tmp_path / "c" / "deploy.prototxt").read_text()
    assert "less the mean 103.53, 116.28, 123.675, then divided by 57.375, 57.12, 58.395" in text
    assert "# Licence of the weights: CC BY 4.0 layer {\n" in text
    assert caffe.read(tmp_path / "c").spec is not None


@pytest.mark.parametrize("name", ["resnet34-a", "cifar-highway20"])
def test_nets_that_caffe_cannot_express_are_refused_and_nothing_is_written(net, outgoing, tmp_path, name):
    with pytest.raises(ModelError, match="Caffe cannot express this net"):
        caffe.write(tmp_path / "c", dataclasses.replace(outgoing(net(model_spec(name))), preprocess=None))
    assert not (tmp_path / "c").exists()


def bad(path, *words):
    with pytest.raises(ModelError) as caught:
        caffe.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["conv1", "bn2a_branch1", "scale2a_branch2b", "fc3"])
def test_weights_that_are_not_finite_name_their_layer(small, net, caffe_layers, caffemodel, changed, name, value):
    layers = caffe_layers(net(small(stem_pool="official", shortcut="C")))
    blobs = [blob.copy() for blob in next(layer for layer in layers if layer.name == name).blobs]
    blobs[0].flat[-1] = value
    bad(caffemodel(changed(layers, name, blobs=tuple(blobs))), f"layer '{name}'", "not finite")


def test_doubles_beyond_float32_are_refused(small, net, caffe_layers, caffemodel, changed, wire):
    layers = caffe_layers(net(small(stem_pool="official")))
    huge = layers[1].blobs[0].astype(np.float64) * 1e300
    bad(caffemodel(changed(layers, "conv1", blobs=(huge,)), data=wire.doubled), "'conv1'", "not finite")


def test_a_negative_variance_is_refused(small, net, caffe_layers, caffemodel, changed):
    layers = caffe_layers(net(small(stem_pool="official")))
    mean, variance, factor = layers[2].blobs
    bad(caffemodel(changed(layers, "bn_conv1", blobs=(mean, -variance, factor))), "'bn_conv1'", "variance")


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("conv1", {"operation": {"stride": 1}}, ("'conv1'", "7x7", "stride 1")),
        ("conv1", {"operation": {"kernel": 5, "pad": 2}}, ("'conv1'", "5x5")),
        ("conv1", {"blobs": ()}, ("no convolution with weights",)),
        ("pool1", {"operation": {"pad": 1}}, ("'pool1'", "padding 1, size rounded by ceil")),
        ("pool1", {"operation": {"kernel": 2}}, ("'pool1'", "2x2")),
        ("pool5", {"operation": {"kernel": 4}}, ("'pool5'", "average pooling 4x4")),
        ("res2a_branch2a", {"operation": {"outputs": 5}}, ("'res2a_branch2a'", "5 outputs")),
        ("res3a_branch1", {"operation": {"stride": 1}}, ("'res3a_branch1'", "stride 1")),
        ("bn2a_branch2a", {"blobs": ()}, ("'bn2a_branch2a'", "0 arrays of weights", "3")),
        ("scale2a_branch2a", {"operation": {"bias": False}}, ("'scale2a_branch2a'", "2 arrays of weights", "1")),
        ("conv1_relu", {"operation": Scale()}, ("'conv1_relu'",)),
        ("res2a_branch2a_relu", {"bottoms": ("nowhere",)}, ("'nowhere'", "no layer before it gives")),
        ("fc3", {"operation": {"outputs": 4}}, ("'fc3'", "shape")),
        ("data", {"operation": Input(3, 224, 200)}, ("224 x 200", "square")),
    ],
)  # fmt: skip
def test_another_net_names_the_layer(small, net, caffe_layers, caffemodel, changed, name, fields, words):
    layers = caffe_layers(net(small(stem_pool="official")))
    bad(caffemodel(changed(layers, name, **fields)), *words)


def test_missing_and_superfluous_layers_are_named(small, net, caffe_layers, caffemodel):
    layers = caffe_layers(net(small(stem_pool="official")))
    bad(caffemodel([layer for layer in layers if layer.name != "fc3"]), "no fully-connected layer")
    bad(caffemodel([layer for layer in layers if layer.name != "res3a_branch1"]), "'res3a_branch1'")
    bad(caffemodel([layer for layer in layers if layer.name != "conv1_relu"]), "'pool1'", "in resnet8")
    second = Layer("fc9", InnerProduct(3), ("fc3",), ("fc9",), (np.eye(3, dtype=np.float32), np.zeros(3, np.float32)))
    bad(caffemodel([*layers, second]), "layer 'fc9', a fully-connected layer with 3 outputs, has no place")
    extra = Layer("more", Pooling("max", 3), ("pool1",), ("more",))
    bad(caffemodel([*layers, extra]), "'more' does not lead to the logits")
    bad(caffemodel([*layers, layers[1]]), "conv1")


def test_merged_batch_norm_is_refused_with_the_reason(small, net, caffe_layers, caffemodel, changed, array):
    layers = [
        layer for layer in caffe_layers(net(small(stem_pool="official"))) if not layer.name.startswith(("bn", "scale"))
    ]
    bad(caffemodel(layers), "merged")


def test_weights_of_another_shape_are_refused(small, net, caffe_layers, caffemodel, changed, array, tmp_path, wire):
    layers = caffe_layers(net(small(stem_pool="official")))
    bad(caffemodel(changed(layers, "res2a_branch2a", blobs=(array(4, 4, 3, 2),))), "'res2a_branch2a'", "(4, 4, 3, 2)")
    short = caffemodel(layers, shape=lambda blob: wire.field(7, wire.field(1, b"\x07")))
    bad(short, "shape (7,)", "damaged")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([(1, 4), (4, 3), (4, 2)], "the same in both directions"), ([(1, 4)], "kernel_size nowhere"),
        ([(1, 4), (4, 7), (5, 2)], "2 groups"), ([(1, 4), (4, 7), (18, 2)], "dilation 2"),
        ([(1, 4), (4, 7), (19, 1)], "ConvolutionParameter has a field 19"),
        ([(1, 4), (4, 7), (3, 1 << 40)], "pad 1099511627776"),
        ([(4, 3)], "lacks num_output"), ([(1, 4), (4, 3), (16, 2)], "another axis"),
    ],
)  # fmt: skip
def test_convolutions_that_do_something_else_are_refused(small, net, caffe_layers, caffemodel, wire, settings, reason):
    path = caffemodel(caffe_layers(net(small(stem_pool="official"))))
    own = b"".join(wire.field(number, value) for number, value in [(1, 4), (2, False), (3, 3), (4, 7), (6, 2)])
    odd = b"".join(wire.field(number, value) for number, value in settings)
    content = path.read_bytes()
    assert content.count(own) == 1
    path.write_bytes(_with_replaced(content, wire.field(106, own), wire.field(106, odd), wire))
    bad(path, reason, "" if "field" in reason else "layer 'conv1'")


def test_files_that_are_no_nets_are_refused(tmp_path):
    for content in (b"", b"\x89PNG\r\n\x1a\n" * 20, b"PK\x03\x04" * 20, b"x" * 100, bytes(1000)):
        path = tmp_path / "x.caffemodel"
        path.write_bytes(content)
        bad(path)
    bad(tmp_path / "none.caffemodel", "There is no file")
    bad(tmp_path / "nothing")
    (tmp_path / "two.caffemodel").write_bytes(b"x")
    bad(tmp_path, "has 2 files")
    (tmp_path / "y.prototxt").write_text("name: 'a'")
    bad(tmp_path / "y.prototxt", "name the .caffemodel")


def test_damaged_files_are_refused_or_read_as_a_net(
    small, net, caffe_layers, caffemodel, mutated, monkeypatch, unchecked
):
    model = net(small(blocks=(1,), widths=(2,), stem="3x3", num_classes=2))
    path = caffemodel(caffe_layers(model))
    damaged, refused = mutated(path.read_bytes()), 0
    expected = {name: value.shape for name, value in model.state_dict().items()}
    monkeypatch.setattr(convert, "_read_bytes", lambda _: memoryview(next(damaged)))
    for _ in range(10_000):
        try:
            found = caffe.read(path)
        except ModelError:
            refused += 1
            continue
        shapes = expected
        if found.spec not in (model.spec, None):
            with torch.device("meta"):
                shapes = {name: value.shape for name, value in build(found.spec).state_dict().items()}
        assert {name: value.shape for name, value in found.weights.items()} == shapes
        assert all(value.isfinite().all() for value in found.weights.values())
    assert refused > 3_000


def test_a_damaged_prototxt_is_refused_or_read_as_a_net(
    small, net, caffe_layers, caffemodel, outgoing, mutated, unchecked, tmp_path, monkeypatch
):
    model = net(small(blocks=(1,), widths=(2,), stem="3x3", num_classes=2))
    path = caffemodel(caffe_layers(model), graph=False)
    caffe.write(tmp_path / "c", outgoing(model))
    damaged, refused = mutated((tmp_path / "c" / "deploy.prototxt").read_bytes()), 0
    (tmp_path / "x.prototxt").touch()
    weights = convert.decode(memoryview(path.read_bytes()), NET)
    monkeypatch.setattr(convert, "decode", lambda *_: weights)
    monkeypatch.setattr(convert, "_read_bytes", lambda _: memoryview(b""))
    monkeypatch.setattr(Path, "open", lambda *_, **how: io.TextIOWrapper(io.BytesIO(next(damaged)), **how))
    for _ in range(10_000):
        try:
            found = caffe.read(path)
        except ModelError:
            refused += 1
            continue
        assert set(found.weights) == set(model.state_dict())
    assert refused > 3_000
