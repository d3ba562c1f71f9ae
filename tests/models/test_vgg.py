"""VGG, against torchvision's."""

import pytest
import torch
import torchvision

from resnets.models.build import build
from resnets.specs.catalogue import model_spec


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_the_state_dict_is_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = build(model_spec(name)), torchvision.models.get_model(name)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


def test_logits_are_torchvisions_with_the_same_weights():
    ours = build(model_spec("vgg16", num_classes=5), seed=0).eval()
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict(), assign=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_features_are_the_maps_before_each_pool():
    model = build(model_spec("vgg16", widths=(2, 3, 4, 5, 6), hidden=4, num_classes=2), seed=0)
    x = torch.randn(1, 3, 32, 32)
    maps = model.features(x)
    assert [tuple(each.shape) for each in maps.values()] == [
        (1, 2, 32, 32), (1, 3, 16, 16), (1, 4, 8, 8), (1, 5, 4, 4), (1, 6, 2, 2)
    ]  # fmt: skip
    first = torch.relu(model.features[2](torch.relu(model.features[0](x))))
    torch.testing.assert_close(maps["conv1_x"], first)


def test_dropout_has_the_share_of_the_spec():
    model = build(model_spec("vgg16", widths=(1, 1, 1, 1, 1), hidden=4, dropout=0.25))
    assert [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)] == [0.25, 0.25]
