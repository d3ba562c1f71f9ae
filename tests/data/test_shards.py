"""Shards hold what their folder holds, give the same batches, and any damage to them is seen."""

import hashlib
import io
import itertools
import json
import shutil
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from resnets.data import shard_index
from resnets.data.batches import evaluation_batches, training_batches
from resnets.data.decode import read_image
from resnets.data.folder import list_folder
from resnets.data.jpeg import JPEG_MAGIC
from resnets.data.open import open_folder, open_test_folder
from resnets.data.order import ShardOrder
from resnets.data.preprocess import Preprocessor
from resnets.data.raw_pixels import RAW_MAGIC
from resnets.data.shard_index import DESCRIPTION, INDEX, Form, read_index
from resnets.data.shard_writer import prepare
from resnets.data.shards import holds_shards, list_shards
from resnets.data.sources import PackedNames
from resnets.specs.catalogue import model_spec
from resnets.specs.data import AreaCrop, ImageFolder
from resnets.specs.errors import DataError, ImageError, SpecError
from resnets.specs.preprocess import Preprocess
from resnets.specs.run import TrainSpec

CPU = torch.device("cpu")
RAW = Form(kind="raw", resize_px=20)
JPEG = Form(kind="jpeg", resize_px=20, quality=95)

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def write_folder(root, *, splits=("train/", "val/"), images=9):
    random = np.random.default_rng(0)
    for prefix, name in itertools.product(splits, ("cat", "d.o g", "élan")):
        (root / prefix / name).mkdir(parents=True)
        for number in range(images if prefix != "val/" else 2):
            size = (int(random.integers(18, 60)), int(random.integers(18, 60)))
            image = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size)
            image.save(root / prefix / name / f"{number}.x.{('jpg', 'png', 'webp', 'bmp')[number % 4]}")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    prepare(list_folder(folder), root, Form(), shard_bytes=20_000)
    return root


def images_of(dataset):
    return {
        (split, images.images.name(index), int(images.labels[index])): images.images.read(index)
        for split, images in dataset.splits.items()
        for index in range(len(images))
    }


def test_shards_as_they_are_hold_every_byte_in_the_order_of_the_folder(folder, shards):
    ours, theirs = open_folder(ImageFolder(), shards), open_folder(ImageFolder(), folder)
    assert list(images_of(ours).items()) == list(images_of(theirs).items())
    assert (ours.classes, ours.fingerprint) == (theirs.classes, theirs.fingerprint)
    assert len(list(shards.glob("train-*.tar"))) > 2
    assert ours.splits["train"].images.path(0) == f"{shards}/{theirs.splits['train'].images.name(0)}"
    tested = open_test_folder(shards), open_test_folder(folder)
    assert images_of(tested[0]) == images_of(tested[1])


def test_a_folder_without_splits_is_divided_alike(tmp_path):
    folder = write_folder(tmp_path / "photos", splits=("",))
    prepare(list_folder(folder), tmp_path / "shards", Form())
    spec = ImageFolder(validation_fraction=0.3, split_seed=5)
    ours, theirs = open_folder(spec, tmp_path / "shards"), open_folder(spec, folder)
    assert images_of(ours) == images_of(theirs)
    assert ours.fingerprint == theirs.fingerprint
    assert ours.notes == theirs.notes
    assert list(open_test_folder(tmp_path / "shards").splits) == list(open_test_folder(folder).splits) == ["test"]


