"""Which method is better than which: paired differences over images, and what may be said of them.

Everywhere `scores` are float64 (M, N): one number per method and image, the noise seeds already averaged, so that
images are the unit that is drawn again. Higher is better. Intervals are 95 % percentile intervals of one paired
bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from iic.draws import generator

TAILS = (0.025, 0.975)
LEAST_DIFFERING = 6  # images: of fewer that differ no exact sign test at 5 % could say anything (2 / 2^5 > .05)
PART = 2_000_000  # draws in memory at once


@dataclass(frozen=True)
class Difference:
    """A difference of two means with its 95 % interval.

    Attributes:
        differing: images on which the two score differently.
    """

    point: float
    low: float
    high: float
    differing: int

    @property
    def is_ahead(self) -> bool:
        """The interval lies above 0, and not by a handful of images, of which a bootstrap is too sure."""
        return self.low > 0 and self.differing >= LEAST_DIFFERING


@dataclass(frozen=True)
class BestControl:
    """A method minus the best of its controls; `control` is the best one on all images."""

    difference: Difference
    control: str


def resampled_means(scores: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Means of all methods over images drawn with replacement, the same images for all methods (Efron 1979).

    Args:
        scores: float64 (M, N).
        replicates: R, number of bootstrap samples.
        seed: of the draws.

    Returns:
        float64 (R, M).
    """
    images = scores.shape[1]
    rng = generator("bootstrap", seed)
    means = np.empty((replicates, len(scores)))
    step = max(1, PART // images)
    for start in range(0, replicates, step):
        part = means[start : start + step]
        drawn = rng.integers(0, images, (len(part), images))
        drawn += np.arange(len(part))[:, None] * images  # so that one bincount counts every replicate apart
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)  # (part, N)
        part[:] = counts.astype(np.float64) @ scores.T / images
    return means


def _interval(a: np.ndarray, b: np.ndarray, replicates: np.ndarray) -> Difference:
    """Of two methods' scores (N,), with the percentile interval of its replicates (R,)."""
    low, high = np.quantile(replicates, TAILS)
    return Difference(float(a.mean() - b.mean()), float(low), float(high), int(np.count_nonzero(a != b)))


def difference(a: int, b: int, scores: np.ndarray, means: np.ndarray) -> Difference:
    """Method a minus method b.

    Args:
        a, b: rows of `scores`.
        scores: float64 (M, N).
        means: (R, M), `resampled_means` of these scores.
    """
    return _interval(scores[a], scores[b], means[:, a] - means[:, b])


def against_best_control(
    names: Sequence[str], scores: np.ndarray, means: np.ndarray, is_control: np.ndarray
) -> dict[str, BestControl]:
    """Every method minus its best control, the best one chosen anew in every bootstrap replicate.

    A control that is the best on these images owes part of that to luck. Were it kept for all replicates, the interval
    would know nothing of the choice. Choosing anew adds the uncertainty of the choice, and errs against the method
    twice: the largest of several means lies above the largest true mean, in the sample and once more in each replicate.
    So the lower end may be trusted. The upper end may not where several controls are about equally good (among eight
    equal and independent ones, an equal method's interval lies wholly below 0 in 4 of 10 simulated studies): it
    then says "not shown to be better", never "worse". With one control, or one clearly the best, this is `difference`.

    Args:
        names: of the M methods.
        scores: float64 (M, N), methods and controls.
        means: (R, M), `resampled_means` of these scores.
        is_control: bool (M,), or (M, M) where methods have controls of their own: [i, j] says whether j is a
            control of i. A control is compared with the other controls.

    Returns:
        By method; those that have no control are left out.
    """
    among = np.broadcast_to(is_control, (len(names), len(names))) & ~np.eye(len(names), dtype=bool)
    point, results = scores.mean(1), {}
    for row, name in enumerate(names):
        controls = np.flatnonzero(among[row])
        if not len(controls):
            continue
        best = controls[point[controls].argmax()]
        gain = _interval(scores[row], scores[best], means[:, row] - means[:, controls].max(1))
        results[name] = BestControl(gain, names[best])
    return results


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p that two methods are right equally often (McNemar 1947); 1 where they never disagree.

    Args:
        first, second: bool (N,), whether each image is named rightly, from one noise seed.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values (K,) adjusted so that the chance of any false claim stays below the level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    factors = np.arange(len(p_values), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * np.asarray(p_values)[order]))
    return adjusted


def tellable_pairs(scores: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Whether each two methods can be told apart: bool (M, M), symmetric.

    They can where the interval of their difference excludes 0 and not by a handful of images: one of them `is_ahead`.

    Args:
        scores: float64 (M, N).
        means: (R, M), `resampled_means` of these scores.
    """
    tellable = np.zeros((len(scores),) * 2, bool)
    for row, own in enumerate(scores):
        low, high = np.quantile(means[:, [row]] - means, TAILS, axis=0)
        differing = np.count_nonzero(own != scores, axis=1)
        tellable[row] = ((low > 0) | (high < 0)) & (differing >= LEAST_DIFFERING)
    return tellable


def groups(means_by_method: np.ndarray, tellable: np.ndarray) -> list[list[int]]:
    """Methods that cannot be told apart, the best first.

    No pair of a group can be told apart, no group could hold one method more, and every pair that cannot be told apart
    is in one group at least. Groups may overlap, as in a compact letter display (Piepho 2004): the first may equal the
    second, and the second the third, while the first is better than the third.

    Args:
        means_by_method: (M,).
        tellable: bool (M, M), symmetric.

    Returns:
        Rows of the methods; every method is in one group at least.
    """
    order = np.argsort(-np.asarray(means_by_method), kind="stable")
    alike = ~tellable[np.ix_(order, order)] | np.eye(len(order), dtype=bool)
    covered, found = np.zeros_like(alike), []
    for first, second in zip(*np.nonzero(np.triu(alike)), strict=True):
        if covered[first, second]:
            continue
        group = {int(first), int(second)}
        for other in sorted(range(len(order)), key=lambda at: abs(at - first)):  # the nearest in score come first
            if alike[other, list(group)].all():
                group.add(other)
        covered[np.ix_(sorted(group), sorted(group))] = True
        found.append(order[sorted(group)].tolist())
    return found


def same_sign(differences: Sequence[float]) -> bool:
    """Whether all differences, e.g. one per training seed, are positive or all are negative."""
    signs = np.sign(differences)
    return bool((signs == signs[0]).all() and signs[0] != 0)


def ranks_by_fill(scores: np.ndarray) -> np.ndarray:
    """Mean rank of each method over the fills, 1 = best, ties share theirs: (F, M) -> (M,). Descriptive, not a test.

    NaN is no score: the others of that fill are ranked, and the method's mean is over the other fills; NaN without any.
    """
    ranks = scipy.stats.rankdata(-scores, axis=1, nan_policy="omit")  # (F, M)
    known = ~np.isnan(ranks)
    count = known.sum(0)
    return np.where(count, np.where(known, ranks, 0.0).sum(0) / np.maximum(count, 1), np.nan)
