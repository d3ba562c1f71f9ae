"""Ten-crop and dense testing and ensembles, against a float64 reference that sees one view at a time."""

import dataclasses
import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet50_Weights

import resnets
from resnets.artifacts.model_folder import StoredModel, save_model
from resnets.cli.main import main
from resnets.data.open import open_folder, open_test_folder
from resnets.data.preprocess import Preprocessor
from resnets.engine.distributed import Distributed
from resnets.engine.loop import EvaluationStopped
from resnets.models.build import build
from resnets.paper.core.protocols import NetByHand, scores_by_hand
from resnets.specs.catalogue import model_spec
from resnets.specs.data import Cifar, Digits, ImageFolder
from resnets.specs.errors import DataError, DeviceError, ModelError, SpecError, UserError
from resnets.specs.preprocess import Preprocess
from resnets.specs.protocol import Center, Dense, TenCrop
from resnets.tasks.classify import score, testing
from resnets.tasks.classify.ensemble import check_held_out, columns_of, shares
from resnets.tasks.classify.evaluate import align_classes, evaluate_model
from resnets.tasks.classify.memory import available_bytes, check_memory
from resnets.tasks.classify.score import scored_batches
from resnets.tasks.classify.testing import named_protocols

CPU = torch.device("cpu")
QUICK = resnets.Machine(device="cpu", workers=0)
CLASSES = ("blue", "green", "red")
PROTOCOLS = {
    "center": Center(),
    "ten-crop": TenCrop(),
    "ten-crop, square": TenCrop(corners="square"),
    "dense": Dense(),
    "dense, global": Dense(form="global"),
    "dense, two scales without flips": Dense(scales_px=(224, 300), flips=False),
}


def paths_of(split):
    return tuple(Path(split.images.path(index)) for index in range(len(split)))


@pytest.fixture
def folder(tmp_path):
    """A folder of test images of several sizes, some of them equal."""
    random = np.random.default_rng(0)
    sizes = [(50, 40), (40, 50), (50, 40), (61, 37), (36, 36)]
    for label, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, (width, height) in enumerate(sizes[: 5 - label]):
            coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            image.save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def stored_model(seed=0, classes=CLASSES, *, crop=32, resize=36, mean_image=False, net="cifar-resnet8", **fields):
    """A net with statistics of its own whose scores are far from equal."""
    spec = model_spec(net, num_classes=len(classes))
    model = build(spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
            elif name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    color = fields.pop("color", "rgb")
    preprocess = Preprocess(
        resize_px=resize, crop_px=crop, color=color, std=(60.0, 50.0, 70.0), mean=(120.0, 110.0, 90.0)
    )
    mean = None
    if mean_image:
        preprocess = dataclasses.replace(preprocess, mean_image=True)
        mean = np.random.default_rng(seed).uniform(0, 255, (crop, crop, 3)).astype(np.float32)
    preprocessor = Preprocessor(preprocess, mean)
    spread(model.eval(), preprocessor)
    return StoredModel(
        model=model,
        spec=spec,
        preprocessor=preprocessor,
        classes=tuple(classes),
        metrics=fields.pop("metrics", {}),
        **fields,
    )


@torch.no_grad()
def spread(model, preprocessor):
    """Change the last layer so that no class is always the most probable one."""
    generator = torch.Generator().manual_seed(9)
    side = preprocessor.spec.crop_px
    coarse = torch.randint(0, 256, (64, 3, 4, 4), generator=generator).float()
    images = nn.functional.interpolate(coarse, (side, side), mode="bilinear").to(torch.uint8)
    logits = model(preprocessor.normalize(images))
    model.fc.weight.mul_(1.5 / logits.std(dim=0)[:, None])
    model.fc.bias.copy_(-(logits - model.fc.bias).mean(dim=0) * 1.5 / logits.std(dim=0))


def classifier(*arguments, **fields):
    return resnets.Classifier(stored_model(*arguments, **fields))


def by_hand(stored, protocol):
    """Return a model in float64, as the reference takes it."""
    spec = stored.preprocessor.spec
    net = build(stored.spec)
    net.load_state_dict(stored.model.state_dict())
    net = net.double().eval()
    mean_image = stored.preprocessor.mean_image
    mean = np.array(spec.mean) if mean_image is None else mean_image.astype(np.float64)
    if isinstance(protocol, Dense) and mean_image is not None:
        mean = mean.mean(axis=(0, 1))
    std = np.array(spec.std)
    order = slice(None, None, -1) if spec.color == "bgr" else slice(None)

    def last_map(pixels):
        pixels = (pixels[:, :, order].astype(np.float64) - mean) / std
        (last,) = net.features(torch.from_numpy(pixels).permute(2, 0, 1)[None])["conv4_x"]
        return last.permute(1, 2, 0).numpy()

    return NetByHand(
        resize_px=spec.resize_px,
        crop_px=spec.crop_px,
        stride_px=4,
        last_map=last_map,
        logits=lambda mean: net.fc(torch.from_numpy(mean)).numpy(),
    )


@torch.no_grad()
def reference(stored, image, protocol):
    """Return the probabilities of an image, in float64: one view at a time, windows cut out of the last map by hand."""
    return torch.from_numpy(scores_by_hand(image, protocol, by_hand(stored, protocol)))


def images_of(folder):
    split = open_test_folder(folder).splits["test"]
    return [Image.open(path).convert("RGB") for path in paths_of(split)], split.labels


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("fields", [{}, {"mean_image": True, "color": "bgr"}], ids=["mean", "mean image, bgr"])
def test_probabilities_are_those_of_a_float64_reference(folder, tmp_path, name, fields):
    net, protocol = classifier(3, **fields), PROTOCOLS[name]
    report = resnets.evaluate(net, data=folder, protocol=protocol, save_scores=tmp_path / "scores.npz", machine=QUICK)
    saved = np.load(tmp_path / "scores.npz")
    images, labels = images_of(folder)
    expected = np.stack([reference(net.stored, image, protocol).numpy() for image in images])
    assert expected.max(axis=1).min() < 0.9  # far from a foregone conclusion
    assert np.ptp(expected, axis=0).min() > 0.01
    assert saved[report["protocol"]].dtype == np.float32
    np.testing.assert_allclose(saved[report["protocol"]], expected, atol=1e-5)
    np.testing.assert_array_equal(saved["labels"], labels)
    assert report["top1_error"] == pytest.approx(100 * float((expected.argmax(1) != labels).mean()))
    assert report["loss"] == pytest.approx(float(-np.log(expected[np.arange(len(labels)), labels]).mean()), abs=1e-4)
    alone = resnets.evaluate(net, data=folder, protocol=protocol, machine=QUICK)
    assert alone["confusion"] == report["confusion"]
    assert alone["loss"] == pytest.approx(report["loss"], abs=1e-5)


def test_a_square_image_of_the_crops_size_is_normalised_like_all_others_of_its_scales(folder, tmp_path):
    # 36 x 36 at the scale of the crop is exactly a crop, for which there would be a mean image.
    net = classifier(1, mean_image=True)
    protocol = Dense(scales_px=(224,))
    resnets.evaluate(net, data=folder, protocol=protocol, save_scores=tmp_path / "scores.npz", machine=QUICK)
    images, _ = images_of(folder)
    (square,) = (number for number, image in enumerate(images) if image.size == (36, 36))
    expected = reference(net.stored, images[square], protocol)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npz")["dense"][square], expected, atol=1e-5)


def test_softmax_scores_are_averaged_not_logits(folder):
    net = stored_model(3)
    images, _ = images_of(folder)
    crops = [np.asarray(images[0])[y : y + 32, x : x + 32] for x, y in ((0, 0), (18, 0), (0, 8), (18, 8), (9, 4))]
    preprocessor = Preprocessor(dataclasses.replace(net.preprocessor.spec, resize_px=40))
    inputs = preprocessor.normalize(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))
    logits = net.model(torch.cat([inputs, inputs.flip(3)])).detach()
    split = open_test_folder(folder).splits["test"]
    (batch,) = scored_batches(net.model, split, preprocessor, TenCrop(), ranks=Distributed(device=CPU))
    (row,) = (row for row, index in enumerate(batch.indices) if index == 0)
    torch.testing.assert_close(batch.logits[row].exp(), logits.softmax(1).mean(0), atol=1e-5, rtol=0)
    assert (batch.logits[row].softmax(0) - logits.mean(0).softmax(0)).abs().max() > 1e-3


