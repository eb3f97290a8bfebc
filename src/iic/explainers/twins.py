"""Fair twins, derived from stored maps: averaged over superpixels, or blurred."""

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
