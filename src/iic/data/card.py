"""The data card: what a dataset is, in numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from iic.data.images import ImageSet
from iic.errors import UserError


def checksum(data: ImageSet) -> str:
    """sha256 over the labels' bytes, then the images'."""
    digest = hashlib.sha256(np.ascontiguousarray(data.labels))
    digest.update(np.ascontiguousarray(data.images))
    return digest.hexdigest()


def content_checksum(data: ImageSet) -> str:
    """The same for the same labelled images in whatever order: sha256 over the sorted sha256 of each.

    The usual sources of one dataset, such as torchvision's files and the Hugging Face hub's, differ in their order.
    """
    labels = np.ascontiguousarray(data.labels)
    each = (
        hashlib.sha256(label).digest() + hashlib.sha256(image).digest()
        for label, image in zip(labels, data.images, strict=True)
    )
    return hashlib.sha256(b"".join(sorted(each))).hexdigest()


def content_of(card: Mapping[str, Any], split: str = "train") -> str:
    """The content checksum of a split, as the card has it.

    Raises:
        UserError: a card of before there was one.
    """
    if "content_sha256" not in card[split]:
        raise UserError(
            f"The data card of '{card['dataset']}' is of an older version: run `kedro run --pipelines data_prep` again."
        )
    return card[split]["content_sha256"]


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel: uint8 (N, C, H, W) -> two lists of C floats, pixel units."""
    histograms = [np.bincount(images[:, c].ravel(), minlength=256) for c in range(images.shape[1])]
    levels = np.arange(256)
    means = [float(h @ levels / h.sum()) for h in histograms]
    stds = [float(np.sqrt(h @ (levels - mean) ** 2 / h.sum())) for h, mean in zip(histograms, means, strict=True)]
    return means, stds


def describe(train: ImageSet, test: ImageSet, *, name: str, source: str, class_names: tuple[str, ...]) -> dict:
    """The card, JSON-ready: source, shape, classes, and of each split counts, checksums, mean and std per channel."""
    splits = {}
    for split, data in (("train", train), ("test", test)):
        means, stds = channel_statistics(data.images)
        counts = np.bincount(data.labels, minlength=len(class_names)).tolist()
        splits[split] = {
            "images": len(data),
            "images_per_class": dict(zip(class_names, counts, strict=True)),
            "sha256": checksum(data),
            "content_sha256": content_checksum(data),
            "mean": means,
            "std": stds,
            "masks": data.masks is not None,
        }
    return {"dataset": name, "source": source, "shape_chw": list(train.images.shape[1:]), "units": "0..255", **splits}