@pytest.mark.parametrize("protocol", [Center(), TenCrop(), Dense()])
def test_broken_images_are_named_and_in_no_count(folder, protocol):
    (folder / "green" / "0.png").write_bytes((folder / "green" / "0.png").read_bytes()[:100])
    (folder / "red" / "2.png").write_text("no image")
    report = resnets.evaluate(classifier(), data=folder, protocol=protocol, machine=QUICK)
    assert report["images"] == 10
    assert np.array(report["confusion"]).sum(axis=1).tolist() == [5, 3, 2]
    names = [str(folder / "green" / "0.png"), str(folder / "red" / "2.png")]
    assert [entry["path"] for entry in report["skipped"]] == names
    both = resnets.evaluate([classifier(), classifier(1)], data=folder, protocol=protocol, machine=QUICK)
    assert (both["images"], [entry["path"] for entry in both["skipped"]]) == (10, names)


@pytest.mark.parametrize("protocol", [Center(), TenCrop(), Dense()])
def test_worker_processes_change_nothing(folder, tmp_path, protocol):
    scores = []
    for workers in (0, 1):
        machine = resnets.Machine(device="cpu", workers=workers)
        path = tmp_path / f"{workers}.npz"
        resnets.evaluate(classifier(), data=folder, protocol=protocol, save_scores=path, machine=machine)
        saved = np.load(path)
        scores.append(next(saved[name] for name in saved.files if name in ("center", "ten-crop", "dense")))
    np.testing.assert_array_equal(*scores)


def scores_of(net, split, protocol):
    batches = list(scored_batches(net.model, split, net.preprocessor, protocol, ranks=Distributed(device=CPU)))
    indices = np.concatenate([batch.indices for batch in batches])
    assert sorted(indices) == list(range(len(split)))
    rows = torch.cat([batch.logits for batch in batches])
    return rows[torch.from_numpy(indices.argsort())], torch.cat([batch.labels for batch in batches])[indices.argsort()]


@pytest.mark.parametrize("protocol", [Center(), TenCrop(), Dense(), Dense(flips=False)])
@pytest.mark.parametrize("pixels", [1, 3 * 32**2, 10**9])
def test_the_images_of_a_pass_change_no_score_and_no_count(folder, monkeypatch, protocol, pixels):
    net, split = stored_model(), open_test_folder(folder).splits["test"]
    expected = scores_of(net, split, protocol)
    monkeypatch.setattr(score, "_CENTRE_PIXELS_A_PASS", pixels)
    monkeypatch.setattr(score, "_PIXELS_A_PASS", {"cpu": pixels})
    torch.testing.assert_close(scores_of(net, split, protocol), expected)


