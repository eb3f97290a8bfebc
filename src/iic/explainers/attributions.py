"""What an explainer hands over: maps of some test images, and which images are explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iic.draws import generator
from iic.errors import UserError
from iic.provenance import made_otherwise

CHECKED = ("same_class", "same_ranking")  # of the record: how often a faster forward answers as float32 does


@dataclass(frozen=True)
class Maps:
    """The maps of a few images, in memory.

    Attributes:
        values: float32 (n, H, W), one per spatial pixel, higher = speaks more for the explained class.
        errors: float32 (n, H, W), the sampling's standard error of each value; None for methods that do not sample.
        numbers: a number per image, float64 (n,), such as forwards or superpixels.
        twin: the maps of the logit from the same forwards, where they were asked for beside the probability's.
    """

    values: np.ndarray
    errors: np.ndarray | None
    numbers: dict[str, np.ndarray]
    twin: Maps | None = None


@dataclass(frozen=True)
class Attributions:
    """One method's maps of some test images.

    Attributes:
        values: float32 (N, H, W), higher = speaks more for the explained class; read from disk where they lie there.
        indices: int64 (N,), positions in the test set.
        targets: int64 (N,), the explained class: the predicted one.
        extras: a number per image, float64 (N,), such as the number of superpixels.
        errors: float32 (N, H, W), standard errors, or None.
        made: what made them: parameters, network, precision; JSON-ready.
        folder: where they lie until they are saved, or None.
    """

    values: np.ndarray
    indices: np.ndarray
    targets: np.ndarray
    extras: dict[str, np.ndarray]
    errors: np.ndarray | None = None
    made: dict = field(default_factory=dict)
    folder: Path | None = None


def check_side_by_side(maps: Mapping[str, Attributions]) -> None:
    """Raise UserError unless the maps of all methods are of the same images, network, parameters and code."""
    first = next(iter(maps.values()))
    for method, other in maps.items():
        way_out = "run `kedro run --pipelines attribution` again, without --only-missing-outputs."
        if not np.array_equal(other.indices, first.indices):
            raise UserError(f"The maps of {method} are of other images than the rest: {way_out}")
        what = made_otherwise(other.made, first.made)
        if what:
            raise UserError(f"The maps of {method} were made with {what} than the rest: {way_out}")


def select_images(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of `count` test images: in rounds, one of each class a round, in random order.

    A smaller selection is the beginning of a larger one; of ten classes the first 30 images are three of each.

    Args:
        labels: int64 (N,).
        count: how many.
        seed: keys the selection.

    Returns:
        int64 (count,).

    Raises:
        UserError: `count` is larger than the set.
    """
    if count > len(labels):
        raise UserError(f"n_images = {count} is more than the {len(labels)} test images: lower n_images.")
    rng = generator("selection", seed)
    order = rng.permutation(len(labels))
    rounds = np.empty(len(labels), np.int64)  # the how-manieth of its class an image is
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rounds[members] = np.arange(len(members))
    return order[np.argsort(rounds[order], kind="stable")][:count]
