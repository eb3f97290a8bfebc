"""Controls: maps that know nothing of the network. A method that does not beat them has shown nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from iic.draws import generator
from iic.explainers.attributions import Attributions

RANDOM_DRAWS = 5  # the luck of one draw is no control


def random_pixels(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Independent uniform values: float64 (H, W)."""
    return rng.random(shape)


def draws_of(method: str, maps: Attributions, seed: int) -> list[Attributions]:
    """A random control's maps in RANDOM_DRAWS draws, to be averaged; any other method's as they are."""
    again = range(1, RANDOM_DRAWS) if method in ("random", "random_superpixels") else ()
    return [maps, *(drawn_again(maps, seed, draw) for draw in again)]


def drawn_again(maps: Attributions, seed: int, draw: int) -> Attributions:
    """Random maps of the same images, another draw of them: 1, 2, …; what had one value has one again."""

    def redrawn(values: np.ndarray, index: int) -> np.ndarray:
        areas = np.unique(values, return_inverse=True)[1].reshape(values.shape)
        return random_superpixels(areas, generator("redrawn", seed, index, draw))

    values = [redrawn(one, index) for one, index in zip(maps.values, maps.indices, strict=True)]
    return replace(maps, values=np.stack(values).astype(np.float32), folder=None)


def sobel_edges(image: np.ndarray) -> np.ndarray:
    """Length of the two-axis Sobel gradient of the channels' mean; image uint8 (C, H, W) -> float64 (H, W)."""
    from scipy.ndimage import sobel

    grey = image.mean(0)
    return np.hypot(sobel(grey, axis=0), sobel(grey, axis=1))


def random_superpixels(segments: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An independent uniform value for each superpixel: int64 (H, W), labels 0..M-1 -> float64 (H, W)."""
    return rng.random(int(segments.max()) + 1)[segments]


def distance_from_mean(image: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Distance of each pixel's colour from the mean colour (C,): image uint8 (C, H, W) -> float64 (H, W)."""
    return np.linalg.norm(image - mean[:, None, None], axis=0)


def centred_gaussian(shape: tuple[int, int]) -> np.ndarray:
    """A bell over the middle, standard deviation a quarter of each side: float64 (H, W)."""
    y, x = (np.linspace(-2, 2, side) for side in shape)
    return np.exp(-(y[:, None] ** 2 + x**2) / 2)