@pytest.mark.parametrize(
    ("protocol", "pixels"),
    [(Center(), 6_000), (TenCrop(), 6_000), (Dense(), 28_000), (Dense(flips=False), 14_000)],
)
def test_a_pass_that_does_not_fit_into_memory_is_halved(folder, monkeypatch, protocol, pixels):
    net, split = stored_model(), open_test_folder(folder).splits["test"]
    expected = scores_of(net, split, protocol)
    failed = with_memory_for(pixels, net.model, monkeypatch)
    torch.testing.assert_close(scores_of(net, split, protocol), expected)
    assert failed


@pytest.mark.parametrize(("protocol", "pixels"), [(Center(), 0), (TenCrop(), 32**2), (Dense(), 32**2)])
def test_an_image_that_does_not_fit_into_memory_alone_is_one_line(folder, monkeypatch, protocol, pixels):
    net = classifier()
    with_memory_for(pixels, net.stored.model, monkeypatch)
    with pytest.raises(DeviceError, match=r"one image of \d\d x \d\d px in fp32\. Give --device cpu\."):
        resnets.evaluate(net, data=folder, protocol=protocol, machine=QUICK)


def with_memory_for(pixels, model, monkeypatch):
    """Let `model` raise what a full GPU raises; the list that is returned gets the shapes that did not fit."""
    failed, compute = [], type(model).stem

    def stem(self, images):
        if images.shape[0] * images.shape[2] * images.shape[3] > pixels:
            failed.append(images.shape)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute(self, images)

    monkeypatch.setattr(type(model), "stem", stem)
    return failed


@pytest.mark.parametrize(("side", "images"), [(32, 256), (224, 256), (225, 253), (448, 64), (5000, 1)])
def test_a_pass_of_large_images_has_fewer(side, images):
    assert score._images_a_pass(side) == images


class OneOfSeveral(Distributed):
    """A process that is told how many batches the others have, instead of asking them."""

    rounds = 0

    def gather(self, items):
        return [*items, self.rounds] if items and isinstance(items[0], int) else list(items)

    def sum(self, values):
        return values


@pytest.mark.parametrize("protocol", [Center(), TenCrop(), Dense()])
@pytest.mark.parametrize("world_size", [2, 3, 20])
def test_every_process_goes_round_equally_often_and_each_image_counts_once(folder, monkeypatch, protocol, world_size):
    monkeypatch.setattr(OneOfSeveral, "rounds", 15)
    net, split = stored_model(), open_test_folder(folder).splits["test"]
    asked, indices = [], []
    for rank in range(world_size):
        ranks = OneOfSeveral(rank=rank, world_size=world_size, device=CPU)
        rounds = []
        batches = scored_batches(
            net.model,
            split,
            net.preprocessor,
            protocol,
            ranks=ranks,
            should_stop=lambda rounds=rounds: bool(rounds.append(1)),
        )
        indices += [index for batch in batches for index in batch.indices.tolist()]
        asked.append(len(rounds))
    assert asked == [15] * world_size
    assert sorted(indices) == list(range(len(split)))


@pytest.mark.parametrize("protocol", [Center(), TenCrop(), Dense()])
def test_an_evaluation_stops_between_batches(folder, protocol):
    net, split = stored_model(), open_test_folder(folder).splits["test"]
    with pytest.raises(EvaluationStopped):
        evaluate_model(
            net.model,
            split,
            net.preprocessor,
            net.classes,
            ranks=Distributed(device=CPU),
            protocol=protocol,
            should_stop=lambda: True,
        )


def test_an_ensemble_weighs_models_with_preprocessing_and_order_of_classes_of_their_own(folder, tmp_path):
    first = classifier(1)
    second = classifier(2, ("red", "blue", "green"), crop=28, resize=40, mean_image=True)
    third = classifier(4, color="bgr")
    order = [second.classes.index(name) for name in CLASSES]
    images, labels = images_of(folder)
    for protocol in (Center(), TenCrop(), Dense(scales_px=(224, 256))):
        rows = []
        for image in images:
            a, b, c = (reference(net.stored, image, protocol) for net in (first, second, third))
            rows.append((2 * a + b[order] + 0.5 * c) / 3.5)
        expected = torch.stack(rows).numpy()
        path = tmp_path / "scores.npz"
        report = resnets.evaluate(
            [first, second, third],
            data=folder,
            protocol=protocol,
            weights=(2, 1, 0.5),
            save_scores=path,
            machine=QUICK,
        )
        saved = np.load(path)
        np.testing.assert_allclose(saved[report["protocol"]], expected, atol=1e-5)
        assert saved["classes"].tolist() == list(CLASSES)
        assert report["top1_error"] == pytest.approx(100 * float((expected.argmax(1) != labels).mean()))
        assert report["weights"] == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_equal_weights_are_the_default():
    assert shares(None, 4) == [0.25] * 4
    assert shares((2, 1, 1), 3) == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    "weights", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (1.0, math.inf), (1e308, 1e308), (1e-300, 1e300)]
)
def test_weights_that_are_no_weights_are_refused(weights):
    with pytest.raises(UserError, match="--weights"):
        shares(weights, 2)


