"""Class activation maps and Grad-CAM, against the identities that define them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import nn

from resnets.analysis.attribution import class_activation_maps, grad_cam, seen
from resnets.analysis.maps import activation_maps, gradient_maps, stage_module
from resnets.analysis.overlay import overlay
from resnets.artifacts.model_folder import StoredModel
from resnets.data.preprocess import Preprocessor
from resnets.models.build import build
from resnets.specs.catalogue import model_spec
from resnets.specs.errors import DataError, ModelError, UserError
from resnets.specs.preprocess import Preprocess

NETS = ("cifar-resnet8", "cifar-plain8", "cifar-highway8", "resnet18", "plain18", "resnet50")


def net(name, classes=5):
    """Return a net whose BatchNorm statistics are those of some images, as after training."""
    model = build(model_spec(name, num_classes=classes), seed=0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        model(torch.randn(8, 3, 48, 48))
    return model.eval()


def stored_net(name="cifar-resnet8", *, color="rgb", resize_px=32, model=None):
    channels = 1 if color == "gray" else 3
    spec = model_spec(name, num_classes=5, in_channels=channels)
    preprocess = Preprocess(
        resize_px=resize_px, crop_px=32, color=color, mean=(120.0,) * channels, std=(60.0,) * channels
    )
    return StoredModel(
        model=model or build(spec, seed=0).eval(),
        spec=spec,
        preprocessor=Preprocessor(preprocess),
        classes=tuple("abcde"),
        metrics={},
    )


def images(count, height=32, width=32):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", NETS)
def test_the_mean_of_a_class_activation_map_is_the_logit_less_its_bias(name):
    model, inputs, classes = net(name), torch.randn(4, 3, 48, 48), torch.tensor([0, 4, 2, 2])
    maps = activation_maps(model, inputs, classes)
    with torch.no_grad():
        logits = model(inputs)
    shares = maps.mean((1, 2)) + model.fc.bias[classes]
    torch.testing.assert_close(shares, logits.gather(1, classes[:, None])[:, 0], rtol=1e-4, atol=1e-4)
    assert maps.shape[1:] == list(model.features(inputs).values())[-1].shape[2:]


@pytest.mark.parametrize("name", NETS)
def test_grad_cam_of_the_last_stage_is_the_positive_part_of_the_class_activation_map_over_its_pixels(name):
    model, inputs, classes = net(name), torch.randn(3, 3, 48, 48), torch.tensor([1, 0, 3])
    maps = activation_maps(model, inputs, classes)
    expected = F.relu(maps) / maps[0].numel()
    found = gradient_maps(model, stage_module(model, None), inputs, classes)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert found.max() > 0


def test_grad_cam_of_an_inner_stage_is_its_definition():
    model, inputs, classes = net("cifar-resnet8"), torch.randn(2, 3, 32, 32), torch.tensor([1, 4])
    with torch.no_grad():
        start = model.layer1(model.stem(inputs))
    start.requires_grad_()
    logits = model.fc(F.adaptive_avg_pool2d(model.layer3(model.layer2(start.clone())), 1).flatten(1))
    for index in range(2):
        (gradient,) = torch.autograd.grad(logits[index, classes[index]], start, retain_graph=True)
        expected = F.relu((gradient[index].mean((1, 2), keepdim=True) * start[index]).sum(0)).detach()
        found = gradient_maps(model, stage_module(model, "conv2_x"), inputs, classes)[index]
        torch.testing.assert_close(found, expected)


def test_grad_cam_leaves_no_gradients_and_no_hooks():
    model = net("cifar-resnet8")
    logits = model(images_tensor := torch.randn(2, 3, 32, 32)).detach()
    with torch.no_grad():
        gradient_maps(model, stage_module(model, "conv3_x"), images_tensor, torch.tensor([0, 0]))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(images_tensor), logits)


def test_grad_cam_works_for_vgg_and_frozen_weights():
    model = build(model_spec("vgg16", num_classes=5, hidden=8, widths=(4, 4, 8, 8, 8)), seed=0).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    inputs, classes = torch.randn(2, 3, 64, 64), torch.tensor([0, 1])
    for stage, side in (("conv1_x", 64), ("conv5_x", 4), (None, 4)):
        assert gradient_maps(model, stage_module(model, stage), inputs, classes).shape == (2, side, side)
    with pytest.raises(ModelError, match="Use grad_cam"):
        activation_maps(model, inputs, classes)


class Own(nn.Module):
    """A net with a hidden layer after the average, so that pixels have no exact share of a logit."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.act = nn.ReLU(inplace=True)
        self.hidden = nn.Linear(6, 6)
        self.fc = nn.Linear(6, 5)

    def features(self, x):
        return {"only": self.act(self.conv(x))}

    def forward(self, x):
        return self.fc(self.hidden(self.act(self.conv(x)).mean((2, 3))).relu())


