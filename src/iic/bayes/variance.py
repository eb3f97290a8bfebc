"""Where the uncertainty of an explanation comes from: what one source alone changes in the maps of the same images.

A source is what differs between repeats of a map: the masks' seed and nothing else, the segmentation, the training
seed, the sample of the posterior. Maps are brought to length 1 first, so sources in different units compare. A source
whose repeats draw their masks anew as well holds the sampling noise of its method too: `beyond_noise` is what it adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from iic.bayes.strategies import disagreement, unit_length
from iic.errors import UserError
from iic.evaluation.agreement import top_overlap
from iic.evaluation.statistics import bootstrap_interval
from iic.explainers.ranking import TOP


def variance_table(
    sources: Mapping[str, np.ndarray],
    *,
    seed: int,
    replicates: int = 2000,
    noise: Mapping[str, str] | None = None,
    varied: Mapping[str, str] | None = None,
) -> dict:
    """One row per source: how far its repeats differ, as means over images with 95 % bootstrap intervals.

    Args:
        sources: source -> float (R, N, H, W), R >= 2 repeats of the maps of N images, the same images for all sources.
        seed: of the bootstrap, whose draws of the images are the same for all rows.
        replicates: of the bootstrap.
        noise: source -> the other source that is its sampling noise alone.
        varied: source -> the network whose maps these are.

    Returns:
        JSON-ready: "images", and for each source in "sources" the "repeats", its "network" and its "noise" (None
        without one), and {"mean", "interval"} of
        variance: `within_variance`, 0 where the repeats are the same.
        share: `variance_share`, of the variance of a map over its pixels.
        beyond_noise: the share less that of its noise, paired by image; None without one.
        spearman: rank correlation of two repeats, the mean over all pairs.
        top_overlap: share of the 20 % most relevant pixels that a repeat has in common with the next.

    Raises:
        UserError: sources of different images, fewer than two repeats, values that are not finite, a source without
            any variation over the pixels of an image, or a noise that is no source.
    """
    noise, varied = noise or {}, varied or {}
    images = _check_sources(sources, noise)
    shares = {source: variance_share(maps, source) for source, maps in sources.items()}
    summary = partial(_summary, replicates=replicates, seed=seed)
    rows = {}
    for source, maps in sources.items():
        rows[source] = {
            "repeats": len(maps),
            "network": varied.get(source),
            "noise": noise.get(source),
            "variance": summary(within_variance(maps)),
            "share": summary(shares[source]),
            "beyond_noise": summary(shares[source] - shares[noise[source]]) if source in noise else None,
            "spearman": summary(1 - disagreement([maps], "spearman")),
            "top_overlap": summary(overlap_of_neighbours(maps)),
        }
    return {"images": images, "sources": rows}


def _check_sources(sources: Mapping[str, np.ndarray], noise: Mapping[str, str]) -> int:
    """The number of images, or a UserError if sources are of different images or the noise is none of them."""
    shapes = {maps.shape[1:] for maps in sources.values()}
    if len(shapes) != 1:
        raise UserError(f"The sources of variance have maps {sorted(shapes)}: give all the same images, of one size.")
    if unknown := [name for name in (*noise, *noise.values()) if name not in sources]:
        raise UserError(f"'{unknown[0]}' of the sampling noise is no source: choose one of {', '.join(sources)}.")
    return next(iter(shapes))[0]


def within_variance(maps: np.ndarray) -> np.ndarray:
    """Variance over the repeats of maps of length 1, summed over the pixels: (R, N, H, W) -> float64 (N,), 0..2.

    Unbiased (ddof = 1). It is 1 less the mean cosine of two repeats, unless one is a map of zeros.
    """
    return unit_length(maps).var(0, ddof=1).sum((1, 2))


def variance_share(maps: np.ndarray, source: str = "repeats") -> np.ndarray:
    """Mean over pixels of the variance over repeats, as a share of a map's variance over its pixels: float64 (N,).

    Both are unbiased (ddof = 1), of maps of length 1, the second one averaged over the repeats. Of maps that are a
    picture plus noise, independent from pixel to pixel, it is the noise's share of the variance: 0 where all repeats
    are the same, 1 where they have nothing in common. Repeats that contradict each other reach 2; what repeats differ
    by everywhere alike counts too, so that of maps that hardly vary beside their mean it can be any number.

    Args:
        maps: float (R, N, H, W).
        source: what errors call the maps.

    Raises:
        UserError: fewer than two repeats, values that are not finite, or an image all of whose maps are constant.
    """
    if len(maps) < 2:
        raise UserError(f"The variance within '{source}' takes at least two repeats of each map, not {len(maps)}.")
    if not np.isfinite(maps).all():
        raise UserError(f"The maps of '{source}' have NaN or infinite values: explain those images again.")
    flat = unit_length(maps).reshape(*maps.shape[:2], -1)  # (R, N, H * W)
    total = flat.var(2, ddof=1).mean(0)
    if not total.all():
        raise UserError(
            f"All maps of '{source}' of image {int(np.flatnonzero(total == 0)[0])} have one value only, and no share "
            "of their variance: leave that image out."
        )
    return flat.var(0, ddof=1).mean(1) / total


def overlap_of_neighbours(maps: np.ndarray, share: float = TOP) -> np.ndarray:
    """Mean of `agreement.top_overlap` of each repeat and the next, the last one's next being the first: float64 (N,).

    Repeats have no order, so neighbours stand for all pairs, whose number would grow with the square.
    """
    return np.mean([top_overlap(a, b, share) for a, b in zip(maps, np.roll(maps, -1, axis=0), strict=True)], axis=0)


def _summary(per_image: np.ndarray, *, replicates: int, seed: int) -> dict:
    """Mean over images with its interval: float (N,)."""
    interval = bootstrap_interval(per_image, replicates=replicates, seed=seed, proportion=False)
    return {"mean": float(per_image.mean()), "interval": list(interval)}
