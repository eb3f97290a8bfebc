"""Bootstrap samples of images, drawn once for all that is measured of as many images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from iic.bayes.selection import percentiles, resampled_counts
from iic.draws import generator


@lru_cache(maxsize=4)
def drawn_counts(images: int, replicates: int, seed: int, *key: int) -> np.ndarray:
    """How often each image is drawn in each bootstrap sample: int32 (R, N), read-only; `key` makes other draws."""
    rng, counts = generator("bootstrap", seed, *key), np.empty((replicates, images), np.int32)
    for row in counts:
        row[:] = resampled_counts(rng, images)
    counts.setflags(write=False)
    return counts


@lru_cache(maxsize=1)
def _weights(images: int, replicates: int, seed: int) -> np.ndarray:
    """What each image counts for in the mean of each bootstrap sample: float64 (R, N), rows sum to 1."""
    return drawn_counts(images, replicates, seed) / images


def mean_interval(per_image: np.ndarray, *, replicates: int, seed: int) -> list[float]:
    """95 % percentile interval of a mean over images (N,), which is no proportion: without width if all agree."""
    if per_image.min() == per_image.max():
        return [float(per_image[0])] * 2
    return percentiles(_weights(len(per_image), replicates, seed) @ per_image)
