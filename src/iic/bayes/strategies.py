"""What the maps of a posterior's samples have in common, and how far they disagree.

Every sample of the weights explains in its own way; Bykov et al. 2021 (arXiv 2108.10346) call that an explanation
strategy. Their union and intersection explanation (UAI, section of that name) is the percentile alpha of each pixel's
relevance over the samples: a low alpha shows what nearly all strategies use, a high one what some do. Before that every
map is brought to the same length: a sample with large logits has no larger say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from iic.errors import UserError

PERCENTILES = (5, 50, 95)
INTERSECTION, UNION = 5.0, 95.0  # percent, the authors' choices


@dataclass(frozen=True)
class Summary:
    """Maps of N images over the samples of a posterior.

    Attributes:
        mean: float32 (N, H, W).
        sd: float32 (N, H, W), standard deviation over the samples (ddof = 1).
        snr: float32 (N, H, W), mean / sd; 0 where both are 0, infinite where only the sd is.
        percentiles: percent -> float32 (N, H, W), numpy's linear interpolation; empty unless asked for.
        samples: their number.
    """

    mean: np.ndarray
    sd: np.ndarray
    snr: np.ndarray
    percentiles: dict[int, np.ndarray]
    samples: int


def summarise(chunks: Iterable[np.ndarray], percentiles: tuple[int, ...] = PERCENTILES) -> Summary:
    """Mean, spread and percentiles over samples.

    Args:
        chunks: float (B, N, H, W) each, such as `explanations.lrp_maps` yields; `[maps]` for maps (S, N, H, W).
        percentiles: percent. They need all maps in memory; with () memory does not grow with the samples.

    Raises:
        UserError: fewer than two samples, or a map with NaN or infinite values.
    """
    count, mean, squares, kept = 0, 0.0, 0.0, []
    for chunk in chunks:
        exact, size = _finite(chunk), len(chunk)
        gap = exact.mean(0) - mean  # the moments of two sets, joined (Chan et al. 1979)
        squares = squares + ((exact - exact.mean(0)) ** 2).sum(0) + gap**2 * (count * size / (count + size))
        count, mean = count + size, mean + gap * (size / (count + size))
        kept += [chunk] if percentiles else []
    _check_enough(count)
    sd = np.sqrt(squares / (count - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(mean == 0, 0.0, mean / sd)
    quantiles = np.percentile(np.concatenate(kept), percentiles, axis=0) if percentiles else ()
    maps = {percent: q.astype(np.float32) for percent, q in zip(percentiles, quantiles, strict=True)}
    return Summary(mean.astype(np.float32), sd.astype(np.float32), snr.astype(np.float32), maps, count)


def unit_length(maps: np.ndarray) -> np.ndarray:
    """Each map (..., H, W) divided by its Euclidean length; a map of zeros as it is: float64."""
    maps = np.asarray(maps, dtype=np.float64)
    length = np.sqrt((maps**2).sum((-2, -1), keepdims=True))
    return np.divide(maps, length, out=np.zeros_like(maps), where=length > 0)


def percentile_strategy(maps: np.ndarray, alpha: float) -> np.ndarray:
    """UAI (Bykov et al. 2021): the percentile alpha over samples of the positive relevance of maps of unit length.

    Args:
        maps: float (S, N, H, W), signed.
        alpha: percent.

    Returns:
        float32 (N, H, W), 0..1: at least so large is the pixel's share of (100 - alpha) % of the strategies.
    """
    positive = unit_length(maps).clip(min=0)
    return np.percentile(positive, alpha, axis=0).astype(np.float32)


def intersection(maps: np.ndarray, alpha: float = INTERSECTION) -> np.ndarray:
    """What nearly all strategies find relevant: `percentile_strategy` of a low alpha."""
    return percentile_strategy(maps, alpha)


def union(maps: np.ndarray, alpha: float = UNION) -> np.ndarray:
    """What a few strategies find relevant, at least: `percentile_strategy` of a high alpha."""
    return percentile_strategy(maps, alpha)


def disagreement(chunks: Iterable[np.ndarray], measure: str = "cosine") -> np.ndarray:
    """1 less the mean likeness of two samples' maps, over all pairs: float64 (N,), 0 = one explanation, 0..2.

    The likeness of two maps is the product of two vectors of length 1, u_i u_j, and the mean over i != j is
    (|sum u_i|^2 - sum |u_i|^2) / (S (S - 1)): no pair need be looked at, and no map kept. With cosines it is the
    unbiased variance of the maps of unit length, summed over the pixels.

    Args:
        chunks: float (B, N, H, W) each, as for `summarise`.
        measure: "cosine", or "spearman" for the rank correlation (midranks). A map of zeros, or for ranks of one value,
            has likeness 0 with every other.

    Raises:
        UserError: an unknown measure, fewer than two samples, or a map with NaN or infinite values.
    """
    if measure not in MEASURES:
        raise UserError(f"Unknown measure '{measure}' of disagreement: choose from {', '.join(MEASURES)}.")
    count, total, own = 0, 0.0, 0.0
    for chunk in chunks:
        vectors = MEASURES[measure](_finite(chunk))
        count, total = count + len(vectors), total + vectors.sum(0)
        own = own + (vectors**2).sum((0, -2, -1))  # the number of maps that are not zeros
    _check_enough(count)
    return 1 - ((total**2).sum((-2, -1)) - own) / (count * (count - 1))


def _unit_ranks(maps: np.ndarray) -> np.ndarray:
    """Centred midranks of each map's pixels, of length 1, whose products are Spearman's correlations."""
    ranks = rankdata(maps.reshape(*maps.shape[:-2], -1), axis=-1).reshape(maps.shape)
    return unit_length(ranks - (maps[0, 0].size + 1) / 2)


MEASURES = {"cosine": unit_length, "spearman": _unit_ranks}


def _finite(maps: np.ndarray) -> np.ndarray:
    """In float64, if all values are finite."""
    if not np.isfinite(maps).all():
        raise UserError("A map of a posterior sample has NaN or infinite values: check the weights that it explains.")
    return maps.astype(np.float64)


def _check_enough(samples: int) -> None:
    if samples < 2:
        raise UserError(f"How maps spread takes at least two posterior samples, not {samples}: draw more.")
