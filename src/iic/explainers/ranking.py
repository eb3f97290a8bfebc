"""Which superpixels are the most important fifth of an image, and whether more samples could change that."""

from __future__ import annotations

import numpy as np

TOP = 0.2  # share of the pixels
CERTAIN = 1.96  # standard errors between the last one in and the first one out


def top_superpixels(values: np.ndarray, segments: np.ndarray, share: float = TOP) -> np.ndarray:
    """The superpixels ranked highest whose area first reaches the share of the pixels: bool (M,).

    Args:
        values: float (M,).
        segments: int64 (H, W), 0..M-1.
    """
    order = np.argsort(-values, kind="stable")
    area = np.cumsum(np.bincount(segments.ravel(), minlength=len(values))[order])
    chosen = np.zeros(len(values), bool)
    chosen[order[: np.searchsorted(area, share * segments.size) + 1]] = True
    return chosen


def is_stable(values: np.ndarray, errors: np.ndarray, segments: np.ndarray) -> bool:
    """Whether every superpixel in the top fifth lies above every one outside by 1.96 standard errors of the difference.

    The errors of two superpixels are taken as independent; they are correlated slightly negatively, since the values
    sum to a constant.
    """
    top = top_superpixels(values, segments)
    if top.all():
        return True
    gap = values[top][:, None] - values[~top][None, :]
    spread = np.hypot(errors[top][:, None], errors[~top][None, :])
    return bool((gap > CERTAIN * spread).all())
