"""What the pixels that are taken away are replaced by."""

from __future__ import annotations

import numpy as np

from iic.draws import generator


def salt_and_pepper(indices: np.ndarray, size: tuple[int, int], noise_seed: int) -> np.ndarray:
    """0 or 255 with probability 1/2, one draw per spatial pixel for all channels.

    Args:
        indices: int64 (N,), positions in the test set: the noise is keyed by (index, noise seed), so that every method
            meets the same.
        size: (H, W).
        noise_seed: which of several draws.

    Returns:
        uint8 (N, 1, H, W).
    """
    draws = [generator("salt_and_pepper", noise_seed, i).integers(0, 2, size, dtype=np.uint8) for i in indices]
    return np.stack(draws)[:, None] * np.uint8(255)


def mean_colour(images: np.ndarray) -> np.ndarray:
    """Mean of each channel over all images and pixels: uint8 (N, C, H, W) -> float64 (C,), pixel units."""
    return images.mean((0, 2, 3), dtype=np.float64)