def test_models_of_different_classes_are_no_ensemble(folder):
    with pytest.raises(ModelError, match=r"'green' is only in .*, 'violet' is only in"):
        resnets.evaluate([classifier(), classifier(1, ("blue", "red", "violet"))], data=folder, machine=QUICK)
    with pytest.raises(ModelError, match=r"has 3, .* has 4.*'violet'"):
        resnets.evaluate([classifier(), classifier(1, (*CLASSES, "violet"))], data=folder, machine=QUICK)


def test_no_image_is_tested_on_that_one_of_the_models_has_seen(folder):
    def trained_on(spec, seed):
        return classifier(seed, dataset=spec, fingerprint=open_folder(spec, folder).fingerprint)

    spec = ImageFolder(image_px=32, resize_px=36, validation_fraction=0.3)
    other = dataclasses.replace(spec, split_seed=1)
    assert open_folder(spec, folder).fingerprint != open_folder(other, folder).fingerprint
    held_out = len(open_folder(spec, folder).splits["validation"])
    elsewhere = classifier(5)
    for models in ([trained_on(spec, 1)], [elsewhere, trained_on(spec, 1)], [trained_on(spec, 1), trained_on(spec, 2)]):
        report = resnets.evaluate(models, data=folder, machine=QUICK)
        assert (report["split"], report["images"]) == ("validation", held_out)
    assert resnets.evaluate(elsewhere, data=folder, machine=QUICK)["images"] == 12
    with pytest.raises(ModelError, match="both trained on"):
        resnets.evaluate([trained_on(spec, 1), trained_on(other, 2)], data=folder, machine=QUICK)


def notes_of(models, data):
    return " ".join(resnets.evaluate(models, data=data, machine=QUICK)["notes"])


def test_a_model_trained_in_the_folder_before_it_changed_is_named(folder):
    spec = ImageFolder(image_px=32, resize_px=36, validation_fraction=0.3)

    def trained_here(seed, root=folder):
        fingerprint = open_folder(spec, root).fingerprint
        return classifier(seed, dataset=spec, fingerprint=fingerprint, metrics={"dataset": str(root)})

    earlier = trained_here(1)
    assert "has seen" not in notes_of(earlier, folder)
    (folder / "red" / "0.png").rename(folder / "red" / "another.png")
    now = trained_here(2)
    assert "has seen" not in notes_of(now, folder)
    assert "resnet8 was trained in" in notes_of(earlier, folder)
    both = notes_of([now, earlier], folder)
    assert both.count("has seen") == 1
    assert "has seen" not in notes_of([now, classifier(3, metrics={"dataset": str(folder)})], folder)
    elsewhere = classifier(4, dataset=spec, fingerprint="0" * 64, metrics={"dataset": str(folder / "elsewhere")})
    assert "has seen" not in notes_of(elsewhere, folder)


def test_folders_that_a_split_has_to_itself_are_safe(folder, tmp_path):
    (tmp_path / "split").mkdir()
    shutil.copytree(folder, tmp_path / "split" / "train")
    shutil.copytree(folder, tmp_path / "split" / "val")
    spec, root = ImageFolder(image_px=32, resize_px=36), tmp_path / "split"
    net = classifier(1, dataset=spec, fingerprint="0" * 64, metrics={"dataset": str(root)})
    assert "has seen" not in notes_of(net, root)
    assert "has seen" not in notes_of(net, root / "val")
    assert "has seen" in notes_of(net, root / "train")
    for nothing in (3, "a\0b", None):
        assert "has seen" not in notes_of(
            dataclasses.replace(net, stored=dataclasses.replace(net.stored, metrics={"dataset": nothing})),
            root / "train",
        )


def test_held_out_images_of_cifar_are_those_of_all_models():
    models = [stored_model(seed, dataset=Cifar(validation_images=held)) for seed, held in ((0, 5000), (1, 0))]
    check_held_out(models, "test")
    with pytest.raises(ModelError, match="0 and 5000"):
        check_held_out(models, "validation")


def test_several_protocols_are_reported_beside_each_other_as_each_alone(folder, tmp_path):
    net = classifier(2)
    names = ["center", "ten-crop", "dense"]
    together = resnets.evaluate(net, data=folder, protocol=names, save_scores=tmp_path / "scores.npz", machine=QUICK)
    assert list(together["protocols"]) == names
    assert set(np.load(tmp_path / "scores.npz").files) == {*names, "labels", "classes", "images"}
    for name in names:
        alone = resnets.evaluate(net, data=folder, protocol=name, machine=QUICK)
        assert together["protocols"][name]["confusion"] == alone["confusion"]
        assert {key: value for key, value in alone.items() if key in together} == {
            key: value for key, value in together.items() if key != "protocols"
        }
        assert set(alone) == (set(together) - {"protocols"}) | set(together["protocols"][name])


def test_saved_scores_have_no_number_for_an_unreadable_image(folder, tmp_path):
    (folder / "blue" / "1.png").write_text("no image")
    resnets.evaluate(classifier(), data=folder, save_scores=tmp_path / "scores.npz", machine=QUICK)
    saved = np.load(tmp_path / "scores.npz")
    assert np.isnan(saved["center"]).all(axis=1).tolist() == [False, True] + [False] * 10
    assert saved["images"][1] == str(folder / "blue" / "1.png")
    np.testing.assert_allclose(np.nansum(saved["center"], axis=1), [1, 0] + [1] * 10, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "scores.npz"]


@pytest.mark.parametrize("path", ["scores.txt", "missing/scores.npz"])
def test_a_file_of_scores_that_cannot_be_written_is_refused_before_the_test(folder, tmp_path, path):
    with pytest.raises(UserError, match="--save-scores"):
        resnets.evaluate("no model here", data=folder, save_scores=tmp_path / path)