def test_the_tar_files_are_those_of_the_format_and_their_checksums_are_right(folder, shards):
    index = read_index(shards)
    names = list(index.names)
    classes = (shards / "classes.txt").read_text().splitlines()
    for number, shard in enumerate(index.shards):
        content = (shards / shard.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard.sha256
        assert len(content) == shard.bytes
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = archive.getmembers()
            assert len(members) == 2 * shard.images
            rows = np.flatnonzero(index.places.shard == number)
            by_offset = {int(index.places.offset[row]): names[row] for row in rows.tolist()}
            for image, label in zip(members[::2], members[1::2], strict=True):
                path = by_offset[image.offset_data]
                assert archive.extractfile(image).read() == (folder / path).read_bytes()
                assert classes[int(archive.extractfile(label).read())] == path.split("/")[1]
                assert label.name == image.name.split(".")[0] + ".cls"


@pytest.mark.filterwarnings("ignore:.*unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_library_of_the_format_reads_them(folder, shards):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).to_tuple("__key__", "jpg;png;webp;bmp", "cls"))
    split = open_folder(ImageFolder(), folder).splits["train"]
    assert sorted(int(key) for key, _, _ in samples) == list(range(27))
    for key, content, label in samples:
        assert content == split.images.read(int(key))
        assert int(label) == split.labels[int(key)]


def test_stored_training_images_are_a_sample_of_all_classes(shards):
    index = read_index(shards)
    names = list(index.names)
    first = [names[row] for row in np.flatnonzero(index.places.shard == 0)]
    assert len({name.split("/")[1] for name in first}) > 1


@pytest.mark.parametrize("form", [RAW, JPEG])
def test_resized_images_are_upright_and_have_the_shorter_side(folder, tmp_path, form):
    turned = tmp_path / "photos"
    shutil.copytree(folder, turned)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8))
    photo.resize((50, 30)).save(turned / "train/cat/0.x.jpg", exif=exif, quality=95)
    photo.resize((660, 22)).save(turned / "train/cat/3.x.bmp")  # longer than inputs of a net ever are
    prepare(list_folder(turned), tmp_path / "shards", form)
    ours = open_folder(ImageFolder(), tmp_path / "shards").splits["train"]
    theirs = open_folder(ImageFolder(), turned).splits["train"]
    for index in range(len(theirs)):
        name = theirs.images.name(index)
        assert ours.images.name(index) == name
        whole, stored = read_image(theirs.images.read(index)), read_image(ours.images.read(index))
        assert min(stored.size) == min(20, *whole.size)
        assert stored.size[0] / stored.size[1] == pytest.approx(whole.size[0] / whole.size[1], rel=0.06)
        expected = np.asarray(whole.resize(stored.size, Image.Resampling.BILINEAR)).astype(np.float64)
        error = np.sqrt(((np.asarray(stored) - expected) ** 2).mean())
        assert error == 0 if form == RAW else error < 8


def test_a_small_jpeg_is_not_encoded_again(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (20, 30), "red").save(tmp_path / "photos" / name / "0.jpg", quality=30)
    prepare(list_folder(tmp_path / "photos"), tmp_path / "shards", JPEG)
    split = open_test_folder(tmp_path / "shards").splits["test"]
    assert split.images.read(0) == (tmp_path / "photos/a/0.jpg").read_bytes()


