"""Many small weighted least-squares problems at once: normal equations of all images, one batched Cholesky, float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iic.errors import UserError

CONDITION = 1e-11  # smallest pivot, relative to the largest, of a system that determines its solution


def padded_signs(masks: Sequence[np.ndarray]) -> Tensor:
    """Masks bool (n_i, M_i) as +1 and -1, float64 (len(masks), max n_i, max M_i), zeros where there is nothing."""
    out = torch.zeros(len(masks), max(len(z) for z in masks), max(z.shape[1] for z in masks), dtype=torch.float64)
    for at, z in enumerate(masks):
        out[at, : len(z), : z.shape[1]] = torch.from_numpy(z).to(torch.int8).mul_(2).sub_(1)
    return out


def padded_vectors(vectors: Sequence[np.ndarray]) -> Tensor:
    """Vectors of different lengths as float64 (len(vectors), longest), zeros behind them."""
    out = np.zeros((len(vectors), max(map(len, vectors))))
    for at, vector in enumerate(vectors):
        out[at, : len(vector)] = vector
    return torch.from_numpy(out)


def weighted(left: Tensor, weights: Tensor, right: Tensor) -> Tensor:
    """left^T diag(weights) right for each image: (I, B, M), (I, B) and (I, B, K) to (I, M, K)."""
    return left.mT @ (weights[..., None] * right)


def cholesky(gram: Tensor, real: Tensor, what: str) -> Tensor:
    """Cholesky factors of (I, M, M); unknowns that are only padding (`real` bool (I, M) is False) get a 1.

    Raises:
        UserError: a system that does not determine its solution; `what` says of what.
    """
    gram = gram + torch.diag_embed((~real).double())
    factors, failed = torch.linalg.cholesky_ex(gram)
    pivots = factors.diagonal(dim1=1, dim2=2).square()
    scale = gram.diagonal(dim1=1, dim2=2)
    if failed.any() or (pivots < CONDITION * scale).any():
        raise UserError(f"The masks do not determine {what}: raise the budget.")
    return factors
