"""The form of every dataset inside the project: uint8 images, int64 labels, optional object masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iic.draws import generator
from iic.errors import UserError

SIDES = range(25, 49)  # pixels: three poolings by 2 leave 3 to 5, which the last pooling brings to 1
GOLDEN = (5**0.5 - 1) / 2  # its multiples less whole numbers fill 0..1 evenly, however many there are


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one size.

    Attributes:
        images: uint8 (N, C, H, W), values 0..255, C = 1 (grey) or 3 (RGB).
        labels: int64 (N,), class numbers from 0.
        masks: bool (N, H, W), True on the object's pixels; only for datasets whose right explanation is known.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise UserError(
                f"Images must be uint8 of shape (N, 1 or 3, H, W), not {self.images.dtype} {self.images.shape}."
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"Labels must be int64, one per image ({len(self.images)}), "
                f"not {self.labels.dtype} {self.labels.shape}."
            )
        expected = (len(self.images), *self.images.shape[2:])
        if self.masks is not None and (self.masks.dtype != np.bool_ or self.masks.shape != expected):
            raise UserError(f"Masks must be bool {expected}, not {self.masks.dtype} {self.masks.shape}.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: np.ndarray) -> ImageSet:
        """The images at these positions, int64 (K,), in this order."""
        return ImageSet(self.images[chosen], self.labels[chosen], None if self.masks is None else self.masks[chosen])


def check_sides(shape: tuple[int, ...], what: str) -> None:
    """Raise UserError unless the project's networks take images of this size (C, H, W)."""
    if not all(side in SIDES for side in shape[1:]):
        raise UserError(
            f"{what} is {shape[1]} x {shape[2]} pixels, and the networks take {SIDES[0]} to {SIDES[-1]} a side: "
            "resize the images, or give a network of your own (training.weights)."
        )


def hold_out(data: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """(the rest, `count` images drawn by the seed), both in the order of `data`.

    Raises:
        UserError: nothing would be left.
    """
    if count >= len(data):
        raise UserError(f"Of {len(data)} training images {count} cannot be held out: lower training.n_validation.")
    held = np.zeros(len(data), bool)
    held[generator("holdout", seed).permutation(len(data))[:count]] = True
    return data[np.flatnonzero(~held)], data[np.flatnonzero(held)]


def evenly_spread(data: ImageSet, count: int) -> np.ndarray:
    """At most so many images, at evenly spaced positions: uint8 (S, C, H, W).

    Their order jumps over the whole set, so that the first ones, however many, lie evenly in it too: a set may be
    sorted by class.
    """
    count = min(count, len(data))
    places = np.linspace(0, len(data) - 1, count, dtype=int)
    order = np.argsort(np.argsort(np.arange(count) * GOLDEN % 1))  # of a row of points, each one's rank
    return data.images[places[order]]
