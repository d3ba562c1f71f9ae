"""Three dialects of CIFAR checkpoints, each against a forward pass written here as its training program has it."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from resnets.models.build import build
from resnets.models.interop.cifar import obstacle, read, write
from resnets.models.interop.foreign import Hints
from resnets.specs.catalogue import model_spec, names
from resnets.specs.errors import ModelError
from resnets.specs.model import ResNetSpec


def conv_bn(w, conv, bn, x, stride=1):
    kernel = w[f"{conv}.weight"]
    x = F.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)
    scale = w[f"{bn}.weight"] / torch.sqrt(w[f"{bn}.running_var"] + 1e-5)
    shift = w[f"{bn}.bias"] - w[f"{bn}.running_mean"] * scale
    return x * scale[None, :, None, None] + shift[None, :, None, None]


def basic_net(w, x, stages, shortcut, head):
    x = conv_bn(w, "conv1", "bn1", x).relu()
    for stage, blocks in enumerate(stages, start=1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            out = conv_bn(w, f"{name}.conv1", f"{name}.bn1", x, stride).relu()
            out = conv_bn(w, f"{name}.conv2", f"{name}.bn2", out)
            x = (out + shortcut(w, name, x, stride)).relu()
    x = F.avg_pool2d(x, x.shape[-1]).flatten(1)
    return x @ w[f"{head}.weight"].T + w[f"{head}.bias"]


def zeros_on_both_sides(w, name, x, stride):
    """Option A as a lambda without weights: a quarter of the new width on each side."""
    planes = x.shape[1] * 2
    return x if stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))


def projected(prefix):
    def shortcut(w, name, x, stride):
        if f"{name}.{prefix}.0.weight" not in w:
            return x
        return conv_bn(w, f"{name}.{prefix}.0", f"{name}.{prefix}.1", x, stride)

    return shortcut


def random_weights(spec, head, shortcut):
    """Weights under a dialect's names, drawn here and not by our initialisation."""
    with torch.device("meta"):
        shapes = {name: value for name, value in build(spec).state_dict().items() if "num_batches" not in name}
    weights = {}
    for name, value in shapes.items():
        name = name.replace("fc.", f"{head}.").replace("downsample", shortcut)
        if value.ndim == 4:
            weights[name] = torch.randn(value.shape) * (2 / value[0].numel()) ** 0.5
        else:
            weights[name] = torch.rand(value.shape) + (0.5 if "running_var" in name or "weight" in name else -0.5)
    return weights


def check_logits(spec, foreign, expected, images):
    assert foreign.spec == spec
    model = build(spec).eval()
    model.load_state_dict(foreign.weights, strict=True)
    with torch.no_grad():
        logits = model(images)
        tolerance = 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)
        torch.testing.assert_close(foreign.reference(images), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("depth", [20, 56])
def test_option_a_with_zeros_on_both_sides_from_data_parallel_under_state_dict(tmp_path, depth):
    spec = model_spec(f"cifar-resnet{depth}", zero_pad="both")
    w, path = random_weights(spec, "linear", "shortcut"), tmp_path / "model.th.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in w.items()}, "best_prec1": 91.6}, path)
    images = torch.randn(3, 3, 32, 32)
    foreign = read(path, Hints(model=f"cifar-resnet{depth}", zero_pad="both"))
    check_logits(spec, foreign, basic_net(w, images, spec.blocks, zeros_on_both_sides, "linear"), images)


def test_the_wide_resnet18_with_projections_under_net_needs_no_hint(tmp_path):
    spec = ResNetSpec(
        block="basic", blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), stem="3x3", shortcut="B", num_classes=10
    )
    w, path = random_weights(spec, "linear", "shortcut"), tmp_path / "ckpt.pth"
    torch.save({"net": {f"module.{name}": value for name, value in w.items()}, "acc": 95.1, "epoch": 199}, path)
    images = torch.randn(2, 3, 32, 32)
    check_logits(spec, read(path, Hints()), basic_net(w, images, spec.blocks, projected("shortcut"), "linear"), images)


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_torchvisions_names_with_projections_bare_or_compiled_need_no_hint(tmp_path, prefix):
    spec = model_spec("cifar-resnet20-b", num_classes=100)
    w, path = random_weights(spec, "fc", "downsample"), tmp_path / "cifar100_resnet20.pt"
    torch.save({f"{prefix}{name}": value for name, value in w.items()}, path)
    images = torch.randn(3, 3, 32, 32)
    check_logits(spec, read(path, Hints()), basic_net(w, images, spec.blocks, projected("downsample"), "fc"), images)


