import numpy as np
import pytest
import torchvision
from PIL import Image

from iic.data.card import checksum, content_checksum, content_of, describe
from iic.data.images import ImageSet, check_sides
from iic.data.loading import check_source, load
from iic.errors import UserError
from iic.params import DataParams


def folder_params(**options):
    return DataParams(source="parquet", channels=3, class_names=("cat", "dog"), **options)


def test_a_folder_of_png_files_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("IIC_RAW", str(tmp_path))
    rng = np.random.default_rng(0)
    written = {}
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (28, 26, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / split / name / f"{i}.png")
                written[split, name, i] = pixels.transpose(2, 0, 1)
    assert check_source("pets", folder_params()) == 6
    train, test, _ = load("pets", folder_params(n_train=5))
    assert len(train) == 5 and set(train.labels) == {0, 1} and test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(test.images[4], written["test", "dog", 1])


def test_torchvision_is_the_second_source(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, root, train, download):
            self.data = np.full((4 if train else 2, 28, 28, 3), 7, np.uint8)
            self.data[0] = 9
            self.targets = [0, 1] * (2 if train else 1)

    monkeypatch.setenv("IIC_RAW", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    train, test, source = load("pets", folder_params(download="CIFAR10"))
    assert train.images.shape == (4, 3, 28, 28) and len(test) == 2 and "CIFAR10" in source


def test_neither_file_nor_download_names_both_ways(tmp_path, monkeypatch):
    def offline(*args, **options):
        raise RuntimeError("Error downloading x")

    monkeypatch.setenv("IIC_RAW", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    for params in (folder_params(download="CIFAR10"), folder_params()):
        with pytest.raises(UserError, match=r"train\.parquet.*network.*IIC_DATASETS=digits,shapes"):
            load("pets", params)


def test_labels_beyond_the_class_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("iic.data.loading.load_digits", lambda seed: (_labelled(3), _labelled(1)))
    with pytest.raises(UserError, match=r"labels of 'digits' run from 0 to 3, but 2 class names"):
        load("digits", DataParams(source="digits", channels=1, class_names=("a", "b")))


def _labelled(top):
    images = np.random.default_rng(0).integers(0, 256, (top + 1, 1, 28, 28), dtype=np.uint8)
    return ImageSet(images, np.arange(top + 1))


def test_a_class_without_training_images_is_named(monkeypatch):
    monkeypatch.setattr("iic.data.loading.load_digits", lambda seed: (_labelled(1), _labelled(1)))
    with pytest.raises(UserError, match="No training image of 'digits' shows c"):
        load("digits", DataParams(source="digits", channels=1, class_names=("a", "b", "c")))


def test_so_many_images_are_of_all_classes_though_the_source_is_sorted():
    params = DataParams(source="digits", channels=1, class_names=tuple("0123456789"), n_train=200, n_test=100)
    train, test, _ = load("digits", params)
    assert len(train) == 200 and len(test) == 100 == check_source("digits", params)
    assert set(train.labels) == set(test.labels) == set(range(10))


def test_images_of_the_wrong_form_are_refused():
    with pytest.raises(UserError, match=r"has 1 channels, but data\.channels is 3"):
        load("digits", DataParams(source="digits", channels=3, class_names=tuple("0123456789")))
    with pytest.raises(UserError, match="It is 64 x 64 pixels, and the networks take 25 to 48"):
        check_sides((1, 64, 64), "It")


def test_the_card_counts(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 4), dtype=np.uint8)
    data = ImageSet(images, np.array([0] * 4 + [1] * 6))
    card = describe(data, data, name="pets", source="here", class_names=("cat", "dog"))
    assert card["train"]["images_per_class"] == {"cat": 4, "dog": 6}
    np.testing.assert_allclose(card["train"]["mean"], images.mean((0, 2, 3)))
    np.testing.assert_allclose(card["train"]["std"], images.std((0, 2, 3)))
    other = ImageSet(images ^ np.uint8(1), data.labels)
    assert (
        describe(data, other, name="p", source="", class_names=("a", "b"))["test"]["sha256"] != card["test"]["sha256"]
    )


def test_a_card_of_before_the_content_checksum_is_a_sentence():
    with pytest.raises(UserError, match="data card of 'pets' is of an older version"):
        content_of({"dataset": "pets", "train": {"sha256": "a"}})


def test_the_content_checksum_is_of_labelled_images_whatever_their_order():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10, 3, 4, 4), dtype=np.uint8), np.array([0] * 4 + [1] * 6)
    data, order = ImageSet(images, labels), rng.permutation(10)
    turned = ImageSet(images[order], labels[order])
    assert content_checksum(turned) == content_checksum(data) and checksum(turned) != checksum(data)
    others = (ImageSet(images, labels[::-1].copy()), ImageSet(images ^ np.uint8(1), labels), data[np.arange(9)])
    doubled = data[np.array([*range(9), 0])]
    assert len({content_checksum(other) for other in (data, *others, doubled)}) == 5
