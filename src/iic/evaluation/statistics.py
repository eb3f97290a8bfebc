"""Intervals of the accuracies in a report, 95 % unless said otherwise."""

from __future__ import annotations

import numpy as np

from iic.evaluation.comparison import resampled_means


def wilson_interval(successes: float, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    share = successes / trials
    denominator = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / denominator
    half = z / denominator * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # the proportion itself is inside, whatever rounding makes of an end that is 0 or 1
    return float(min(share, max(0.0, centre - half))), float(max(share, min(1.0, centre + half)))


def bootstrap_interval(
    per_image: np.ndarray, *, replicates: int, seed: int, level: float = 0.95, proportion: bool = True
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over images; Wilson's where all images agree, and a bootstrap is blind.

    Args:
        per_image: float (N,), for instance each image's accuracy over the noise seeds: noise is averaged first, images
            are the unit that is drawn again.
        replicates: number of bootstrap samples.
        seed: of the draws.
        level: of the interval.
        proportion: whether the values are; if not, and all images agree, the interval has no width.
    """
    if per_image.min() == per_image.max():
        if not proportion:
            return float(per_image[0]), float(per_image[0])
        return wilson_interval(per_image.sum(), len(per_image))
    means = resampled_means(per_image[None].astype(np.float64), replicates, seed)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
