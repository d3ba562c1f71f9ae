import dataclasses

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from resnets.models.interop.foreign import Hints
from resnets.models.interop.torchvision import obstacle, read, reference, write
from resnets.specs.catalogue import model_spec, names
from resnets.specs.errors import ModelError

EXPRESSIBLE = {f"resnet{depth}-v1.5" for depth in (18, 34, 50, 101, 152)} | {"vgg16", "vgg19"}


def test_torchvision_expresses_v1_5_and_vgg_and_nothing_else_of_the_catalogue():
    assert {name for name in names() if obstacle(model_spec(name)) is None} == EXPRESSIBLE


@pytest.mark.parametrize(("depth", "suffix"), [(18, ".safetensors"), (50, ".pth")])
def test_torchvision_loads_what_is_written_and_gives_our_logits(net, outgoing, tmp_path, depth, suffix):
    model, path = net(model_spec(f"resnet{depth}-v1.5", num_classes=11)), tmp_path / f"w{suffix}"
    write(path, outgoing(model))
    loaded = torch.load(path, weights_only=True) if suffix == ".pth" else None
    theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=11).eval()
    if loaded is None:
        from safetensors.torch import load_file

        loaded = load_file(path)
    theirs.load_state_dict(loaded, strict=True)
    images = torch.randn(2, 3, 96, 80)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(theirs(images), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_ours_to_torchvision_to_ours_is_bit_exact(net, outgoing, tmp_path, equal_weights, depth):
    model, path = net(model_spec(f"resnet{depth}-v1.5", num_classes=4)), tmp_path / "w.pth"
    write(path, outgoing(model))
    back = read(path, Hints(model=f"resnet{depth}-v1.5"))
    assert equal_weights(back.weights, model.state_dict())
    assert back.spec == model.spec


def test_the_declared_format_decides_the_variant_and_a_bare_file_does_not(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), path)
    assert read(path, Hints(format="torchvision")).spec == model_spec("resnet18-v1.5", num_classes=2)
    bare = read(path, Hints())
    assert (bare.spec, bare.reference) == (None, None)
    assert bare.missing == (
        "--model NAME (resnet18-v1.5: files of torchvision and timm, which --from torchvision says as well; "
        "resnet18: the authors' pooling)",
    )
    with pytest.raises(ModelError, match="stem_pool torchvision, not official"):
        read(path, Hints(format="torchvision", model="resnet18"))


def test_the_reference_is_torchvisions_own_forward_pass(tmp_path):
    path = tmp_path / "w.pth"
    theirs = torchvision.models.resnet18(num_classes=3).eval()
    torch.save(theirs.state_dict(), path)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(read(path, Hints(model="resnet18-v1.5")).reference(images), theirs(images))


def test_the_papers_variant_in_torchvisions_names_has_another_reference(net):
    model = net(model_spec("resnet50", blocks=(1, 1, 1, 1), num_classes=3))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(reference(model.state_dict(), model.spec)(images), model(images))
        other = reference(model.state_dict(), model_spec("resnet50-v1.5", blocks=(1, 1, 1, 1), num_classes=3))(images)
        assert (other - model(images)).abs().max() > 1e-3


def test_vgg_is_recognised_by_its_layers():
    from resnets.models.interop.torchvision import _vgg

    for depth in (16, 19):
        with torch.device("meta"):
            weights = torchvision.models.get_model(f"vgg{depth}", num_classes=6).state_dict()
        assert _vgg(weights, Hints(), "w.pth") == model_spec(f"vgg{depth}", num_classes=6)
        other = {16: "vgg19", 19: "vgg16"}[depth]
        with pytest.raises(ModelError, match=f"is vgg{depth}, not {other}"):
            _vgg(weights, Hints(model=other), "w.pth")
    with torch.device("meta"):
        weights = torchvision.models.vgg16_bn().state_dict()
    with pytest.raises(ModelError, match="neither"):
        _vgg(weights, Hints(), "w.pth")


@pytest.mark.parametrize(
    "name", ["resnet50", "resnet18-a", "plain18", "resnet34-c", "cifar-resnet20", "cifar-highway20"]
)
def test_a_net_that_torchvision_lacks_is_refused_with_the_reason_and_nothing_is_written(net, outgoing, tmp_path, name):
    with pytest.raises(ModelError, match=f"torchvision cannot express {name}: "):
        write(tmp_path / "w.pth", outgoing(net(model_spec(name, num_classes=2))))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("resnet18", "train with --model.stem-pool torchvision to have"),
        ("resnet50", "train with --model.stem-pool torchvision and --model.stride-on 3x3 to have"),
    ],
)
def test_what_to_train_for_a_net_that_torchvision_has_is_said_and_works(name, flags):
    spec = model_spec(name)
    assert "pads the pooling after conv1 by one pixel, and this net does not" in obstacle(spec)
    assert flags in obstacle(spec)
    stride_on = "3x3" if "stride-on" in flags else spec.stride_on
    assert obstacle(dataclasses.replace(spec, stem_pool="torchvision", stride_on=stride_on)) is None


def test_2_000_damaged_files_are_refused_or_give_a_net_that_fits(small, net, quick_folder, mutated):
    spec = small(blocks=(1,), widths=(2,))
    path = quick_folder / "w.safetensors"
    weights = {name: value for name, value in net(spec).state_dict().items() if "num_batches" not in name}
    save_file(weights, path)
    shapes = {name: value.shape for name, value in net(spec).state_dict().items()}
    refused = fitting = 0
    for _, content in zip(range(2_000), mutated(path.read_bytes()), strict=False):
        path.write_bytes(content)
        try:
            foreign = read(path, Hints(model=spec))
        except ModelError:
            refused += 1
            continue
        if {name: value.shape for name, value in foreign.weights.items()} == shapes:
            assert foreign.spec == spec
            fitting += 1
            if fitting <= 50:
                assert foreign.reference(torch.zeros(1, 3, 8, 8)).shape == (1, 3)
    assert fitting > 50
    assert 200 < refused < 2_000
