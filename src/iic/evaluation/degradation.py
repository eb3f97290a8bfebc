"""How much the network still knows when only the most important pixels of an image are left."""

from __future__ import annotations

import numpy as np

from iic.draws import generator


def top_pixels(values: np.ndarray, share: float, indices: np.ndarray, seed: int) -> np.ndarray:
    """The round(share H W) spatial pixels of largest value, exactly; ties break at random.

    Args:
        values: float (N, H, W), higher = more important.
        share: of the pixels that are kept, 0..1.
        indices: int64 (N,), positions in the test set, which with `seed` key how ties break.
        seed: see `indices`.

    Returns:
        bool (N, H, W), True on the pixels that are kept.
    """
    count, height, width = values.shape
    keep = np.zeros((count, height * width), bool)
    k = round(share * height * width)
    for row, (flat, index) in enumerate(zip(values.reshape(count, -1), indices, strict=True)):
        tie_breaker = generator("ties", seed, index).random(flat.size)
        keep[row, np.lexsort((tie_breaker, -flat))[:k]] = True
    return keep.reshape(values.shape)


def tied_share(values: np.ndarray) -> float:
    """The share of pixels whose value another pixel of the same map has too: (N, H, W) -> 0..1."""
    tied = 0
    for flat in values.reshape(len(values), -1):
        counts = np.unique(flat, return_counts=True)[1]
        tied += counts[counts > 1].sum()
    return tied / values.size


def keep_only(images: np.ndarray, keep: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """Images with everything but the kept pixels replaced.

    Args:
        images: uint8 (N, C, H, W).
        keep: bool (N, H, W).
        fill: pixel values that broadcast to the images: (N, 1, H, W) or (C, 1, 1).

    Returns:
        float32 (N, C, H, W), pixel units: a mean colour need not be a whole number.
    """
    return np.where(keep[:, None], images, fill).astype(np.float32)
