"""What the pixels that are taken away are replaced by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from iic.draws import generator
from iic.evaluation.road import road_fill
from iic.explainers.fills import BLUR

FILLS = ("salt_and_pepper", "mean_colour", "road", "blur", "donor")
SEEDED = ("salt_and_pepper", "road", "donor")  # what is drawn by a noise seed


@dataclass(frozen=True)
class Fills:
    """Every way to replace pixels.

    Attributes:
        mean: float (C,), the training images' mean colour, pixel units.
        donors: uint8 (T, C, H, W), training images.
    """

    mean: np.ndarray
    donors: np.ndarray

    def __call__(
        self, name: str, images: np.ndarray, keep: np.ndarray, indices: np.ndarray, noise_seed: int
    ) -> np.ndarray:
        """Images with everything but the kept pixels replaced.

        Args:
            name: one of FILLS.
            images: uint8 (N, C, H, W).
            keep: bool (N, H, W).
            indices: int64 (N,), positions in the set: with `noise_seed` they key what is drawn, so that every method
                meets the same.
            noise_seed: which of several draws.

        Returns:
            float32 (N, C, H, W), pixel units: a mean colour need not be a whole number.
        """
        if name == "road":
            return road_fill(images, keep, indices, noise_seed)
        return np.where(keep[:, None], images, self.picture(name, images, indices, noise_seed)).astype(np.float32)

    def picture(self, name: str, images: np.ndarray, indices: np.ndarray, noise_seed: int) -> np.ndarray:
        """What shows in place of each pixel, for fills that do not depend on what is kept: broadcasts to the images."""
        if name == "salt_and_pepper":
            return salt_and_pepper(indices, images.shape[2:], noise_seed)
        if name == "blur":
            return gaussian_filter(images.astype(np.float32), sigma=(0, 0, BLUR, BLUR))
        if name == "donor":
            return self.donors[[generator("donor", noise_seed, i).integers(len(self.donors)) for i in indices]]
        return np.asarray(self.mean, np.float32).reshape(-1, 1, 1)


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
