"""Which coalitions Kernel SHAP looks at: pairs of masks, stratified by size, drawn without replacement.

Pairs (z, 1 - z) cancel every interaction of even order (Covert & Lee 2021, arXiv 2012.01536). Of each pair of sizes
(s, M - s) so many are drawn as `power` says: 1 in proportion to the Shapley kernel, 0 the same number of every size,
which are the leverage scores of the regression (Musco & Witter 2024, arXiv 2410.01917). Sizes all of whose coalitions
can be afforded are enumerated. The weights put right what the draw prefers, so that every choice estimates the same.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from iic.errors import UserError

LEAST = 4  # forwards for each superpixel: at two, residuals are zero and errors with them, whatever the values
AMPLE, REDRAWS = 4, 50  # pairs for each superpixel from which the regression is as good as always determined


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
        if pairs >= len(self.masks):
            return self
        sizes = np.minimum(self.masks.sum(1), (~self.masks).sum(1))
        weights, sampled = self.weights[:pairs].copy(), self.sampled[:pairs].copy()
        for size in np.unique(sizes[:pairs]):
            part = np.count_nonzero(sizes[:pairs] == size) / np.count_nonzero(sizes == size)
            weights[sizes[:pairs] == size] /= part
            sampled[sizes[:pairs] == size] *= part
        return Coalitions(self.masks[:pairs], weights, sampled)


def in_pairs(masks: np.ndarray) -> np.ndarray:
    """Each mask, bool (P, M), and behind it its complement: bool (2 P, M)."""
    return np.stack([masks, ~masks], 1).reshape(-1, masks.shape[1])


def kernel_mass(m: int) -> np.ndarray:
    """Shapley-kernel mass of the sizes s and m - s together, s = 1 .. m // 2."""
    sizes = np.arange(1, m // 2 + 1)
    return np.where(2 * sizes == m, 1, 2) * (m - 1) / (sizes * (m - sizes))


def smallest_budget(superpixels: int) -> int:
    """Forwards that Kernel SHAP needs for so many superpixels, with none and all of them: LEAST each, or every mask."""
    return min(LEAST * superpixels, 2**superpixels)


def draw_coalitions(
    superpixels: int, budget: int, rng: np.random.Generator, power: float = 0.0, name: str = "an image"
) -> Coalitions:
    """Coalitions for at most `budget` masks other than none and all; 2^M - 2 or more gives every one.

    Args:
        superpixels: M >= 2.
        budget: the number of masks, both of each pair counted.
        rng: the draws.
        power: sizes are drawn in proportion to the kernel's mass to this power.
        name: whose superpixels they are, for the messages; those count none and all as the parameter `budget` does.

    Raises:
        UserError: fewer than two superpixels, or less than their `smallest_budget`.
    """
    m = superpixels
    if m < 2:
        raise UserError(f"There is one superpixel only in {name}, with nothing to compare: ask for more superpixels.")
    if budget + 2 < smallest_budget(m):
        raise UserError(
            f"A budget of {budget + 2} forwards is too small for the {m} superpixels of {name}: Kernel SHAP needs "
            f"{smallest_budget(m)}, so raise budget or ask for fewer superpixels."
        )
    strata = _strata(m, budget // 2, power)
    stratum = np.repeat(np.arange(len(strata.sizes)), strata.counts)  # of each pair
    masks = _draw(m, strata, stratum, rng)
    for _ in range(REDRAWS):
        if len(masks) > AMPLE * m or determine(masks):
            break
        masks = _draw(m, strata, stratum, rng)
    within = np.arange(len(masks)) - (np.cumsum(strata.counts) - strata.counts)[stratum]
    place = (within + rng.random(len(strata.sizes))[stratum]) / strata.counts[stratum]  # in 0..1: strata are mixed
    rows = np.argsort(place, kind="stable")
    return Coalitions(masks[rows], strata.weights[stratum[rows]], strata.sampled[stratum[rows]])


def determine(masks: np.ndarray) -> bool:
    """Whether pairs of these masks, bool (P, m), and the sum of all values determine the regression."""
    signs = 2.0 * masks - 1
    return np.linalg.matrix_rank(np.concatenate([signs, np.ones((1, masks.shape[1]))])) == masks.shape[1]


@dataclass(frozen=True)
class _Strata:
    """What is drawn of each pair of sizes (s, M - s), arrays of one length: size s, pairs, weight and share of one."""

    sizes: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    sampled: np.ndarray


@functools.lru_cache(maxsize=256)  # the same for all images with as many superpixels
def _strata(m: int, pairs: int, power: float) -> _Strata:
    mass = kernel_mass(m)
    available = [comb(m, s) // (2 if 2 * s == m else 1) for s in range(1, m // 2 + 1)]
    counts = np.array(allocate(min(pairs, sum(available)), mass**power, available))
    drawn = np.flatnonzero(counts)
    scale = mass.sum() / mass[drawn].sum()  # sizes that are left out leave their share to those that are drawn
    sampled = np.array([int(counts[i]) / available[i] for i in drawn])
    return _Strata(drawn + 1, counts[drawn], mass[drawn] / counts[drawn] * scale, sampled)


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


def _draw(m: int, strata: _Strata, stratum: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Different subsets, one of each pair, as many of each size as the strata say: bool (P, m)."""
    sizes = strata.sizes[stratum]
    masks = np.zeros((len(stratum), m), bool)
    left = np.ones(len(stratum), bool)
    for number in np.flatnonzero(strata.sampled > 0.5):  # those that are left out would be met too often
        everything = _subsets(m, int(strata.sizes[number]))
        masks[stratum == number] = everything[rng.permutation(len(everything))[: strata.counts[number]]]
        left &= stratum != number
    rows = np.flatnonzero(left)
    while len(rows):
        masks[rows] = _random_subsets(m, sizes[rows], rng)
        rows = np.flatnonzero(left & (_repeats(masks) | (masks.sum(1) != sizes)))
    return masks


@functools.lru_cache(maxsize=256)
def _subsets(m: int, size: int) -> np.ndarray:
    """Every subset of this size, one of each pair: bool (n, m)."""
    chosen = np.array(list(combinations(range(m), size)))
    masks = np.zeros((len(chosen), m), bool)
    np.put_along_axis(masks, chosen, True, axis=1)
    return masks[masks[:, 0]] if 2 * size == m else masks  # of each pair the one with the first superpixel


def _random_subsets(m: int, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A subset of each size, as `_subsets` has them; two equal draws of 2^24 can make one larger: bool (n, m)."""
    draws = rng.random((len(sizes), m), dtype=np.float32)
    largest = np.sort(draws, axis=1)[np.arange(len(sizes)), sizes - 1]
    masks = draws <= largest[:, None]
    return masks ^ ((2 * sizes == m) & ~masks[:, 0])[:, None]


def _repeats(masks: np.ndarray) -> np.ndarray:
    """Which rows are equal to an earlier one: bool (n,)."""
    packed = np.packbits(masks, axis=1)
    words = np.zeros((len(masks), -(-packed.shape[1] // 8) * 8), np.uint8)
    words[:, : packed.shape[1]] = packed
    keys = words.view(np.uint64)
    first = np.unique(keys[:, 0] if keys.shape[1] == 1 else keys, axis=0, return_index=True)[1]
    repeated = np.ones(len(masks), bool)
    repeated[first] = False
    return repeated