def test_protocols_are_named_once():
    assert named_protocols(["dense", "center"]) == {"dense": Dense(), "center": Center()}
    assert named_protocols(TenCrop(corners="square")) == {"ten-crop": TenCrop(corners="square")}
    for wrong in ("crop", ["center", "center"], [Dense(), "dense"], []):
        with pytest.raises(UserError, match="--protocol"):
            named_protocols(wrong)


@pytest.mark.parametrize("protocol", ["ten-crop", "dense"])
def test_images_in_memory_are_tested_with_their_only_view(protocol):
    net = stored_model(0, tuple("0123456789"), dataset=Digits())
    with pytest.raises(UserError, match=r"--protocol center"):
        resnets.evaluate(resnets.Classifier(net), data="digits", protocol=protocol, machine=QUICK)


class Own(nn.Module):
    """A net of the user's own, without a form for whole images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, images):
        return self.conv(images).mean(dim=(2, 3))


def test_a_net_of_ones_own_has_ten_crops_but_no_dense_test(folder):
    net = resnets.Classifier(dataclasses.replace(stored_model(), model=Own().eval()))
    assert resnets.evaluate(net, data=folder, protocol="ten-crop", machine=QUICK)["images"] == 12
    with pytest.raises(ModelError, match="score_map"):
        resnets.evaluate(net, data=folder, protocol="dense", machine=QUICK)


def test_batch_norm_is_recalibrated_in_a_copy_over_training_images_in_random_order(folder, tmp_path):
    spec = ImageFolder(image_px=32, resize_px=36, validation_fraction=0.3)
    dataset = open_folder(spec, folder)
    net = classifier(1, dataset=spec, fingerprint=dataset.fingerprint)
    before = {key: value.clone() for key, value in net.model.state_dict().items()}
    count = len(dataset.splits["train"])
    path = tmp_path / "scores.npz"
    report = resnets.evaluate(net, data=folder, recalibrate_images=count, save_scores=path, machine=QUICK)
    assert f"cifar-resnet8 are averages over {count} training images." in " ".join(report["notes"])
    assert (report["recalibrate_images"], report["precision"]) == (count, "fp32")
    for key, value in net.model.state_dict().items():
        assert torch.equal(value, before[key])
    # All training images in one batch: their order does not matter, and the statistics are those of that batch.
    model = build(net.stored.spec)
    model.load_state_dict(before)
    pixels = [net.stored.preprocessor.read(file) for file in paths_of(dataset.splits["train"])]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model.train()(net.stored.preprocessor.normalize(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)))
        tested = [net.stored.preprocessor.read(file) for file in paths_of(dataset.splits["validation"])]
        inputs = net.stored.preprocessor.normalize(torch.from_numpy(np.stack(tested)).permute(0, 3, 1, 2))
        expected = model.eval()(inputs).softmax(1)
    np.testing.assert_allclose(np.load(path)["center"], expected.numpy(), atol=1e-4)
    for wrong in (count + 1, 1, -1):
        with pytest.raises(UserError, match="--recalibrate-batch-norm"):
            resnets.evaluate(net, data=folder, recalibrate_images=wrong, machine=QUICK)
    with pytest.raises(DataError, match="train split"):
        resnets.evaluate(classifier(), data=folder, recalibrate_images=4, machine=QUICK)


def test_an_evaluation_tells_its_precision(folder):
    report = resnets.evaluate(classifier(), data=folder, precision="bf16", machine=QUICK)
    assert (report["precision"], report["recalibrate_images"]) == ("bf16", 0)


def test_the_number_of_images_that_batch_norm_has_really_seen_is_stated(folder):
    spec = ImageFolder(image_px=32, resize_px=36, validation_fraction=0.3)
    dataset = open_folder(spec, folder)
    net = classifier(1, dataset=spec, fingerprint=dataset.fingerprint)
    paths = paths_of(dataset.splits["train"])
    first = {path.parent: path for path in reversed(paths)}.values()  # a class without a readable image is refused
    broken = [path for path in paths if path not in first][:2]
    for path in broken:
        path.write_text("no image")
    count = len(paths)
    report = resnets.evaluate([net, net], data=folder, recalibrate_images=count, machine=QUICK)
    assert " ".join(report["notes"]).count(f"over {count - 2} training images, of {count} asked for") == 2


def test_recalibration_without_a_readable_image_is_refused(folder, monkeypatch):
    spec = ImageFolder(image_px=32, resize_px=36, validation_fraction=0.3)
    dataset = open_folder(spec, folder)
    net = classifier(1, dataset=spec, fingerprint=dataset.fingerprint)
    before = {key: value.clone() for key, value in net.model.state_dict().items()}
    opened = testing.evaluation_batches

    def the_disk_is_gone(split, *arguments, **named):
        for path in paths_of(split):
            path.write_text("no image")
        return opened(split, *arguments, **named)

    monkeypatch.setattr(testing, "evaluation_batches", the_disk_is_gone)
    with pytest.raises(DataError, match="two images or more can be read"):
        resnets.evaluate(net, data=folder, recalibrate_images=6, machine=QUICK)
    assert all(torch.equal(value, before[key]) for key, value in net.model.state_dict().items())


def test_a_net_without_batch_norm_says_so(folder):
    spec = ImageFolder(image_px=32, resize_px=36, validation_fraction=0.3)
    dataset = open_folder(spec, folder)
    net = resnets.Classifier(
        dataclasses.replace(stored_model(), model=Own().eval(), dataset=spec, fingerprint=dataset.fingerprint)
    )
    report = resnets.evaluate(net, data=folder, recalibrate_images=4, machine=QUICK)
    assert any("has no BatchNorm" in note for note in report["notes"])


@pytest.fixture
def models(tmp_path):
    for seed in (0, 1):
        save_model(tmp_path / f"model{seed}", stored_model(seed))
    return [str(tmp_path / "model0"), str(tmp_path / "model1")]


def test_the_command_takes_protocols_and_their_settings(folder, models, tmp_path, capsys):
    arguments = ["evaluate", *models, "--data", str(folder), "--device", "cpu", "--workers", "0", "--weights", "3,1"]
    arguments += ["--protocol", "center,dense", "--protocol", "ten-crop", "--corners", "square"]
    arguments += ["--scales", "224,288", "--dense-form", "global", "--no-flips", "--save-scores", "scores.npz"]
    arguments[arguments.index("scores.npz")] = str(tmp_path / "scores.npz")
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["protocols"]) == ["center", "dense", "ten-crop"]
    assert report["protocols"]["dense"]["settings"] == {
        "scales_px": [224, 288],
        "form": "global",
        "flips": False,
        "shorter_sides_px": [[32, 41], [32, 41]],
    }
    assert report["models"] == ["cifar-resnet8"] * 2
    assert report["sources"] == models
    assert report["protocols"]["ten-crop"]["settings"] == {"corners": "square"}
    assert report["weights"] == [0.75, 0.25]
    assert (tmp_path / "scores.npz").exists()
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for words in (
        f"ensemble of 2: {models[0]} (cifar-resnet8) + {models[1]} (cifar-resnet8)",
        "top-1 error",
        "dense: shorter sides 32, 41, global form, not mirrored",
        "0.750, 0.250",
        "scores.npz",
    ):
        assert words in text


def test_a_warning_of_nan_names_the_protocol_and_the_models(folder, models):
    spoilt = stored_model()
    with torch.no_grad():
        [*spoilt.model.parameters()][-1].fill_(torch.nan)
    nets = [resnets.Classifier(spoilt), models[0]]
    report = resnets.evaluate(nets, data=folder, protocol=["center", "ten-crop"], machine=QUICK)
    assert report["warnings"] == [
        f"{protocol}: cifar-resnet8 + {models[0]}: a net of the ensemble gives NaN for every image of the {report['split']} "
        "split; its weights are of no use."
        for protocol in ("center", "ten-crop")
    ]
    assert [one["loss"] for one in report["protocols"].values()] == [None, None]


def test_one_protocol_gives_the_flat_report(folder, models, capsys):
    assert main(["evaluate", models[0], "--data", str(folder), "--protocol", "dense", "--workers", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"images", "top1_error", "top5_error", "protocol", "split", "skipped"} <= set(report)
    assert (report["protocol"], report["images"]) == ("dense", 12)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--scales", "224"], "--scales belongs to --protocol dense"),
        (["--protocol", "dense", "--corners", "square"], "--corners belongs to --protocol ten-crop"),
        (["--protocol", "dense", "--scales", "big"], "no list of whole numbers"),
        (["--protocol", "dense", "--scales", "0,224"], "--scales is 0, 224; give different sizes of 1 to 4096"),
        (["--protocol", "dense", "--scales", "224,100000"], "--scales is 224, 100000; give different sizes"),
        (["--protocol", "dence"], "'dence'"),
        (["--weights", "1,2"], "2 values for 1 model; give"),
        (["--weights", "heavy"], "no list of numbers"),
        (["--save-scores", "scores.txt"], ".npz"),
    ],
)
def test_flags_that_cannot_be_used_are_explained(folder, models, capsys, flags, words):
    assert main(["evaluate", models[0], "--data", str(folder), *flags]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_models_whose_classes_cannot_be_told_apart_are_refused():
    names = ("a", "crane", "crane")
    with pytest.raises(ModelError, match="names more than one"):
        columns_of(names, ("crane", "a", "crane"), ("first", "second"))
    assert columns_of(names, names, ("first", "second")) == [0, 1, 2]


@pytest.mark.parametrize("scales", [(), (0,), (224, 224), (100_000,)])
def test_scales_that_no_image_has_are_refused(scales):
    with pytest.raises(SpecError, match="--scales"):
        Dense(scales_px=scales)


def test_as_many_classes_of_one_name_belong_to_each_model_of_an_ensemble():
    with pytest.raises(ModelError, match="'b' is only in first, 'a' is only in second"):
        columns_of(("a", "b", "b"), ("a", "a", "b"), ("first", "second"))


def test_a_folder_is_matched_by_name_only_with_names_that_a_model_has_once(folder):
    dataset = open_test_folder(folder)
    stored = stored_model(classes=("blue", "green", "red", "red"))
    with pytest.raises(ModelError, match=r"more than one class called 'red'"):
        align_classes(dataset, stored)
    assert align_classes(dataset, stored_model(classes=("x", "blue", "x", "green", "red"))).classes[4] == "red"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_names_of_files_and_classes_cannot_steer_the_terminal_nor_end_the_report(folder, tmp_path, capsys):
    red = "red\x1b[31m\nline"
    (folder / "red").rename(folder / red)
    for name in (b"not utf-8 \xff.jpg", b"clear \x1b[2J.jpg"):
        (folder / "blue" / os.fsdecode(name)).write_bytes(b"no image")
    save_model(tmp_path / "model", stored_model(classes=("blue", "green", red)))
    model, quick = str(tmp_path / "model"), ["--device", "cpu"]
    for command in (["evaluate", model, "--data", str(folder), "--workers", "0"], ["predict", model, str(folder)]):
        assert main([*command, *quick]) == (0 if command[0] == "evaluate" else 2)
        output = "".join(capsys.readouterr()).encode()
        assert b"\x1b" not in output
        for shown in (rb"red\x1b[31m\nline", rb"not utf-8 \udcff.jpg", rb"clear \x1b[2J.jpg"):
            assert shown in output
        main([*command, *quick, "--json"])
        document = capsys.readouterr().out
        assert any(path.endswith("not utf-8 \udcff.jpg") for path in _texts(json.loads(document.encode())))


def _texts(value):
    if isinstance(value, dict | list):
        return [text for one in (value.values() if isinstance(value, dict) else value) for text in _texts(one)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("count", [1, 2])
def test_classes_of_one_name_have_rows_of_their_own(folder, capsys, tmp_path, count):
    # Of ImageNet's classes, two are called crane; the folders are their ids, so labels are matched by place.
    names = [*ResNet50_Weights.DEFAULT.meta["categories"]]
    cranes = names.index("crane bird"), names.index("crane")
    names[cranes[0]] = "crane"
    ids = ("n01440764", *(f"n{number:08}" for number in range(2_000_000, 2_000_998)), "n15075141")
    for name in ids:
        (folder / name).mkdir()
    for name, label in zip(("blue", "green"), cranes, strict=True):
        (folder / name).rename(folder / ids[label] / name)
        for image in (folder / ids[label] / name).iterdir():
            image.rename(folder / ids[label] / image.name)
        (folder / ids[label] / name).rmdir()
    for image in (folder / "red").iterdir():
        image.rename(folder / ids[0] / image.name)
    (folder / "red").rmdir()
    for label in {*range(1, 1000)} - {*cranes}:
        Image.new("RGB", (36, 36)).save(folder / ids[label] / "0.png")
    net = stored_model(classes=names)
    save_model(tmp_path / "model", net)
    arguments = ["evaluate", *[str(tmp_path / "model")] * count, "--data", str(folder), "--workers", "0"]
    assert main([*arguments, "--device", "cpu", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["per_class_errors"]) == 1000
    confusion = np.array(report["confusion"])
    assert confusion.sum(axis=1)[[*cranes]].tolist() == [5, 4]
    for name, place in zip(("crane", "crane (2)"), cranes, strict=True):
        row = confusion[place]
        assert report["per_class_errors"][name] == pytest.approx(100 * (1 - row[place] / row.sum()))


class HalvesFiveTimes(nn.Module):
    """A net of which nothing is left of an image below 32 pixels, and whose statistics a trial could change."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def score_map(self, images, window):
        maps = self.norm(images)
        for _ in range(5):
            maps = nn.functional.max_pool2d(maps, 2)
        return maps.mean(dim=(2, 3), keepdim=True) if window is None else maps