def test_a_net_of_ones_own_has_grad_cam_by_module_and_is_refused_what_is_not_exact():
    model, inputs, classes = Own().eval(), torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    with pytest.raises(ModelError, match="not those of fc on the average"):
        activation_maps(model, inputs, classes)
    # The ReLU works in place on what the hook of the convolution returns.
    assert gradient_maps(model, stage_module(model, "conv"), inputs, classes).shape == (2, 6, 6)
    with pytest.raises(UserError, match="name one of its modules"):
        stage_module(model, None)
    with pytest.raises(UserError, match=r"gives no map \(n, c, h, w\)"):
        gradient_maps(model, stage_module(model, "hidden"), inputs, classes)
    assert not model.hidden._forward_hooks


def test_unknown_stages_are_named_with_the_known_ones():
    with pytest.raises(UserError, match=r"it has conv2_x, conv3_x, conv4_x\. Did you mean"):
        stage_module(net("cifar-resnet8"), "conv9_x")


@pytest.mark.parametrize("function", [class_activation_maps, grad_cam])
def test_maps_have_the_size_of_the_crop_and_do_not_depend_on_the_batch(function):
    stored, pictures = stored_net(resize_px=40), images(70, 50, 64)
    chosen = np.arange(70) % 5
    maps = function(stored, pictures, chosen)
    assert maps.shape == (70, 32, 32)
    assert maps.dtype == np.float32
    alone = function(stored, [Image.fromarray(pictures[69])], [chosen[69]])
    np.testing.assert_allclose(alone[0], maps[69], rtol=1e-4, atol=1e-5)
    assert function(stored, [], []).shape == (0, 32, 32)


def test_maps_are_of_the_crop_that_the_model_sees():
    stored, pictures = stored_net(resize_px=32), images(2)
    inputs = stored.preprocessor.normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    raw = activation_maps(stored.model, inputs, torch.tensor([1, 2]))
    expected = F.interpolate(raw[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(class_activation_maps(stored, pictures, [1, 2]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_the_crop_is_shown_in_its_true_colours(color):
    stored, pictures = stored_net(color=color), images(1)
    (crop,) = seen(stored.preprocessor, pictures)
    expected = Image.fromarray(pictures[0])
    assert np.array_equal(np.asarray(crop), np.asarray(expected.convert("L") if color == "gray" else expected))
    assert class_activation_maps(stored, pictures, [0]).shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("pictures", "chosen", "message"),
    [
        ([np.zeros((4, 4, 3))], [0], "float64"),
        (["cat.png"], [0], "str is no image"),
        ([np.zeros((4, 4, 3), np.uint8)], [0, 1], "1 images and 2 classes"),
        ([np.zeros((4, 4, 3), np.uint8)], [5], "5 is no class of the model; classes are 0 to 4"),
        ([np.zeros((4, 4, 3), np.uint8)], [-1], "-1 is no class"),
    ],
)
def test_what_is_no_image_or_class_is_refused(pictures, chosen, message):
    with pytest.raises(DataError, match=message):
        class_activation_maps(stored_net(), pictures, chosen)


def test_an_overlay_leaves_what_does_not_speak_for_the_class_as_it_was():
    picture = Image.fromarray(images(1)[0])
    grey = np.repeat(np.asarray(picture.convert("L"))[:, :, None], 3, axis=2)
    assert np.array_equal(np.asarray(overlay(picture, np.full((8, 8), -1.0, np.float32))), grey)
    heat = np.zeros((32, 32), np.float32)
    heat[:, 16:] = 2.0
    drawn = np.asarray(overlay(picture, heat)).astype(int)
    assert np.array_equal(drawn[:, :14], grey[:, :14])
    assert (drawn[:, 18:, 0] - drawn[:, 18:, 2] > 50).all()


def test_an_overlay_is_as_many_times_as_large_as_asked_and_has_one_scale_for_several_maps():
    picture, heat = images(1, 10, 14)[0], np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)
    assert overlay(picture, heat, scale=3).size == (42, 30)
    assert overlay(picture[:, :, 0], heat).mode == "RGB"
    assert np.array_equal(overlay(picture, heat, top=1.0), overlay(picture, heat))
    assert not np.array_equal(overlay(picture, heat, top=2.0), overlay(picture, heat))
    with pytest.raises(ValueError, match="scale is 0"):
        overlay(picture, heat, scale=0)
