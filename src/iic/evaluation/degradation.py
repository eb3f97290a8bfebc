"""How much the network still knows when only the most important pixels of an image are left."""

from __future__ import annotations

import numpy as np

from iic.draws import generator


def pixel_ranks(values: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
    """Each spatial pixel's place in its map's order, 0 = most important; ties break at random.

    Args:
        values: float (N, H, W), higher = more important.
        indices: int64 (N,), positions in the test set, which with `seed` key how ties break.
        seed: see `indices`.

    Returns:
        int32 (N, H, W), each image a permutation of 0..H W - 1.
    """
    ranks = np.empty((len(values), values[0].size), np.int32)
    for row, (flat, index) in enumerate(zip(values.reshape(ranks.shape), indices, strict=True)):
        tie_breaker = generator("ties", seed, index).random(flat.size)
        ranks[row, np.lexsort((tie_breaker, -flat))] = np.arange(flat.size)
    return ranks.reshape(values.shape)


def top_pixels(values: np.ndarray, share: float, indices: np.ndarray, seed: int) -> np.ndarray:
    """The round(share H W) spatial pixels of largest value, exactly: bool (N, H, W); arguments as `pixel_ranks`."""
    return pixel_ranks(values, indices, seed) < round(share * values[0].size)


def tied_share(values: np.ndarray) -> float:
    """The share of pixels whose value another pixel of the same map has too: (N, H, W) -> 0..1."""
    tied = 0
    for flat in values.reshape(len(values), -1):
        counts = np.unique(flat, return_counts=True)[1]
        tied += counts[counts > 1].sum()
    return tied / values.size
