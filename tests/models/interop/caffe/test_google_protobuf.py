"""Our files read and written by Google's library, from its own statement of the messages."""

import warnings

import numpy as np
import pytest

from resnets.models.interop import caffe
from resnets.models.interop.caffe.mean import read_mean, write_mean

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own generated code
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory, text_format, unknown_fields

ENUMS = {"PoolMethod": ["MAX", "AVE", "STOCHASTIC"], "RoundMode": ["CEIL", "FLOOR"], "Op": ["PROD", "SUM", "MAX_"]}
MESSAGES = {
    "BlobShape": "dim=1 repeated packed int64",
    "BlobProto": "num=1 int32; channels=2 int32; height=3 int32; width=4 int32; data=5 repeated packed float; "
    "shape=7 BlobShape; double_data=8 repeated packed double",
    "ConvolutionParameter": "num_output=1 uint32; bias_term=2 bool; pad=3 repeated uint32; "
    "kernel_size=4 repeated uint32; group=5 uint32; stride=6 repeated uint32",
    "PoolingParameter": "pool=1 PoolMethod; kernel_size=2 uint32; stride=3 uint32; pad=4 uint32; "
    "global_pooling=12 bool; round_mode=13 RoundMode",
    "InnerProductParameter": "num_output=1 uint32; bias_term=2 bool",
    "BatchNormParameter": "use_global_stats=1 bool; eps=3 float",
    "ScaleParameter": "bias_term=4 bool",
    "EltwiseParameter": "operation=1 Op",
    "DropoutParameter": "dropout_ratio=1 float",
    "InputParameter": "shape=1 repeated BlobShape",
    "LayerParameter": "name=1 string; type=2 string; bottom=3 repeated string; top=4 repeated string; "
    "blobs=7 repeated BlobProto; convolution_param=106 ConvolutionParameter; dropout_param=108 DropoutParameter; "
    "eltwise_param=110 EltwiseParameter; inner_product_param=117 InnerProductParameter; "
    "pooling_param=121 PoolingParameter; batch_norm_param=139 BatchNormParameter; scale_param=142 ScaleParameter; "
    "input_param=143 InputParameter",
    "NetParameter": "name=1 string; layer=100 repeated LayerParameter",
}


@pytest.fixture(scope="module")
def messages():
    """Google's classes of the messages, by name."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields.split("; "):
            (left, number), *words = text.split(" ")[0].split("="), *text.split(" ")[1:]
            field = message.field.add(name=left, number=int(number))
            field.label = field.LABEL_REPEATED if "repeated" in words else field.LABEL_OPTIONAL
            field.options.packed = "packed" in words
            if words[-1] in ENUMS or words[-1] in MESSAGES:
                field.type = field.TYPE_ENUM if words[-1] in ENUMS else field.TYPE_MESSAGE
                field.type_name = f".caffe.{words[-1]}"
            else:
                field.type = getattr(field, f"TYPE_{words[-1].upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in MESSAGES}


@pytest.fixture
def written(small, net, outgoing, tmp_path):
    """A net of ours, and the folder that it is written to."""
    model = net(small(block="bottleneck", stem_pool="torchvision", stride_on="3x3"))
    caffe.write(tmp_path / "c", outgoing(model))
    return model, tmp_path / "c"


def test_google_reads_our_weights_and_our_text_as_the_same_net(messages, written):
    model, folder = written
    binary = messages["NetParameter"]()
    binary.ParseFromString((folder / "net.caffemodel").read_bytes())
    weights = {layer.name: layer.blobs for layer in binary.layer}
    for ours, theirs, place in (
        ("layer1.0.conv2.weight", "res2a_branch2b", 0), ("layer2.0.downsample.1.running_var", "bn3a_branch1", 1),
        ("bn1.weight", "scale_conv1", 0), ("fc.bias", "fc3", 1),
    ):  # fmt: skip
        expected = model.state_dict()[ours].numpy()
        blob = weights[theirs][place]
        assert tuple(blob.shape.dim) == expected.shape
        assert np.array_equal(np.array(blob.data, np.float32).reshape(expected.shape), expected)
    for layer in binary.layer:
        layer.ClearField("blobs")
        assert not len(unknown_fields.UnknownFieldSet(layer))
    text = messages["NetParameter"]()
    text_format.Parse((folder / "deploy.prototxt").read_text(), text)
    assert text == binary


def test_what_google_writes_is_read_bit_for_bit(messages, written, equal_weights):
    model, folder = written
    binary = messages["NetParameter"]()
    binary.ParseFromString((folder / "net.caffemodel").read_bytes())
    for index, layer in enumerate(binary.layer):
        for blob in layer.blobs:
            if index % 2:  # as doubles, and with the older form of the shape
                blob.double_data.extend(blob.data)
                blob.ClearField("data")
                sides = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
                blob.num, blob.channels, blob.height, blob.width = sides
                blob.ClearField("shape")
    again = folder / "again.caffemodel"
    again.write_bytes(binary.SerializeToString())
    found = caffe.read(again)
    assert found.spec == model.spec
    expected = {**model.state_dict(), **{k: v for k, v in found.weights.items() if k.endswith("num_batches_tracked")}}
    assert equal_weights(dict(found.weights), expected)
    (folder / "again.prototxt").write_text(text_format.MessageToString(_without_blobs(binary)))
    assert caffe.read(again).spec == model.spec


def test_mean_images_go_to_google_and_back(messages, tmp_path):
    image = np.random.default_rng(0).uniform(0, 255, (4, 5, 3)).astype(np.float32)
    path = tmp_path / "mean.binaryproto"
    write_mean(path, image)
    blob = messages["BlobProto"]()
    blob.ParseFromString(path.read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 4, 5)
    planes = np.array(blob.data, np.float32).reshape(3, 4, 5)
    assert np.array_equal(planes[::-1].transpose(1, 2, 0), image)
    path.write_bytes(blob.SerializeToString())
    assert np.array_equal(read_mean(path)[:, :, ::-1], image)


def _without_blobs(net):
    copy = type(net)()
    copy.CopyFrom(net)
    for layer in copy.layer:
        layer.ClearField("blobs")
    return copy
