"""Maps that know nothing of the network: a method that does not beat them has shown nothing."""

from __future__ import annotations

import numpy as np


def random_pixels(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Independent uniform values: float64 (H, W)."""
    return rng.random(shape)


def sobel_edges(image: np.ndarray) -> np.ndarray:
    """Length of the two-axis Sobel gradient of the channels' mean; image uint8 (C, H, W) -> float64 (H, W)."""
    from scipy.ndimage import sobel

    grey = image.mean(0)
    return np.hypot(sobel(grey, axis=0), sobel(grey, axis=1))
