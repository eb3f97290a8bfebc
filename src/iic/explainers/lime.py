"""LIME for images (Ribeiro et al. 2016), with the sampling, kernel and ridge regression of the `lime` package."""

from __future__ import annotations

import numpy as np


def draw_masks(superpixels: int, budget: int, rng: np.random.Generator) -> np.ndarray:
    """bool (budget, M): each superpixel kept with probability 1/2; the first row keeps all."""
    masks = rng.random((budget, superpixels)) < 0.5
    masks[0] = True
    return masks


def proximity(masks: np.ndarray, kernel_width: float) -> np.ndarray:
    """sqrt(exp(-d^2 / width^2)), d = 1 - sqrt(|z| / M) the cosine distance to the mask that keeps all: (B,)."""
    distance = 1 - np.sqrt(masks.mean(1))
    return np.sqrt(np.exp(-((distance / kernel_width) ** 2)))


def lime_coefficients(
    masks: np.ndarray, values: np.ndarray, *, kernel_width: float = 0.25, ridge: float = 1.0
) -> np.ndarray:
    """Weighted ridge regression of values on masks, intercept unpenalised.

    Args:
        masks: bool (B, M).
        values: float (B,), the network's probability for each mask.
        kernel_width: sigma of the proximity kernel.
        ridge: the penalty alpha on the coefficients' squares.

    Returns:
        float64 (M,), a coefficient per superpixel.
    """
    weights = proximity(masks, kernel_width)
    rows = masks.astype(np.float64)
    rows = rows - np.average(rows, axis=0, weights=weights)  # centring takes the intercept out of the penalty
    centred = values - np.average(values, weights=weights)
    gram = (rows * weights[:, None]).T @ rows
    return np.linalg.solve(gram + ridge * np.eye(rows.shape[1]), (rows * weights[:, None]).T @ centred)
