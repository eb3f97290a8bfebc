"""Whether a map is short: relevance on few pixels is easier to read than relevance on all.

Both measures look at absolute values. A map of zeros counts as one whose pixels are all alike: it singles nothing out.
"""

from __future__ import annotations

import numpy as np


def gini_index(maps: np.ndarray) -> np.ndarray:
    """Gini index of |map| (Chalasani et al. 2020, arXiv 1810.06583, definition 3): higher = sparser.

    0 where all of the d pixels are alike, 1 - 1/d where one pixel has everything.

    Args:
        maps: float (N, H, W).

    Returns:
        float64 (N,), 0..1 - 1/d.
    """
    shares = np.sort(_shares(maps), axis=1)
    d = shares.shape[1]
    weights = (d - np.arange(1, d + 1) + 0.5) / d  # the smallest value weighs most
    return 1 - 2 * shares @ weights


def entropy(maps: np.ndarray) -> np.ndarray:
    """Entropy of the shares |map| / sum |map|, in nats (Bhatt et al. 2020, arXiv 2005.00631): lower = less complex.

    Args:
        maps: float (N, H, W).

    Returns:
        float64 (N,), 0 where one pixel has everything, log d where all of the d pixels are alike.
    """
    from scipy.special import entr

    return entr(_shares(maps)).sum(1)


def _shares(maps: np.ndarray) -> np.ndarray:
    """Each pixel's share of its map's absolute values: float64 (N, H * W), rows sum to 1."""
    flat = np.abs(maps.reshape(len(maps), -1).astype(np.float64))
    total = flat.sum(1, keepdims=True)
    return np.divide(flat, total, out=np.full_like(flat, 1 / flat.shape[1]), where=total > 0)
