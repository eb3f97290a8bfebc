"""Whether explanations point at a planted shortcut: which images show it, and what is reported of a method's maps."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from iic.classifiers.inference import predicted_class
from iic.evaluation.shortcut import Planted, points_at, warned
from iic.evaluation.statistics import bootstrap_interval

LEAST = 10  # images below which nothing is said of a method


def turned_images(model: nn.Module, planted: Planted, progress: Callable[[Iterable], Iterable] = iter) -> np.ndarray:
    """Test images of other classes that are named as the marked class with the watermark, and not without it.

    In them the watermark alone made the class, so the right explanation is known.

    Args:
        model: frozen.
        planted: from `plant`.
        progress: wraps the batches, such as tqdm.

    Returns:
        int64 (K,), positions in the test set.
    """
    others = np.flatnonzero(planted.clean.labels != planted.marked_class)
    clean, marked = (
        predicted_class(model, torch.from_numpy(data.images[others]), progress=progress).numpy()
        for data in (planted.clean, planted.marked)
    )
    return others[(clean != planted.marked_class) & (marked == planted.marked_class)]


def why_silent(taken: dict, turned: int, class_name: str) -> str | None:
    """Why nothing can be said of any method, in a sentence; None if it can.

    Args:
        taken: from `shortcut_taken`.
        turned: how many test images the watermark alone turns into the marked class.
        class_name: the marked class's.
    """
    if not taken["taken"]:
        return (
            f"The network did not take the shortcut: it names {taken['marked']['share']:.1%} of the other classes' "
            f"images '{class_name}' with the watermark and {taken['clean']['share']:.1%} without."
        )
    if turned < LEAST:
        return f"The watermark alone turns {turned} test images into '{class_name}', and {LEAST} are needed."
    return None


def summarise(maps: np.ndarray, patch: np.ndarray, indices: np.ndarray, *, replicates: int, seed: int) -> dict:
    """What is reported of one method's maps of marked images, each number with its 95 % interval.

    Args:
        maps: float (N, H, W), higher = speaks more for the marked class.
        patch: bool (N, H, W), where the watermark is, equally large in all images.
        indices: int64 (N,), positions in the test set, which with `seed` key how ties break.
        replicates: of the bootstrap over images.
        seed: of ties and bootstrap.

    Returns:
        JSON-ready: `mass`, `lift` and `auroc` (see `points_at`) with `mean` and `interval`; `warned` (see there) with
        `share` and `interval`.
    """
    draws = {"replicates": replicates, "seed": seed, "proportion": False}
    found = {
        name: {"mean": float(values.mean()), "interval": list(bootstrap_interval(values, **draws))}
        for name, values in points_at(maps, patch).items()
    }
    return {**found, "warned": warned(maps, patch, indices, seed)}


def packed(array: np.ndarray) -> dict:
    """An array as JSON: its type, its shape, its bytes in base 64. A list of numbers would take a line for each."""
    text = base64.b64encode(np.ascontiguousarray(array)).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "base64": text}


def unpacked(data: dict) -> np.ndarray:
    """The array that `packed` was given."""
    return np.frombuffer(base64.b64decode(data["base64"]), data["dtype"]).reshape(data["shape"])
