"""Nodes that bring images in and describe them."""

from __future__ import annotations

from iic.data.card import describe
from iic.data.images import ImageSet
from iic.data.loading import load
from iic.params import DataParams
from iic.progress import bar


def prepare_data(params: DataParams, dataset: str) -> tuple[ImageSet, ImageSet, dict]:
    """Training images, test images and the data card."""
    train, test, source = load(dataset, params, bar(f"{dataset}: images", "image"))
    card = describe(train, test, name=dataset, source=source, class_names=params.class_names)
    return train, test, card