def test_zeros_on_the_wrong_side_give_other_logits(tmp_path):
    spec = model_spec("cifar-resnet20", zero_pad="both")
    w, path = random_weights(spec, "linear", "shortcut"), tmp_path / "w.pth"
    torch.save(w, path)
    images = torch.randn(2, 3, 32, 32)
    other = read(path, Hints(model="cifar-resnet20", zero_pad="end")).reference(images)
    expected = basic_net(w, images, spec.blocks, zeros_on_both_sides, "linear")
    assert (other - expected).abs().max() > 1e-2 * expected.abs().max()


def test_what_names_and_shapes_cannot_tell_is_asked_for(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(random_weights(model_spec("cifar-resnet20"), "linear", "shortcut"), path)
    foreign = read(path, Hints())
    assert foreign.spec is None
    (flag,) = foreign.missing
    assert flag.startswith(
        "--model NAME (cifar-resnet20: identity shortcuts padded with zeros (give --zero-pad end|both"
    )
    assert flag.endswith("; cifar-plain20: no shortcuts)")


@pytest.mark.parametrize(
    ("spec", "hints"),
    [
        (model_spec("cifar-resnet20", zero_pad="both"), Hints(model="cifar-resnet20", zero_pad="both")),
        (model_spec("cifar-resnet32-b", num_classes=100), Hints()),
    ],
)
def test_ours_to_cifar_to_ours_is_bit_exact(net, outgoing, tmp_path, equal_weights, spec, hints):
    model, path = net(spec), tmp_path / "w.pth"
    write(path, outgoing(model))
    stored = torch.load(path, weights_only=True)
    assert "linear.weight" in stored
    assert not any(name.startswith("fc.") or "downsample" in name for name in stored)
    back = read(path, hints)
    assert back.spec == spec
    assert equal_weights(back.weights, model.state_dict())


def test_the_common_programs_express_options_a_on_both_sides_and_b(small):
    assert {name for name in names() if obstacle(model_spec(name)) is None} == set()
    assert obstacle(model_spec("cifar-resnet20", zero_pad="both")) is None
    assert obstacle(model_spec("cifar-resnet20-b")) is None
    assert obstacle(small(block="bottleneck", stem="3x3", stride_on="3x3")) is None
    refused = {
        "all at the end": model_spec("cifar-resnet20"),
        "option C": model_spec("cifar-resnet20-c"),
        "residual nets only": model_spec("cifar-plain20"),
        "3x3 stem": model_spec("resnet18"),
        "3 channels": model_spec("cifar-resnet20-b", in_channels=1),
        "first 1x1": small(block="bottleneck", stem="3x3"),
        "basic blocks only": small(block="bottleneck", stem="3x3", shortcut="A", zero_pad="both", stride_on="3x3"),
    }
    for words, spec in refused.items():
        assert words in obstacle(spec)


def test_a_plain_net_is_refused_and_nothing_is_written(net, outgoing, tmp_path):
    with pytest.raises(ModelError, match="cannot express cifar-plain20: they have residual nets only"):
        write(tmp_path / "w.pth", outgoing(net(model_spec("cifar-plain20"))))
    assert not list(tmp_path.iterdir())


def test_a_layer_under_both_names_and_a_large_stem_are_refused(tmp_path, net):
    w = random_weights(model_spec("cifar-resnet20-b"), "linear", "shortcut")
    torch.save({**w, "fc.weight": w["linear.weight"]}, tmp_path / "twice.pth")
    with pytest.raises(ModelError, match="twice"):
        read(tmp_path / "twice.pth", Hints())
    torch.save(net(model_spec("resnet18", num_classes=2)).state_dict(), tmp_path / "large.pth")
    with pytest.raises(ModelError, match="7x7 stem"):
        read(tmp_path / "large.pth", Hints())


def test_1_000_damaged_checkpoints_are_refused_or_read_exactly(small, net, quick_folder, mutated, equal_weights):
    model, path = net(small(stem="3x3", blocks=(1, 1), widths=(2, 4))), quick_folder / "w.pth"
    torch.save({"net": {f"module.{name}": value for name, value in model.state_dict().items()}}, path)
    refused = 0
    for _, content in zip(range(1_000), mutated(path.read_bytes()), strict=False):
        path.write_bytes(content)
        try:
            foreign = read(path, Hints())
        except ModelError:
            refused += 1
            continue
        assert equal_weights(foreign.weights, model.state_dict())
    assert 100 < refused < 1_000