def test_a_scale_that_leaves_nothing_of_an_image_is_refused_before_an_image_is_read(folder, monkeypatch):
    net = resnets.Classifier(dataclasses.replace(stored_model(crop=64, resize=72), model=HalvesFiveTimes()))

    def read(source, *, color):
        raise AssertionError("an image was read")

    monkeypatch.setattr("resnets.data.view_loader.read_image", read)
    before = {key: value.clone() for key, value in net.model.state_dict().items()}
    net.model.train()
    with pytest.raises(UserError, match=r"--scales: 1, for a crop of 224, is 1 px for the crop of 64 of .*least 32 px"):
        resnets.evaluate(net, data=folder, protocol=Dense(scales_px=(224, 1)), machine=QUICK)
    for key, value in net.model.state_dict().items():
        assert torch.equal(value, before[key])
    with pytest.raises(UserError, match="Give scales from 112 on"):
        resnets.evaluate(net, data=folder, protocol=Dense(scales_px=(108,)), machine=QUICK)
    with pytest.raises(AssertionError, match="an image was read"):
        resnets.evaluate(net, data=folder, protocol=Dense(scales_px=(112,)), machine=QUICK)


def test_models_of_other_crops_see_other_sizes_and_say_so(folder, tmp_path, capsys):
    for crop in (32, 28):
        save_model(tmp_path / f"crop{crop}", stored_model(crop=crop))
    models = [str(tmp_path / "crop32"), str(tmp_path / "crop28")]
    arguments = ["evaluate", *models, "--data", str(folder), "--workers", "0", "--device", "cpu"]
    assert main([*arguments, "--protocol", "dense", "--scales", "224,256"]) == 0
    sides = f"32, 37 for {models[0]} (cifar-resnet8); 28, 32 for {models[1]} (cifar-resnet8); window form, mirrored too"
    assert f"dense: shorter sides {sides}" in capsys.readouterr().out


