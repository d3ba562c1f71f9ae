"""What a value of --data means, and opening what it means."""

from pathlib import Path

import pytest
from PIL import Image

from resnets.data.open import dataset_spec_for, open_dataset
from resnets.specs.data import Cifar, Digits, ImageFolder
from resnets.specs.errors import DataError


def test_known_words_win_over_folders_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert dataset_spec_for("digits", Cifar()) == (Digits(), None)
    assert dataset_spec_for("./digits", Cifar()) == (ImageFolder(), Path("digits"))


@pytest.mark.parametrize("num_classes", [10, 100])
def test_cifar_keeps_the_validation_images_of_the_recipe(num_classes):
    spec, root = dataset_spec_for(f"cifar{num_classes}", Cifar(validation_images=5000))
    assert (spec, root) == (Cifar(num_classes=num_classes, validation_images=5000), None)
    assert dataset_spec_for(f"cifar{num_classes}", Digits())[0] == Cifar(num_classes=num_classes)


def test_a_folder_keeps_the_fields_of_a_recipe_for_folders(tmp_path):
    default = ImageFolder(image_px=64, resize_px=70)
    assert dataset_spec_for(str(tmp_path), default) == (default, tmp_path)
    assert dataset_spec_for(str(tmp_path), Digits()) == (ImageFolder(), tmp_path)


@pytest.mark.parametrize(
    ("name", "num_classes"),
    [
        ("cifar-10-batches-bin", 10),
        ("cifar-10-batches-py", 10),
        ("cifar-100-binary", 100),
        ("cifar-100-python", 100),
    ],
)
def test_a_folder_of_official_cifar_files_is_cifar(tmp_path, name, num_classes):
    (tmp_path / name).mkdir()
    for root in (tmp_path, tmp_path / name):
        assert dataset_spec_for(str(root), ImageFolder()) == (Cifar(num_classes=num_classes), root)


def test_of_two_cifar_sets_in_a_folder_the_recipe_chooses(tmp_path):
    for name in ("cifar-10-batches-bin", "cifar-100-binary"):
        (tmp_path / name).mkdir()
    assert dataset_spec_for(str(tmp_path), Cifar(num_classes=100))[0] == Cifar(num_classes=100)
    assert dataset_spec_for(str(tmp_path), Digits())[0] == Cifar()


def test_a_word_or_path_that_leads_nowhere_is_refused_with_near_misses(tmp_path):
    (tmp_path / "flowers").mkdir()
    (tmp_path / "set.tar").write_text("")
    for data, expected in [
        ("digit", "Did you mean digits"),
        (str(tmp_path / "flower"), "Did you mean .*flowers"),
        (str(tmp_path / "set.tar"), "is a file; if it is an archive, unpack it"),
        ("", "--data is empty"),
    ]:
        with pytest.raises(DataError, match=expected) as error:
            dataset_spec_for(data, Digits())
        assert "digits, cifar10, cifar100, the path of a folder, or the address of shards" in str(error.value)


def test_each_kind_of_spec_is_opened(tmp_path):
    for name in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (3, 3)).save(tmp_path / name)
    assert open_dataset(Digits()).name == "digits"
    assert open_dataset(ImageFolder(), tmp_path).classes == ("cat", "dog")
    with pytest.raises(DataError, match="is a file"):
        open_dataset(Cifar(), tmp_path / "cat/0.png")


def test_a_folder_recipe_without_a_folder_asks_for_it():
    with pytest.raises(DataError, match="--data FOLDER"):
        open_dataset(ImageFolder())
