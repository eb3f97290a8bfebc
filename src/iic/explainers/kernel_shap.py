"""Kernel SHAP (Lundberg & Lee 2017): Shapley values as a constrained weighted least squares problem, unshrunk.

A pair of masks (z, 1 - z) is one observation: half the difference of its two values is explained by z, and what
interactions of even order add to both cancels (Covert & Lee 2021, arXiv 2012.01536).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iic.explainers.coalitions import Coalitions, in_pairs
from iic.explainers.regression import cholesky, padded_signs, padded_vectors, weighted


@dataclass(frozen=True)
class PairedValues:
    """What the network said of one image's coalitions.

    Attributes:
        coalitions: P pairs.
        kept: float64 (P,), v(z).
        others: float64 (P,), v(1 - z).
        nothing: v(0), everything filled.
        everything: v(1), the image itself.
    """

    coalitions: Coalitions
    kept: np.ndarray
    others: np.ndarray
    nothing: float
    everything: float


def all_masks(coalitions: Coalitions) -> np.ndarray:
    """Every mask that is to be shown: none, all, then z and 1 - z of each pair: bool (2 + 2 P, M)."""
    m = coalitions.masks.shape[1]
    return np.concatenate([np.zeros((1, m), bool), np.ones((1, m), bool), in_pairs(coalitions.masks)])


def paired_values(coalitions: Coalitions, values: np.ndarray) -> PairedValues:
    """Values of `all_masks`, float64 (2 + 2 P,), sorted into pairs."""
    return PairedValues(coalitions, values[2::2], values[3::2], float(values[0]), float(values[1]))


def shapley_values(found: Sequence[PairedValues]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Shapley values and their sampling's standard errors, of many images at once.

    The error is that of drawing the pairs: the sandwich of the regression with each pair's residual enlarged by its
    leverage (HC3), times what is left of its stratum (finite-population correction). It is zero when every mask was
    used, and holds nothing of how the fill or the superpixels were chosen.

    Returns:
        values and standard errors, for each image float64 (M,) and (M,).

    Raises:
        UserError: the masks do not determine the values.
    """
    m = [f.coalitions.masks.shape[1] for f in found]
    signs = padded_signs([f.coalitions.masks for f in found])  # (I, P, M), of z; those of 1 - z are the opposite
    weights = padded_vectors([f.coalitions.weights for f in found])  # (I, P)
    sampled = padded_vectors([f.coalitions.sampled for f in found])
    half = padded_vectors([(f.kept - f.others) / 2 for f in found])
    total = torch.tensor([f.everything - f.nothing for f in found], dtype=torch.float64)
    real = torch.arange(max(m)) < torch.tensor(m)[:, None]  # (I, M)
    # With z = (1 + signs) / 2, z z' + (1 - z)(1 - z)' = (1 1' + signs signs') / 2: one product for both of a pair.
    mass = weights.sum(1)
    gram = (weighted(signs, weights, signs) + mass[:, None, None] * (real[:, None] & real[..., None])) / 2
    right = (signs.transpose(1, 2) @ (weights * half)[..., None])[..., 0] + (mass * total / 2)[:, None] * real
    solution, project = _constrained(gram, right, total, real)
    residual = half - (signs @ solution[..., None])[..., 0] / 2
    leverage = 0.5 * weights * (signs @ project).mul_(signs).sum(-1)  # an observation moves the values along project
    deviation = weights * residual / (1 - leverage).clamp(min=1e-6)
    spread = weighted(signs, deviation.square() * (1 - sampled).clamp(min=0), signs)
    variance = (project @ spread @ project).diagonal(dim1=1, dim2=2)  # (I, M)
    return (
        [s[:k].numpy() for s, k in zip(solution, m, strict=True)],
        [v[:k].clamp(min=0).sqrt().numpy() for v, k in zip(variance, m, strict=True)],
    )


def weighted_shapley_values(
    masks: np.ndarray, values: np.ndarray, weights: np.ndarray, nothing: float, everything: float
) -> np.ndarray:
    """The same regression on any masks, paired or not: minimise sum w (v(z) - v(0) - z phi)^2, sum phi = v(1) - v(0).

    Args:
        masks: bool (B, M), neither none nor all.
        values: float (B,), v(z).
        weights: float (B,).
        nothing: v(0), every superpixel filled.
        everything: v(1), the image itself.

    Returns:
        float64 (M,).

    Raises:
        UserError: the masks do not determine the values.
    """
    z = torch.from_numpy(masks.astype(np.float64))[None]
    w = torch.from_numpy(np.asarray(weights, dtype=np.float64))[None]
    targets = torch.from_numpy(np.asarray(values, dtype=np.float64) - nothing)[None, :, None]
    total = torch.tensor([everything - nothing], dtype=torch.float64)
    real = torch.ones(1, masks.shape[1], dtype=torch.bool)
    solution, _ = _constrained(weighted(z, w, z), weighted(z, w, targets)[..., 0], total, real)
    return solution[0].numpy()


def _constrained(gram: Tensor, right: Tensor, total: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Minimise phi G phi / 2 - phi b with sum phi = total; and the matrix that says how phi moves with b.

    Args:
        gram: (I, M, M). right: (I, M). total: (I,). real: bool (I, M), False for padding.
    """
    factor = cholesky(gram, real, "Kernel SHAP's values")
    ones = real.double()
    inverse = torch.cholesky_inverse(factor)
    free, toward = (inverse @ right[..., None])[..., 0], (inverse @ ones[..., None])[..., 0]
    reach = toward.sum(1, keepdim=True)
    solution = (free + toward * (total[:, None] - free.sum(1, keepdim=True)) / reach) * ones
    return solution, inverse - toward[..., None] * toward[:, None] / reach[..., None]
