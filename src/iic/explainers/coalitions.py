"""Which coalitions Kernel SHAP looks at: pairs of masks, stratified by size, drawn without replacement.

Pairs (z, 1 - z) cancel every interaction of even order (Covert & Lee 2021, arXiv 2012.01536). Of each pair of sizes
(s, M - s) so many are drawn as `power` says: 1 in proportion to the Shapley kernel, 0 the same number of every size,
which are the leverage scores of the regression (Musco & Witter 2024, arXiv 2410.01917). Sizes all of whose coalitions
can be afforded are enumerated. The weights put right what the draw prefers, so that every choice estimates the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from iic.errors import UserError


@dataclass(frozen=True)
class Coalitions:
    """One mask of each pair, and what the pair stands for.

    Attributes:
        masks: bool (P, M), neither none nor all; their complements belong to them.
        weights: float64 (P,), the kernel's mass that each pair carries.
        sampled: float64 (P,), share of its stratum that was drawn; 1 where the stratum is whole.

    The first pairs of any number hold all strata in their proportions.
    """

    masks: np.ndarray
    weights: np.ndarray
    sampled: np.ndarray

    def first(self, pairs: int) -> Coalitions:
        """The first so many pairs, weighed as a smaller draw."""
        sizes = np.minimum(self.masks.sum(1), (~self.masks).sum(1))
        weights, sampled = self.weights[:pairs].copy(), self.sampled[:pairs].copy()
        for size in np.unique(sizes[:pairs]):
            part = np.count_nonzero(sizes[:pairs] == size) / np.count_nonzero(sizes == size)
            weights[sizes[:pairs] == size] /= part
            sampled[sizes[:pairs] == size] *= part
        return Coalitions(self.masks[:pairs], weights, sampled)


def kernel_mass(m: int) -> np.ndarray:
    """Shapley-kernel mass of the sizes s and m - s together, s = 1 .. m // 2."""
    sizes = np.arange(1, m // 2 + 1)
    return np.where(2 * sizes == m, 1, 2) * (m - 1) / (sizes * (m - sizes))


def draw_coalitions(superpixels: int, budget: int, rng: np.random.Generator, power: float = 0.0) -> Coalitions:
    """Coalitions for at most `budget` masks other than none and all; 2^M - 2 or more gives every one.

    Args:
        superpixels: M >= 2.
        budget: the number of masks, both of each pair counted.
        rng: the draws.
        power: sizes are drawn in proportion to the kernel's mass to this power.

    Raises:
        UserError: a budget below 2 M, too few for the regression.
    """
    m = superpixels
    if budget < min(2 * m, 2**m - 2):
        raise UserError(
            f"A budget of {budget} masks is too small for {m} superpixels: Kernel SHAP needs at least {2 * m}."
        )
    mass = kernel_mass(m)
    sizes = range(1, m // 2 + 1)
    available = [comb(m, s) // (2 if 2 * s == m else 1) for s in sizes]
    counts = allocate(min(budget // 2, sum(available)), mass**power, available)
    masks, weights, sampled, order = [], [], [], []
    for s, count, everything, share in zip(sizes, counts, available, mass, strict=True):
        if not count:
            continue
        masks.append(_draw_of_size(m, s, count, everything, rng))
        weights.append(np.full(count, share / count))
        sampled.append(np.full(count, count / everything))
        order.append((np.arange(count) + rng.random()) / count)
    left_out = mass[np.array(counts) == 0].sum()  # its share goes to the sizes that were drawn
    rows = np.argsort(np.concatenate(order), kind="stable")
    scale = mass.sum() / (mass.sum() - left_out)
    return Coalitions(np.concatenate(masks)[rows], np.concatenate(weights)[rows] * scale, np.concatenate(sampled)[rows])


def allocate(pairs: int, preference: np.ndarray, available: list[int]) -> list[int]:
    """Whole numbers that sum to `pairs`, in proportion to `preference`, none larger than what is available."""
    counts = np.zeros(len(available), dtype=np.int64)
    limit = np.array([min(a, pairs) for a in available])
    open_ = np.ones(len(available), bool)
    left = pairs
    while True:  # sizes that would get more than there is are taken whole, and the others share the rest
        wanted = np.where(open_, left * preference / preference[open_].sum(), 0.0)
        full = open_ & (wanted >= limit)
        if not full.any():
            break
        counts[full] = limit[full]
        left -= int(limit[full].sum())
        open_ &= ~full
        if not open_.any() or left <= 0:
            return counts.tolist()
    counts += np.floor(wanted).astype(np.int64)
    missing = pairs - int(counts.sum())
    counts[np.argsort(np.floor(wanted) - wanted, kind="stable")[:missing]] += 1  # largest remainders
    return counts.tolist()


def _draw_of_size(m: int, size: int, count: int, everything: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different subsets of this size, one of each pair: bool (count, m)."""
    if 2 * count > everything:
        chosen = np.array(list(combinations(range(m), size)))
        masks = np.zeros((len(chosen), m), bool)
        np.put_along_axis(masks, chosen, True, axis=1)
        if 2 * size == m:
            masks = masks[masks[:, 0]]  # of each pair the one with the first superpixel
        return masks[rng.permutation(len(masks))[:count]]
    found = np.zeros((0, m), bool)
    while len(found) < count:
        ranks = rng.random((count, m)).argsort(1).argsort(1)
        masks = ranks < size
        if 2 * size == m:
            masks ^= ~masks[:, :1]
        found = np.concatenate([found, masks])
        _, first = np.unique(np.packbits(found, axis=1), axis=0, return_index=True)
        found = found[np.sort(first)]
    return found[:count]
