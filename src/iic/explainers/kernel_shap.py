"""Kernel SHAP (Lundberg & Lee 2017): Shapley values as a constrained weighted least squares problem, unshrunk."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from iic.errors import UserError


def draw_coalitions(superpixels: int, budget: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Masks other than none and all, in pairs (z, 1 - z), and their weights in the regression.

    Sizes are taken from the outside in (1 with M - 1, 2 with M - 2, ...). A pair of sizes whose share of the kernel
    would buy all its subsets is enumerated; the rest of the budget samples the remaining sizes by their kernel mass.

    Args:
        superpixels: M >= 2.
        budget: the number of masks, at most; 2^M - 2 or more gives every mask once.
        rng: the draws.

    Returns:
        masks bool (B, M), B <= budget, and weights float64 (B,).

    Raises:
        UserError: a budget below 2 M, too few for the regression.
    """
    m = superpixels
    if budget < min(2 * m, 2**m - 2):
        raise UserError(
            f"A budget of {budget} masks is too small for {m} superpixels: Kernel SHAP needs at least {2 * m}."
        )
    sizes = np.arange(1, m // 2 + 1)
    # Kernel mass of sizes s and m - s together; the middle size of an even m is its own partner.
    mass = np.where(2 * sizes == m, 1, 2) * (m - 1) / (sizes * (m - sizes))
    everything = 2**m - 2 <= budget
    masks: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    left, done = budget, 0
    for position, size in enumerate(sizes):
        subsets = comb(m, int(size)) * (1 if 2 * size == m else 2)
        if subsets > left or (not everything and left * mass[position] / mass[position:].sum() < subsets):
            break
        masks.append(_all_of_size(m, int(size)))
        weights.append(np.full(subsets, mass[position] / subsets))
        left, done = left - subsets, position + 1
    pairs = left // 2
    if done < len(sizes) and pairs:
        rest = mass[done:]
        drawn = _sample_pairs(m, rng.choice(sizes[done:], size=pairs, p=rest / rest.sum()), rng)
        masks.append(drawn)
        weights.append(np.full(2 * pairs, rest.sum() / (2 * pairs)))
    return np.concatenate(masks), np.concatenate(weights)


def _all_of_size(m: int, size: int) -> np.ndarray:
    """Every subset of `size` and of `m - size` superpixels, once each."""
    chosen = np.array(list(combinations(range(m), size)))
    masks = np.zeros((len(chosen), m), bool)
    np.put_along_axis(masks, chosen, True, axis=1)
    return masks if 2 * size == m else np.concatenate([masks, ~masks])


def _sample_pairs(m: int, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random subset of each size, then all their complements: (2 * len(sizes), m)."""
    ranks = rng.random((len(sizes), m)).argsort(1).argsort(1)
    masks = ranks < sizes[:, None]
    return np.concatenate([masks, ~masks])


def shapley_values(
    masks: np.ndarray, values: np.ndarray, weights: np.ndarray, nothing: float, everything: float
) -> np.ndarray:
    """Minimise sum w (v(z) - phi_0 - z phi)^2 with phi_0 = v(0) and sum phi = v(1) - v(0).

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
    z = masks.astype(np.float64)
    total = everything - nothing
    rows = z[:, :-1] - z[:, -1:]  # the last value is total minus the others
    target = values - nothing - z[:, -1] * total
    weighted = rows * weights[:, None]
    gram = weighted.T @ rows
    if np.linalg.cond(gram) > 1e10:
        raise UserError(f"{len(masks)} masks do not determine {z.shape[1]} values: raise the budget.")
    others = np.linalg.solve(gram, weighted.T @ target)
    return np.append(others, total - others.sum())
