"""LIME for images (Ribeiro et al. 2016), with the kernel and ridge regression of the `lime` package.

Masks are its coin flips, drawn in pairs (z, 1 - z): each mask by itself is distributed as `lime_image`'s, and what the
network says of a pair cancels part of what each would add by chance. When every mask can be afforded, all are used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iic.explainers.regression import cholesky, padded, padded_vectors


def draw_masks(superpixels: int, budget: int, rng: np.random.Generator) -> np.ndarray:
    """bool (B, M), B <= budget: the mask that keeps all, then pairs of complements, each superpixel a coin flip.

    When 2^M - 1 or more can be afforded: every mask but the empty one, once each. The pair of the first mask, the
    empty one, is left out as `lime_image` leaves it to chance.
    """
    m = superpixels
    if m < 60 and 2**m - 1 <= budget:
        return (np.arange(2**m - 1, 0, -1)[:, None] >> np.arange(m)) & 1 == 1
    half = rng.random(((budget - 1) // 2, m)) < 0.5
    pairs = np.stack([half, ~half], 1).reshape(-1, m)
    return np.concatenate([np.ones((1, m), bool), pairs])


def proximity(masks: np.ndarray, kernel_width: float) -> np.ndarray:
    """sqrt(exp(-d^2 / width^2)), d = 1 - sqrt(|z| / M) the cosine distance to the mask that keeps all: (B,)."""
    distance = 1 - np.sqrt(masks.mean(1))
    return np.sqrt(np.exp(-((distance / kernel_width) ** 2)))


def lime_coefficients(
    masks: Sequence[np.ndarray], values: Sequence[np.ndarray], *, kernel_width: float = 0.25, ridge: float = 1.0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weighted ridge regression of values on masks, intercept unpenalised, of many images at once.

    Args:
        masks: for each image bool (B, M).
        values: for each image float (B,), the network's output for each mask.
        kernel_width: sigma of the proximity kernel.
        ridge: the penalty alpha on the coefficients' squares.

    Returns:
        coefficients and their standard errors, for each image float64 (M,). The error is the drawing of the pairs'
        (sandwich, HC3); zero when every mask was used. It does not say how far the ridge pulls towards zero.

    Raises:
        UserError: the masks do not determine the coefficients (with a ridge of 0).
    """
    m = [z.shape[1] for z in masks]
    rows = padded(masks, max(m))  # (I, B, M)
    weights = padded_vectors([proximity(z, kernel_width) for z in masks])[..., None]  # (I, B, 1)
    targets = padded_vectors(values)[..., None]
    real = torch.arange(max(m)) < torch.tensor(m)[:, None]
    share = weights / weights.sum(1, keepdim=True)
    root = weights.sqrt()  # weighted least squares are plain ones of rows and targets times the weights' roots
    rows.sub_(share.transpose(1, 2) @ rows).mul_(root)  # centring takes the intercept out of the penalty
    targets = (targets - (share * targets).sum(1, keepdim=True)) * root
    gram = rows.transpose(1, 2) @ rows + ridge * torch.diag_embed(real.double())
    inverse = torch.cholesky_inverse(cholesky(gram, real, "LIME's coefficients"))
    solution = inverse @ (rows.transpose(1, 2) @ targets)  # (I, M, 1)
    leverage = (rows @ inverse).mul_(rows).sum(-1, keepdim=True) + share
    pulls = rows * (
        (targets - rows @ solution) / (1 - leverage).clamp(min=1e-6)
    )  # the solution moves by inverse @ pull
    pairs = pulls[:, 1:]
    pairs = pairs[:, 0::2] + pairs[:, 1::2] if pairs.shape[1] % 2 == 0 else pairs
    errors = _diagonal_root(inverse @ (pairs.transpose(1, 2) @ pairs) @ inverse)
    whole = [len(z) >= 2.0**k - 1 for z, k in zip(masks, m, strict=True)]
    return (
        [s[:k, 0].numpy() for s, k in zip(solution, m, strict=True)],
        [e[:k].numpy() * (not all_) for e, k, all_ in zip(errors, m, whole, strict=True)],
    )


def _diagonal_root(covariance: Tensor) -> Tensor:
    """Standard errors (I, M)."""
    return covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
