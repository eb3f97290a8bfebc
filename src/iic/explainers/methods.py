"""The one table of names -> functions, and the loop that explains a set of images with one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from iic.draws import generator
from iic.errors import UserError
from iic.params import AttributionParams

METHODS = ("lime", "kernel_shap", "lrp", "random", "sobel")
Progress = Callable[[Iterable], Iterable]


@dataclass(frozen=True)
class Attributions:
    """One method's maps of some test images.

    Attributes:
        values: float32 (N, H, W), one per spatial pixel, higher = speaks more for the explained class.
        indices: int64 (N,), positions in the test set.
        targets: int64 (N,), the explained class: the predicted one.
        extras: a number per image, float64 (N,), such as the number of superpixels.
    """

    values: np.ndarray
    indices: np.ndarray
    targets: np.ndarray
    extras: dict[str, np.ndarray]


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


def explain(
    method: str,
    model,
    images: np.ndarray,
    indices: np.ndarray,
    fill: np.ndarray,
    params: AttributionParams,
    *,
    progress: Progress = iter,
) -> Attributions:
    """Explain the predicted class of every image.

    Args:
        method: a name of METHODS.
        model: from `freeze`.
        images: uint8 (N, C, H, W).
        indices: int64 (N,), their positions in the test set, which key all draws: a map does not depend on the others.
        fill: float (C,), the dataset's mean colour, pixel units.
        params: budgets and settings.
        progress: wraps the loop over images, such as tqdm.

    Raises:
        UserError: an unknown method, or what the method says of its inputs.
    """
    import torch

    from iic.classifiers.inference import predicted_class

    if method not in METHODS:
        raise UserError(f"Unknown method '{method}': choose from {', '.join(METHODS)}.")
    targets = predicted_class(model, torch.from_numpy(images)).numpy()
    if method == "lrp":
        values, extras = _lrp_in_batches(model, images, targets, progress)
    else:
        values, extras = _one_by_one(method, model, images, indices, targets, fill, params, progress)
    if not np.isfinite(values).all():
        bad = indices[~np.isfinite(values).all((1, 2))][0]
        raise UserError(f"The {method} map of test image {bad} is not finite: train the model again.")
    return Attributions(values, indices, targets, extras)


def _one_by_one(method, model, images, indices, targets, fill, params, progress):
    """Methods that draw or perturb: each image by itself, its draws keyed by seed, position and method."""
    values = np.empty((len(images), *images.shape[2:]), np.float32)
    numbers = []
    for i in progress(range(len(images))):
        rng = generator("method", params.seed, indices[i], METHODS.index(method))
        values[i], row = _FUNCTIONS[method](model, images[i], int(targets[i]), fill, params, rng)
        numbers.append(row)
    return values, {name: np.array([row[name] for row in numbers], dtype=np.float64) for name in numbers[0]}


def _lrp_in_batches(model, images, targets, progress, batch_size: int = 50):
    """LRP needs one forward and one pass back: many images at once."""
    import torch

    from iic.explainers.lrp import relevance

    values, leaks = [], []
    for start in progress(range(0, len(images), batch_size)):
        part = slice(start, start + batch_size)
        flow, leak = relevance(model, torch.from_numpy(images[part]), torch.from_numpy(targets[part]))
        values.append(flow.sum(1).numpy())  # channels summed with their sign: (B, H, W)
        leaks.append(leak.double().numpy())
    return np.concatenate(values), {"leak": np.concatenate(leaks), "forwards": np.ones(len(images))}


def _lime(model, image, target, fill, params, rng):
    from iic.explainers.lime import draw_masks, lime_coefficients
    from iic.explainers.perturbation import masked_values
    from iic.explainers.segmentation import slic_superpixels

    segments = slic_superpixels(image, params.superpixels, params.compactness)
    masks = draw_masks(int(segments.max()) + 1, params.budget, rng)
    values = masked_values(model, image, segments, masks, fill, target, params.batch_size)
    weights = lime_coefficients(masks, values, kernel_width=params.lime_kernel_width, ridge=params.lime_ridge)
    return weights[segments], {"superpixels": masks.shape[1], "forwards": len(masks)}


def _kernel_shap(model, image, target, fill, params, rng):
    from iic.explainers.kernel_shap import draw_coalitions, shapley_values
    from iic.explainers.perturbation import masked_values
    from iic.explainers.segmentation import slic_superpixels

    segments = slic_superpixels(image, params.superpixels, params.compactness)
    masks, weights = draw_coalitions(int(segments.max()) + 1, params.budget - 2, rng)
    ends = np.stack([np.zeros(masks.shape[1], bool), np.ones(masks.shape[1], bool)])
    values = masked_values(model, image, segments, np.concatenate([ends, masks]), fill, target, params.batch_size)
    shares = shapley_values(masks, values[2:], weights, values[0], values[1])
    return shares[segments], {"superpixels": masks.shape[1], "forwards": len(values)}


def _random(model, image, target, fill, params, rng):
    from iic.explainers.controls import random_pixels

    return random_pixels(image.shape[1:], rng), {"forwards": 0}


def _sobel(model, image, target, fill, params, rng):
    from iic.explainers.controls import sobel_edges

    return sobel_edges(image), {"forwards": 0}


_FUNCTIONS = {"lime": _lime, "kernel_shap": _kernel_shap, "random": _random, "sobel": _sobel}
