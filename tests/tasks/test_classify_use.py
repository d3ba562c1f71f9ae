"""A trained model in use: evaluation, ensembles, prediction, damaged folders."""

import dataclasses
import json
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import ResNet50_Weights

import resnets
from resnets.artifacts.model_folder import StoredModel
from resnets.data.open import open_dataset
from resnets.data.preprocess import Preprocessor
from resnets.specs.data import Digits
from resnets.specs.errors import DataError, ImageError, InterruptedRunError, ModelError, UserError
from resnets.specs.preprocess import Preprocess
from resnets.tasks.classify.evaluate import align_classes

QUICK = resnets.Machine(device="cpu", checkpoint_every=100, workers=0)


@pytest.fixture
def digits_run(digits_spec, tmp_path):
    resnets.train(digits_spec, run=tmp_path / "run", machine=QUICK, quiet=True)
    return tmp_path / "run"


def test_evaluation_agrees_with_a_loop_over_single_images(digits_run):
    report = resnets.evaluate([digits_run], data="digits")
    net = resnets.load(digits_run)
    split = open_dataset(Digits(), None).splits["test"]
    wrong = 0
    with torch.no_grad():
        for image, label in zip(split.images, split.labels, strict=True):
            pixels = image.astype(np.float64) - net.stored.preprocessor.mean_image
            logits = net.model(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
            wrong += int(logits.argmax()) != label
    assert report["images"] == 360
    assert report["top1_error"] == pytest.approx(100 * wrong / 360)
    assert np.array(report["confusion"]).sum() == 360
    assert report["split"] == "test"


def test_prediction_takes_files_images_arrays_and_tensors(digits_run, tmp_path):
    net = resnets.load(digits_run)
    array = open_dataset(Digits(), None).splits["test"].images[0]
    Image.fromarray(array[:, :, 0]).save(tmp_path / "digit.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    sources = [
        tmp_path / "digit.png",
        str(tmp_path / "digit.png"),
        Image.fromarray(array[:, :, 0]),
        array,
        tensor,
        tensor / 255,
    ]
    results = net.predict(sources, top_k=3)
    assert len(results) == 6
    assert all(len(ranked) == 3 for ranked in results)
    for ranked in results[1:]:
        assert [one.label for one in ranked] == [one.label for one in results[0]]
        assert ranked[0].probability == pytest.approx(results[0][0].probability, abs=1e-6)
    probabilities = [one.probability for one in net.predict([array], top_k=99)[0]]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert probabilities == sorted(probabilities, reverse=True)


def test_a_single_image_is_a_list_of_one(digits_run, tmp_path):
    net = resnets.load(digits_run)
    array = open_dataset(Digits(), None).splits["test"].images[0]
    Image.fromarray(array[:, :, 0]).save(tmp_path / "digit.png")
    rgb = np.repeat(array, 3, axis=2)
    for one in (str(tmp_path / "digit.png"), tmp_path / "digit.png", Image.fromarray(rgb), rgb, array):
        assert len(net.predict(one)) == 1
    assert len(net.predict(torch.from_numpy(rgb).permute(2, 0, 1))) == 1
    assert resnets.evaluate(net, data="digits")["images"] == 360
    with pytest.raises(DataError, match="NoneType"):
        net.predict(None)


def test_prediction_refuses_what_is_no_image(digits_run, tmp_path):
    net = resnets.load(digits_run)
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(ImageError, match=r"text.jpg"):
        net.predict([tmp_path / "text.jpg"])
    for wrong in (np.zeros((8, 8)), torch.zeros(8, 8), torch.full((1, 8, 8), 7.0), 3):
        with pytest.raises(DataError):
            net.predict([wrong])
    with pytest.raises(UserError, match="top_k"):
        net.predict([], top_k=0)


def test_an_ensemble_averages_the_softmax_scores(digits_spec, tmp_path):
    runs = [tmp_path / str(seed) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        resnets.train(dataclasses.replace(digits_spec, seed=seed), run=run, machine=QUICK, quiet=True)
    report = resnets.evaluate(runs, data="digits")
    nets = [resnets.load(run) for run in runs]
    split = open_dataset(Digits(), None).splits["test"]
    inputs = nets[0].stored.preprocessor.normalize(torch.from_numpy(split.images).permute(0, 3, 1, 2))
    with torch.no_grad():
        mean = sum(net.model(inputs).double().softmax(1) for net in nets) / 2
    errors = (mean.argmax(1) != torch.from_numpy(split.labels)).double().mean()
    assert report["top1_error"] == pytest.approx(100 * float(errors))
    assert len(report["models"]) == 2


def test_a_model_folder_and_an_unfinished_run_load_as_well(digits_spec, digits_run, tmp_path, signal_at):
    moved = tmp_path / "elsewhere"
    shutil.copytree(digits_run / "model", moved)
    assert resnets.load(moved).classes == tuple("0123456789")
    disarm = signal_at(5)
    with pytest.raises(InterruptedRunError):
        resnets.train(digits_spec, run=tmp_path / "half", machine=QUICK, quiet=True)
    disarm()
    report = resnets.evaluate(tmp_path / "half", data="digits")
    assert report["images"] == 360
    assert "not finished: step 5 of 24" in report["notes"][0]


def test_a_folder_without_splits_is_evaluated_on_the_images_that_were_held_out(photos, photos_spec, tmp_path):
    flat = photos / "train"
    trained = resnets.train(photos_spec, data=flat, run=tmp_path / "run", machine=QUICK, quiet=True)
    report = resnets.evaluate([tmp_path / "run"], data=flat)
    assert report["split"] == "validation"
    assert report["images"] == trained.metrics["images"] == 3
    assert report["top1_error"] == pytest.approx(trained.metrics["top1_error"])


def test_class_names_are_the_models_whatever_the_folder_lacks(photos, photos_spec, tmp_path):
    resnets.train(photos_spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    fewer = tmp_path / "fewer"
    for name in ("green", "red"):
        shutil.copytree(photos / "val" / name, fewer / "train" / name)
        shutil.copytree(photos / "val" / name, fewer / "test" / name)
    report = resnets.evaluate([tmp_path / "run"], data=fewer)
    assert report["classes"] == ["blue", "green", "red"]
    assert report["per_class_errors"]["blue"] is None
    shutil.copytree(photos / "val" / "red", fewer / "train" / "violet")
    with pytest.raises(ModelError, match="violet"):
        resnets.evaluate([tmp_path / "run"], data=fewer)


@pytest.mark.parametrize("damage", ["truncated", "text", "flipped shape", "nan json", "missing weights", "other net"])
def test_a_damaged_model_folder_is_refused(digits_run, damage):
    weights, config = digits_run / "model" / "model.safetensors", digits_run / "model" / "config.json"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "text":
            weights.write_text("hello")
        case "flipped shape":
            tensors = load_file(weights)
            save_file(tensors | {"fc.weight": tensors["fc.weight"].T.contiguous()}, weights)
        case "nan json":
            config.write_text("{")
        case "missing weights":
            weights.unlink()
        case "other net":
            values = json.loads(config.read_text())
            values["model"]["blocks"] = [2, 2, 2]
            config.write_text(json.dumps(values))
    with pytest.raises(ModelError):
        resnets.load(digits_run)


def test_a_folder_of_test_images_is_scored_whole(photos, photos_spec, tmp_path):
    resnets.train(photos_spec, data=photos, run=tmp_path / "run", machine=QUICK, quiet=True)
    report = resnets.evaluate([tmp_path / "run"], data=photos / "val")
    assert (report["images"], report["split"]) == (15, "test")
    shutil.copytree(photos / "val", tmp_path / "only" / "test")
    assert resnets.evaluate([tmp_path / "run"], data=tmp_path / "only")["images"] == 15
    shutil.rmtree(tmp_path / "only" / "test" / "blue")
    shutil.rmtree(tmp_path / "only" / "test" / "red")
    report = resnets.evaluate([tmp_path / "run"], data=tmp_path / "only")
    assert (report["images"], report["per_class_errors"]["blue"]) == (5, None)


def test_a_rotated_photograph_is_upright_as_a_file_and_as_an_image(digits_run, tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "rotated.png", exif=exif)
    net = resnets.load(digits_run)
    with Image.open(tmp_path / "rotated.png") as image:
        ours, theirs = net.predict([image, tmp_path / "rotated.png"])
    assert ours == theirs


IDS = ("n01440764", *(f"n{number:08}" for number in range(2_000_000, 2_000_998)), "n15075141")
"""As the folders of ImageNet 2012 are called: the first and the last, and 998 between them."""


@pytest.fixture
def imagenet(photos, photos_spec):
    """Return a function from a model's 1,000 class names to a dataset of WordNet ids and its labels counted by them."""
    dataset = dataclasses.replace(open_dataset(photos_spec.dataset, photos), classes=IDS)
    stored = StoredModel(
        model=torch.nn.Identity(),
        spec=photos_spec.model,
        preprocessor=Preprocessor(Preprocess(resize_px=36, crop_px=32)),
        classes=(),
        metrics={},
    )

    def align(names, ids=IDS):
        model = dataclasses.replace(stored, classes=tuple(names))
        return dataset, align_classes(dataclasses.replace(dataset, classes=tuple(ids)), model, "the model")

    return align


def categories():
    return list(ResNet50_Weights.DEFAULT.meta["categories"])


def synonyms():
    """ImageNet's classes as longer lists have them: synonyms, underscores, other case, no word that tells two apart."""
    names = categories()
    names[0], names[1], names[2] = "tench, Tinca tinca", "goldfish, Carassius auratus", "great_white_shark, white shark"
    names[134], names[639], names[999] = "crane", "maillot, tank suit", "toilet tissue, toilet paper, bathroom tissue"
    return [name.upper() if place % 3 == 0 else name for place, name in enumerate(names)]


@pytest.mark.parametrize("names", [categories, synonyms])
def test_folders_of_wordnet_ids_are_imagenets_classes_in_order(imagenet, names):
    dataset, aligned = imagenet(names())
    assert aligned.classes == tuple(names())
    assert (aligned.splits["train"].labels == dataset.splits["train"].labels).all()
    assert "WordNet" in aligned.notes[-1]
    with pytest.raises(ModelError, match="does not know"):
        imagenet(names(), IDS[:-1])


def test_a_few_classes_may_have_names_of_their_own(imagenet):
    names = categories()
    for place in range(25, 65):
        names[place] = f"class {place}"
    imagenet(names)


@pytest.mark.parametrize("names", [categories, synonyms])
@pytest.mark.parametrize("order", ["two changed", "tiger and tiger cat", "inner shuffled", "shifted by one", "sorted"])
def test_imagenets_names_in_another_order_are_refused(imagenet, names, order):
    names = names()
    match order:
        case "two changed":
            names[1], names[2] = names[2], names[1]
        case "tiger and tiger cat":
            names[282], names[292] = names[292], names[282]
        case "inner shuffled":
            inner = names[1:-1]
            random.Random(0).shuffle(inner)
            names[1:-1] = inner
        case "shifted by one":
            names[1:-1] = [*names[2:-1], names[1]]
        case "sorted":
            names[1:-1] = sorted(names[1:-1])
    with pytest.raises(ModelError, match=r"the model does not name .*--class-names") as error:
        imagenet(names)
    assert "\n" not in str(error.value)


def test_a_thousand_other_classes_are_refused(imagenet):
    for names in (
        [str(number) for number in range(1000)],
        ["", *map(str, range(999))],
        ["tench"] * 999 + ["toilet tissue"],
    ):
        with pytest.raises(ModelError, match=r"class 0|class 1"):
            imagenet(names)
