"""Pairs of masks that share out evenly which superpixels show together, so that little is left to chance.

Superpixel i has a number v_i of k bits, and mask y of the 2^k pairs shows it where v_i & y has an even number of ones:
the words of a linear code, an orthogonal array (Rao 1947; Hedayat, Sloane and Stufken 1999, Orthogonal Arrays). What
some superpixels S do only together is then mistaken for what superpixel i does by itself where the exclusive or of
their numbers is v_i, and nowhere else; of masks by coin flips a little of every S is. Pairs (z, 1 - z) keep out sets of
even size. Of the sets of three as many are kept out as there is room for, those first that hang together: what a
convolutional network makes of a place hangs on what shows beside it. All masks are then turned by one mask of coin
flips, so that each by itself is drawn as coin flips are.

The numbers are searched once for a grid of places; superpixels take those of the places that they lie nearest to.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from scipy.optimize import linear_sum_assignment

from iic.explainers.segmentation import common_borders

ROOM = 2  # numbers for each superpixel, or more: with fewer, coin flips are as good
MOST = 128  # superpixels: for more the search takes long, and budgets leave them no room
GRIDS = 4  # ways to number a grid, each turned and mirrored, of which an image takes the best
SWEEPS = 4  # of the search, over all places
OTHERS = 0.35  # share of the variance of coin flips that is left to sets of more than three
FEW = 16  # superpixels up to which sixes are kept from cancelling, too: with so many masks little else is left
APART = 0.01  # what three places count that do not hang together, beside those that do


@dataclass(frozen=True)
class Balance:
    """How pairs of masks were shared out, which says how much is left to chance.

    Attributes:
        numbers: int64 (M,), of the superpixels.
        rows: int64 (P,), the pairs drawn, of 2^bits.
        bits: of both.
        threes: int64 (3, T), those that hang together.
    """

    numbers: np.ndarray
    rows: np.ndarray
    bits: int
    threes: np.ndarray

    def left_to_chance(self) -> np.ndarray:
        """The variance of a superpixel's coefficient beside that of as many coin flips, on the safe side: (M,).

        If all pairs of the code are drawn, what sets of more than three do is left, for which OTHERS is taken, and of
        what sets of three do as much as have the superpixel's own number, beside the mean over all numbers: half of it
        by those that hang together, half by all. Of pairs that are not drawn everything is left.
        """
        m, drawn = len(self.numbers), len(self.rows) / 2**self.bits
        if self.bits == m - 1:  # nothing is mistaken
            return np.full(m, 1 - drawn)
        near = np.bincount(np.bitwise_xor.reduce(self.numbers[self.threes]), minlength=2**self.bits)
        two = self.numbers[:, None] ^ self.numbers  # (M, M)
        twos = np.bincount(two.ravel(), minlength=2**self.bits) // 2
        twos[0] = 0
        every = (twos[two].sum(1) - (m - 1)) / 3  # sets of three with this number: less those of it with one twice
        mistaken = near[self.numbers] / max(near.mean(), np.finfo(float).tiny) + every * 2**self.bits / comb(m, 3)
        return 1 - drawn * (1 - OTHERS) * (1 - np.minimum(mistaken / 2, 1))


def balanced_pairs(segments: np.ndarray, pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, Balance | None]:
    """One mask of each pair, bool (pairs, M), and how they are balanced; None if they are coin flips.

    Args:
        segments: int64 (H, W), labels 0..M-1.
        pairs: how many, less than 2^(M - 1); 2^k of them leave least to chance, or a few less.
        rng: the draws.
    """
    m, bits = int(segments.max()) + 1, max(pairs - 1, 1).bit_length()
    if (m > MOST or ROOM * m > 2**bits) and bits < m - 1:
        return rng.random((pairs, m)) < 0.5, None
    threes = connected_threes(common_borders(segments) > 0)
    if bits >= m - 1:  # all there are, drawn without replacement
        numbers, bits = (1 << np.arange(m)) >> 1, m - 1
    else:
        numbers = _numbered(segments, threes, bits)
    balance = Balance(numbers, rng.permutation(2**bits)[:pairs], bits, threes)
    return parity(numbers & balance.rows[:, None]) ^ (rng.random(m) < 0.5), balance


def parity(numbers: np.ndarray) -> np.ndarray:
    """Whether the number of ones is odd: bool, of integers 0..2^32-1, same shape."""
    for shift in (16, 8, 4, 2, 1):
        numbers = numbers ^ (numbers >> shift)
    return (numbers & 1).astype(bool)


def _numbered(segments: np.ndarray, threes: np.ndarray, bits: int) -> np.ndarray:
    """Different numbers of so many bits for the superpixels of labels (H, W): int64 (M,)."""
    places, shape = _places(segments)
    candidates = _grids(*shape, bits)[:, places]  # (candidates, M)
    return candidates[confused(candidates, threes).argmin()]


def confused(numbers: np.ndarray, threes: np.ndarray) -> np.ndarray:
    """How many of these threes (3, T) are mistaken for a fourth: int64 (K,), for K ways to number, (K, M)."""
    there = np.zeros((len(numbers), 2 ** int(numbers.max()).bit_length()), bool)
    np.put_along_axis(there, numbers, True, 1)
    one, centre, other = threes
    return np.take_along_axis(there, numbers[:, one] ^ numbers[:, centre] ^ numbers[:, other], 1).sum(1)


def connected_threes(neighbours: np.ndarray) -> np.ndarray:
    """Two neighbours of a third, which stands between them: int64 (3, T), of bool (M, M).

    Three that all border on each other are there thrice: what they do together counts as much more.
    """
    centre, near = np.nonzero(neighbours)
    one, other = np.nonzero(np.triu(centre[:, None] == centre, 1))
    return np.stack([near[one], centre[one], near[other]])


@functools.lru_cache(maxsize=64)
def _subsets(m: int, size: int) -> np.ndarray:
    """All sets of so many of m: int64 (size, S)."""
    return np.array(list(combinations(range(m), size)), np.int64).reshape(-1, size).T


def _places(segments: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The places of a grid (rows, columns) that the superpixels take, all different: int64 (M,), and the grid."""
    (height, width), sizes = segments.shape, np.bincount(segments.ravel())
    rows = min(len(sizes), max(1, round((len(sizes) * height / width) ** 0.5)))
    columns = -(-len(sizes) // rows)
    y, x = ((np.indices(segments.shape) + 0.5) / np.reshape(segments.shape, (2, 1, 1))).reshape(2, -1)
    down, right = (np.bincount(segments.ravel(), at) / sizes for at in (y, x))  # centres, 0..1
    row, column = np.divmod(np.arange(rows * columns), columns)
    apart = (down[:, None] - (row + 0.5) / rows) ** 2 + (right[:, None] - (column + 0.5) / columns) ** 2
    return linear_sum_assignment(apart)[1], (rows, columns)


@functools.lru_cache(maxsize=64)
def _grids(rows: int, columns: int, bits: int) -> np.ndarray:
    """Ways to number the places of a grid, int64 (4 GRIDS, rows * columns): the same on every machine."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    near = np.maximum(np.abs(row[:, None] - row), np.abs(column[:, None] - column)) == 1
    found = [spread_numbers(near, bits, np.random.default_rng(k)).reshape(rows, columns) for k in range(GRIDS)]
    turned = [each for one in found for each in (one, one[::-1], one[:, ::-1], one[::-1, ::-1])]
    return np.stack(turned).reshape(len(turned), -1)


def spread_numbers(neighbours: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Different numbers of so many bits, few fours of which have 0 as their exclusive or, of neighbours hardly any.

    Args:
        neighbours: bool (M, M), symmetric, M <= 2^bits.
        bits: of the numbers.
        rng: where the search starts, in which order each takes a number, and which of the best that are left.

    Returns:
        int64 (M,).
    """
    m, every = len(neighbours), np.arange(2**bits)
    numbers = rng.permutation(2**bits)[:m]
    threes = connected_threes(neighbours)
    first, second = np.triu_indices(m - 1, 1)
    for one in [place for _ in range(SWEEPS) for place in rng.permutation(m)]:
        others = np.delete(numbers, one)
        within = (threes == one).any(0)
        two = np.bitwise_xor.reduce(np.where(threes == one, 0, numbers[threes])[:, within])  # those beside this one
        taken = [np.bitwise_xor.reduce(numbers[threes[:, ~within]]), (two[:, None] ^ others).ravel()]
        cost = np.bincount(np.concatenate(taken), minlength=2**bits).astype(float)
        together = np.bincount(others[first] ^ others[second], minlength=2**bits)
        cost += APART * together[others[:, None] ^ every].sum(0)
        if m <= FEW:
            cost += APART**2 * np.bincount(np.bitwise_xor.reduce(others[_subsets(m - 1, 5)]), minlength=2**bits)
        cost[others] = np.inf
        numbers[one] = rng.choice(np.flatnonzero(cost == cost.min()))
    return numbers
