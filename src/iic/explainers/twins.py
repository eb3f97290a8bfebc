"""What is made of stored maps: averaged over superpixels, blurred, or the mean of them all."""

from __future__ import annotations

import numpy as np

from iic.explainers.fills import superpixel_means


def averaged(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Each superpixel's mean at all of its pixels: (H, W) -> float32 (H, W)."""
    return superpixel_means(values[None], segments)[0]


def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, standard deviation in pixels, the border mirrored: (H, W) -> float32 (H, W)."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values.astype(np.float64), sigma).astype(np.float32)


def mean_map(values: np.ndarray) -> np.ndarray:
    """What the maps of all images have in common, read one by one: (N, H, W) -> float32 (H, W)."""
    total = np.zeros(values.shape[1:])
    for one in values:
        total += one
    return (total / len(values)).astype(np.float32)