def test_messages_call_models_as_they_were_given(folder, models, tmp_path):
    save_model(tmp_path / "other", stored_model(classes=("blue", "green")))
    with pytest.raises(ModelError) as refused:
        resnets.evaluate([models[0], tmp_path / "other"], data=folder, machine=QUICK)
    assert f"{models[0]} has 3, {tmp_path / 'other'} has 2; 'red' is only in {models[0]}." in str(refused.value)


@pytest.mark.parametrize(("net", "crop"), [("cifar-resnet8", 32), ("resnet18-v1.5", 64), ("vgg16", 64)])
def test_a_layer_has_as_many_values_as_is_assumed(net, crop):
    """The least memory of an image is that of the layer with the most values, counted in a forward pass."""
    stored = StoredModel(
        model=build(model_spec(net, num_classes=3), seed=0).eval(),
        spec=model_spec(net, num_classes=3),
        preprocessor=Preprocessor(Preprocess(resize_px=crop, crop_px=crop)),
        classes=CLASSES,
        metrics={},
    )
    most = 0

    def count(module, inputs, output):
        nonlocal most
        most = max(most, inputs[0].numel() + output.numel())

    for module in stored.model.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(count)
    protocol = Dense(scales_px=(224, 448))
    with torch.no_grad():
        stored.model(torch.zeros(1, 3, 2 * crop, 2 * crop))
    needed = 2 * 4 * most
    check_memory(protocol, stored, "it", "fp32", needed)
    check_memory(protocol, stored, "it", "bf16", needed // 2)
    check_memory(protocol, stored, "it", "fp32", None)
    check_memory(dataclasses.replace(protocol, flips=False), stored, "it", "fp32", needed // 2)
    with pytest.raises(UserError, match=rf"--scales: 448.* {2 * crop} px for it.*smaller scales"):
        check_memory(protocol, stored, "it", "fp32", needed - 1)


def test_a_scale_beyond_the_memory_is_refused_before_an_image_is_read(folder, monkeypatch):
    monkeypatch.setattr(testing, "available_bytes", lambda device: 10**8)
    monkeypatch.setattr("resnets.tasks.classify.score.view_batches", None)
    with pytest.raises(UserError, match=r"4096.*GiB are free"):
        resnets.evaluate(
            classifier(crop=224, resize=224), data=folder, protocol=Dense(scales_px=(224, 4096)), machine=QUICK
        )


def a_system(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("text", ["", "MemAvailable: many kB", "MemTotal: 3 kB", None])
def test_a_system_that_does_not_say_what_is_free_refuses_nothing(tmp_path, text):
    root = a_system(tmp_path, {} if text is None else {"proc/meminfo": text})
    assert available_bytes(CPU, root) is None
    a_system(root, {"proc/meminfo": "MemTotal:  9 kB\nMemAvailable:   2 kB\nSwapFree: 1 kB\nHugePages_Total:  0\n"})
    assert available_bytes(CPU, root) == 3 * 1024


MACHINE = {"proc/meminfo": "MemTotal: 64000 kB\nMemAvailable: 32000 kB\nSwapFree: 8000 kB\n"}
MACHINE_FREE = 1024 * 40_000
V2 = {"proc/self/cgroup": "0::/pod/box\n"}
V1 = {"proc/self/cgroup": "9:cpu,cpuacct:/\n5:memory:/docker/1f\n0::/\n"}
SWAP = 1024 * 8_000


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (V2, MACHINE_FREE),
        (
            V2 | {"sys/fs/cgroup/pod/box/memory.max": "max\n", "sys/fs/cgroup/pod/box/memory.current": "7\n"},
            MACHINE_FREE,
        ),
        (
            V2 | {"sys/fs/cgroup/pod/box/memory.max": "9000\n", "sys/fs/cgroup/pod/box/memory.current": "2000"},
            7000 + SWAP,
        ),
        # A group above has less left than the one of the process.
        (
            V2
            | {"sys/fs/cgroup/pod/box/memory.max": "9000", "sys/fs/cgroup/pod/box/memory.current": "0"}
            | {"sys/fs/cgroup/pod/memory.max": "5000", "sys/fs/cgroup/pod/memory.current": "4000"},
            1000 + SWAP,
        ),
        # A container sees its own group as the outermost, under a path that is one of the host.
        (V2 | {"sys/fs/cgroup/memory.max": "9000", "sys/fs/cgroup/memory.current": "2000"}, 7000 + SWAP),
        # Caches of files give way to tensors; and a group can have no swap.
        (
            V2
            | {"sys/fs/cgroup/memory.max": "9000", "sys/fs/cgroup/memory.current": "8900"}
            | {"sys/fs/cgroup/memory.stat": "anon 900\nfile 8000\ninactive_file 5000\nactive_file 2500\n"}
            | {"sys/fs/cgroup/memory.swap.max": "0\n", "sys/fs/cgroup/memory.swap.current": "0\n"},
            7600,
        ),
        (V2 | {"sys/fs/cgroup/memory.max": "5", "sys/fs/cgroup/memory.current": "9"}, SWAP),
        (V2 | {"sys/fs/cgroup/memory.max": str(2**62), "sys/fs/cgroup/memory.current": "9"}, MACHINE_FREE),
        (
            V1
            | {"sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes": "9000\n"}
            | {"sys/fs/cgroup/memory/docker/1f/memory.usage_in_bytes": "8000\n"}
            | {"sys/fs/cgroup/memory/docker/1f/memory.stat": "inactive_file 1\ntotal_inactive_file 3000\n"},
            4000 + SWAP,
        ),
        (
            V1
            | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9000\n"}
            | {"sys/fs/cgroup/memory/memory.usage_in_bytes": "8000\n"},
            1000 + SWAP,
        ),
        (V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE_FREE),
        ({"proc/self/cgroup": "garbage\n\n:\n"}, MACHINE_FREE),
    ],
)
def test_a_container_with_less_memory_than_its_machine_counts(tmp_path, files, free):
    assert available_bytes(CPU, a_system(tmp_path, MACHINE | files)) == free
