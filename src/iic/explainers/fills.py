"""What shows where a superpixel is switched off."""

from __future__ import annotations

import numpy as np

FILLS = ("mean", "constant", "superpixel_mean", "blur")
BLUR = 5.0  # standard deviation of the Gaussian, pixels: nothing of a 32-pixel image's detail is left


def fill_image(
    kind: str, image: np.ndarray, segments: np.ndarray, mean: np.ndarray, constant: float = 0.0
) -> np.ndarray:
    """A picture of the image's size whose pixels replace what is switched off.

    Args:
        kind: a name of FILLS: the dataset's mean colour, one number for all channels, each superpixel's own mean
            colour, or the image blurred.
        image: uint8 (C, H, W).
        segments: int64 (H, W), superpixels 0..M-1.
        mean: float (C,), the dataset's mean colour, pixel units.
        constant: pixel units 0..255.

    Returns:
        float32 (C, H, W).
    """
    from scipy.ndimage import gaussian_filter

    if kind == "mean":
        return np.broadcast_to(np.asarray(mean, np.float32).reshape(-1, 1, 1), image.shape).copy()
    if kind == "constant":
        return np.full(image.shape, constant, np.float32)
    if kind == "blur":
        return gaussian_filter(image.astype(np.float32), sigma=(0, BLUR, BLUR))
    return superpixel_means(image, segments)


def superpixel_means(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Each channel's mean over each superpixel, at every one of its pixels: (C, H, W) -> float32 (C, H, W)."""
    labels = segments.ravel()
    sizes = np.bincount(labels)
    means = [np.bincount(labels, channel.ravel()) / sizes for channel in values.astype(np.float64)]
    return np.stack([mean[segments] for mean in means]).astype(np.float32)
