"""Shapley values of superpixels for a network's doubt, in nats."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iic.bayes.explanations import Weights
from iic.bayes.last_layer_maps import LastLayerDoubt
from iic.bayes.refusal import Doubt
from iic.draws import generator
from iic.explainers.coalitions import draw_coalitions
from iic.explainers.kernel_shap import all_masks, paired_values, shapley_values


def kernel_shap(
    doubt: Doubt | LastLayerDoubt,
    images: np.ndarray,
    segments: np.ndarray,
    fill: np.ndarray,
    *,
    indices: np.ndarray,
    budget: int,
    seed: int,
) -> np.ndarray:
    """Shapley values of superpixels for the doubt, asked as a black box: one walk through the samples an image.

    Args:
        images: uint8 (N, C, H, W).
        segments: int64 (N, H, W), superpixels 0..M-1 of each image.
        fill: float (C,), the colour of what is switched off, pixel units.
        indices: int64 (N,), positions in the test set, which with `seed` key the masks.
        budget: masks an image, other than none and all.

    Returns:
        float32 (N, H, W), nats; the sum over superpixels is the doubt less that about the fill alone.
    """
    found = []
    for image, areas, index in zip(images, segments, indices, strict=True):
        rng, name = generator("method", seed, index), f"test image {index}"
        drawn = draw_coalitions(int(areas.max()) + 1, budget, rng, name=name)
        found.append(paired_values(drawn, doubt_of_masks(doubt, image, areas, fill, all_masks(drawn))))
    values, _ = shapley_values(found)
    return np.stack([v[areas] for v, areas in zip(values, segments, strict=True)]).astype(np.float32)


def doubt_of_masks(
    doubt: Doubt | LastLayerDoubt, image: np.ndarray, areas: np.ndarray, fill: np.ndarray, masks: np.ndarray
) -> np.ndarray:
    """The doubt about an image (C, H, W) of which only some superpixels (H, W) are shown: bool (masks, M) -> float64.

    A dense first layer sums what the superpixels give it: that is computed once for each, not once a mask.
    """
    if isinstance(doubt, Doubt) and next(iter(doubt.samples))["layer0.weight"].ndim == 2:
        return _of_dense(doubt, image, areas, fill, masks)
    shown = masks[:, areas][:, None]  # (masks, 1, H, W)
    return doubt(np.where(shown, image, np.reshape(fill, (-1, 1, 1))).astype(np.float32))


def _of_dense(doubt: Doubt, image: np.ndarray, areas: np.ndarray, fill: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """As `doubt_of_masks`: the same samples, whose first layer takes masks in place of pixels."""
    off = doubt.baseline(np.ones(image.shape) * np.reshape(fill, (-1, 1, 1)), image[None])  # (1, C * H * W)
    change = doubt.inputs(image[None]) - off
    members = torch.from_numpy(np.broadcast_to(areas, image.shape).reshape(-1).copy())  # (C * H * W,), of 0..M-1
    parts = torch.zeros(masks.shape[1], change.shape[1]).scatter_(0, members[None], change)  # (M, C * H * W)
    samples = [_taking_masks(weights, off[0], parts) for weights in doubt.samples]
    return Doubt(samples, doubt.pixel_mean, doubt.kind).of_inputs(torch.from_numpy(masks).float()).numpy()


def _taking_masks(weights: Weights, off: Tensor, parts: Tensor) -> dict[str, Tensor]:
    """Weights whose inputs are off + mask @ parts (M, inputs), as weights whose input is the mask (M,)."""
    first, bias = weights["layer0.weight"], weights["layer0.bias"]
    return {**weights, "layer0.weight": first @ parts.T, "layer0.bias": bias + first @ off}