MAGIC = {".jpg": JPEG_MAGIC, ".npy": RAW_MAGIC, ".png": b"\x89PNG", ".webp": b"RIFF", ".bmp": b"BM"}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Four images a class, of which the JPEG is called .png."""
    root = write_folder(tmp_path_factory.mktemp("few"), splits=("",), images=4)
    for name in ("cat", "d.o g"):
        (root / name / "0.x.jpg").rename(root / name / "0.x.png")
    return root


@pytest.mark.parametrize("source", [None, Form(), JPEG, RAW, Form(kind="raw")])
@pytest.mark.parametrize("target", [Form(), JPEG, replace(JPEG, resize_px=9), RAW, Form(kind="raw", resize_px=9)])
def test_whatever_the_images_were_stored_as_they_become_what_is_asked_for(few, tmp_path, source, target):
    listing = list_folder(few)
    if source is not None:
        prepare(listing, tmp_path / "source", source)
        listing = list_shards(tmp_path / "source")
    prepare(listing, tmp_path / "target", target)
    ours, theirs = read_index(tmp_path / "target"), list_folder(few)
    assert ours.images == 12
    assert not ours.left_out
    names = [path for name in sorted(theirs.splits["train"]) for path in theirs.splits["train"][name]]
    with tarfile.open(tmp_path / "target/train-000000.tar") as archive:
        for member in archive.getmembers()[::2]:
            number, extension = int(member.name.split(".")[0]), "." + member.name.split(".")[1]
            content = archive.extractfile(member).read()
            assert content.startswith(MAGIC[extension])
            assert extension in {"as-is": MAGIC, "jpeg": {".jpg"}, "raw": {".npy"}}[target.kind]
            shorter = [form.resize_px for form in (source, target) if form is not None and form.resize_px]
            assert min(read_image(content).size) == min(*shorter, *read_image(few / names[number]).size, 60)


def test_a_copy_is_made_of_an_image_that_is_called_one(few, tmp_path):
    from resnets.data.shard_index import write_index

    prepare(list_folder(few), tmp_path / "shards", Form())
    index = read_index(tmp_path / "shards")
    for copy, suffix in (("long", "x" * 200), ("outside", "/../../..")):
        write_index(tmp_path / "shards", replace(index, names=PackedNames.of([name + suffix for name in index.names])))
        with pytest.raises(DataError, match="has no extension of an image"):
            prepare(list_shards(tmp_path / "shards"), tmp_path / copy, Form())
        assert not list((tmp_path / copy).glob("*.tar*"))


def run_of(**fields):
    folder = ImageFolder(image_px=16, resize_px=20, **fields)
    return TrainSpec(model=model_spec("resnet18"), dataset=folder, augment=AreaCrop(), seed=3, global_batch=6)


def batches_of(root, first_step=0, workers=0, rank=0, world_size=1, **fields):
    batches = training_batches(
        open_folder(ImageFolder(), root).splits["train"],
        Preprocessor(Preprocess(resize_px=20, crop_px=16)),
        run_of(**fields),
        device=CPU,
        channels_last=True,
        workers=workers,
        rank=rank,
        world_size=world_size,
    )
    taken = list(itertools.islice(batches.batches(first_step), 9))
    batches.close()
    return taken


def assert_same(some, others):
    for one, other in zip(some, others, strict=False):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.indices, other.indices)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_files_and_shards_give_the_same_batches(folder, shards, workers):
    files = batches_of(folder)
    assert_same(files, batches_of(shards, workers=workers))
    assert_same(files[4:], batches_of(shards, first_step=4, workers=workers))


def test_a_broken_image_is_left_out_of_shards_as_of_files(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "photos")
    (tmp_path / "photos/train/cat/1.x.png").write_bytes(b"no image")
    prepare(list_folder(tmp_path / "photos"), tmp_path / "shards", Form())
    files, ours = batches_of(tmp_path / "photos"), batches_of(tmp_path / "shards")
    assert_same(files, ours)
    named = [[skipped.reason for batch in some for skipped in batch.skipped] for some in (files, ours)]
    assert named[0] == named[1] != []


def test_a_shuffle_of_few_shards_at_a_time_is_resumed_and_shared_exactly(shards):
    whole = batches_of(shards, shuffle_shards=2)
    assert_same(whole[5:], batches_of(shards, first_step=5, workers=2, shuffle_shards=2))
    parts = [batches_of(shards, rank=rank, world_size=2, shuffle_shards=2) for rank in range(2)]
    for one, *halves in zip(whole, *parts, strict=True):
        assert torch.equal(one.images, torch.cat([half.images for half in halves]))


def test_a_shuffle_of_shards_needs_shards(folder):
    with pytest.raises(SpecError, match="not in shards"):
        batches_of(folder, shuffle_shards=2)
    with pytest.raises(SpecError, match="shuffle_shards is -1"):
        ImageFolder(shuffle_shards=-1)


@pytest.mark.parametrize("together", [1, 2, 3, 9])
def test_every_epoch_is_a_permutation_that_uses_few_shards_at_once(together):
    shards = np.array([0, 1, 2, 3, 4, 5, 6] * 5 + [3] * 9)
    order = ShardOrder(7, shards, together)
    seen = set()
    for epoch in range(3):
        positions = np.arange(len(shards)) + epoch * len(shards)
        indices = order.indices(positions)
        assert sorted(indices.tolist()) == list(range(len(shards)))
        groups = [set(group) for _, group in itertools.groupby(shards[indices].tolist())]
        assert groups
        used, rest = [], shards[indices].tolist()
        while rest:
            group = set()
            while rest and (len(group) < together or rest[0] in group):
                group.add(rest.pop(0))
            used.append(group)
        assert len(used) == -(-7 // together)
        assert sorted(itertools.chain(*used)) == list(range(7))
        seen.add(tuple(indices.tolist()))
        np.testing.assert_array_equal(ShardOrder(7, shards, together).indices(positions[5:]), indices[5:])
    assert len(seen) == 3


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_evaluation_counts_every_image_of_shards_once(shards, workers, world_size):
    split = open_folder(ImageFolder(), shards).splits["validation"]
    indices = [
        index
        for rank in range(world_size)
        for batch in evaluation_batches(
            split,
            Preprocessor(Preprocess(resize_px=20, crop_px=16)),
            batch_size=2,
            device=CPU,
            channels_last=True,
            workers=workers,
            rank=rank,
            world_size=world_size,
        )
        for index in batch.indices.tolist()
    ]
    assert sorted(indices) == list(range(6))


def test_a_missing_or_cut_shard_is_refused_at_once(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    shard = tmp_path / "copy/train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"train-000001\.tar has .* bytes; shards\.json says"):
        open_folder(ImageFolder(), tmp_path / "copy")
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000001\.tar cannot be read \(No such file"):
        open_folder(ImageFolder(), tmp_path / "copy")


def test_a_shard_that_is_lost_later_is_named_with_each_of_its_images(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    split = open_folder(ImageFolder(), tmp_path / "copy").splits["train"]
    (tmp_path / "copy/train-000001.tar").unlink()
    lost = split.images.shard == list(read_index(shards).shards).index(read_index(shards).shards[1])
    for index in range(len(split)):
        if lost[index]:
            with pytest.raises(ImageError, match=r"train-000001\.tar cannot be read"):
                split.images.read(index)
        else:
            split.images.read(index)


def mutated(content, random):
    """Return content with a few bytes changed, removed, doubled or cut off."""
    content = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(0, max(1, len(content))))
        match int(random.integers(0, 5)):
            case 0:
                content[at : at + 1] = random.bytes(1)
            case 1:
                del content[at : at + int(random.integers(1, 50))]
            case 2:
                content[at:at] = random.bytes(int(random.integers(1, 50)))
            case 3:
                content[at:at] = content[at : at + 40]
            case _:
                del content[max(1, at) :]
    return bytes(content)


def check_damage(root, clean, random):
    """Damage one file of a set: what can still be opened has the right images, and names every other one."""
    victim = root / sorted(path.name for path in root.iterdir())[int(random.integers(0, len(list(root.iterdir()))))]
    before = victim.read_bytes()
    victim.write_bytes(mutated(before, random))
    try:
        try:
            dataset = open_folder(ImageFolder(), root)
        except DataError:
            return "refused"
        found, named = {}, 0
        for split, images in dataset.splits.items():
            for index in range(len(images)):
                key = (split, images.images.name(index), int(images.labels[index]))
                try:
                    found[key] = images.images.read(index)
                except ImageError:
                    named += 1
                else:
                    assert found[key] == clean[key]
        assert len(found) + named == len(clean)
        return "named" if named else "whole"
    finally:
        victim.write_bytes(before)


def test_no_damage_to_a_set_gives_a_wrong_image_or_count(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    random = np.random.default_rng(0)
    clean = images_of(open_folder(ImageFolder(), shards))
    outcomes = [check_damage(tmp_path / "copy", clean, random) for _ in range(300)]
    assert set(outcomes) == {"refused", "named", "whole"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 2, "version 2; this resnets reads version 1"),
        ("images", 5, "checksum is wrong"),
        ("checksum", "", "checksum is wrong"),
        ("format", "other", "does not describe shards"),
    ],
)
def test_an_edited_description_is_refused(shards, tmp_path, field, value, message):
    shutil.copytree(shards, tmp_path / "copy")
    path = tmp_path / "copy" / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DataError, match=message):
        list_shards(tmp_path / "copy")


def test_an_index_that_only_a_hostile_writer_can_have_made_is_refused(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    whole = (shards / INDEX).read_bytes()
    description = json.loads((shards / DESCRIPTION).read_text())
    del description["checksum"]
    directory = whole.index(b"PK\x01\x02")
    for at in [*range(directory, directory + 46), *range(len(whole) - 22, len(whole))]:
        for bit in (1, 32):
            damaged = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
            check_forged(tmp_path / "copy", description, damaged)
    huge = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(huge, "w") as archive:
        for name in zipfile.ZipFile(io.BytesIO(whole)).namelist():
            archive.writestr(name, header.getvalue())
    assert check_forged(tmp_path / "copy", description, huge.getvalue()) == "refused"


def test_an_index_of_packed_arrays_is_refused_before_they_are_unpacked(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    description = json.loads((shards / DESCRIPTION).read_text())
    del description["checksum"]
    with np.load(shards / INDEX) as arrays:
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)
    assert check_forged(tmp_path / "copy", description, (shards / INDEX).read_bytes()) == "read"
    assert check_forged(tmp_path / "copy", description, packed.getvalue()) == "refused"


def test_a_set_without_training_images_is_to_test_on(shards, tmp_path):
    from resnets.data.shard_index import write_index

    shutil.copytree(shards, tmp_path / "copy")
    index = read_index(shards)
    splits = {"test": index.splits["train"], "validation": index.splits["validation"]}
    write_index(tmp_path / "copy", replace(index, splits=splits))
    with pytest.raises(DataError, match="has no training images"):
        open_folder(ImageFolder(), tmp_path / "copy")
    assert len(open_test_folder(tmp_path / "copy").splits["test"]) == 27


def check_forged(root, description, index):
    """Read an index that its description vouches for."""
    described = description | {"index_sha256": hashlib.sha256(index).hexdigest()}
    (root / INDEX).write_bytes(index)
    (root / DESCRIPTION).write_text(json.dumps(described | {"checksum": shard_index._checksum(described)}))
    try:
        read_index(root)
    except DataError:
        return "refused"
    return "read"


def test_an_index_that_contradicts_itself_is_refused(shards, tmp_path):
    from resnets.data.shard_index import write_index

    index = read_index(shards)
    places, first = index.places, index.shards[0]
    wrong = [
        replace(index, places=replace(places, shard=places.shard + 99)),
        replace(index, places=replace(places, offset=places.offset + 10**9)),
        replace(index, places=replace(places, size=places.size - 10**9)),
        replace(index, splits=index.splits | {"validation": {}}),
        replace(index, splits=index.splits | {"validation": {"cat": 2.0, "d.o g": 2, "élan": 2}}),
        replace(index, splits=index.splits | {"validation": {"cat": 5, "d.o g": 2, "élan": -1}}),
        replace(index, divided=False),
        replace(index, splits={"other": index.splits["train"], "validation": index.splits["validation"]}),
        replace(index, shards=(replace(first, file="../train-000000.tar"), *index.shards[1:])),
        replace(index, shards=(replace(first, images=0), *index.shards[1:])),
        *(
            replace(index, shards=(replace(first, **{name: value}), *index.shards[1:]))
            for name, value in {
                "file": "..",
                "sha256": "abcdef01",
                "bytes": 10**30,
            }.items()
        ),
        replace(index, shards=(replace(first, file="train-000000.tar\0"), *index.shards[1:])),
        replace(index, names=type(index.names)(index.names.text[:-1], index.names.ends)),
    ]
    for number, one in enumerate(wrong):
        root = tmp_path / str(number)
        root.mkdir()
        write_index(root, one)
        with pytest.raises(DataError, match="no index of shards"):
            read_index(root)
    assert not holds_shards(tmp_path)
    (tmp_path / "0" / INDEX).unlink()
    with pytest.raises(DataError, match=r"index\.npz cannot be read"):
        read_index(tmp_path / "0")
