"""Which images a network had better not answer: risk against coverage, and thresholds chosen on held-out images.

A selector gives every image an uncertainty (N,), higher = refused earlier, and `errors` bool (N,) says which answers
are wrong. An image is answered if its uncertainty is at most the threshold. Coverage is the share answered, the
selective risk the share wrong among the answered, the generalised risk the share wrong and answered among all.

Equal uncertainties: areas are expectations over random orders of the tied images; coverages and thresholds answer all
of them or none, since no threshold can do otherwise. So nothing depends on the order of the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma
from scipy.stats import binom

from iic.draws import generator
from iic.errors import UserError
from iic.evaluation.comparison import TAILS
from iic.evaluation.statistics import wilson_interval

STEPS = 20  # of the coverage, where a risk is certified
MEASURES = ("aurc", "augrc", "coverage_at_risk")
Selector = tuple[np.ndarray, np.ndarray]  # uncertainty float (N,), errors bool (N,)


@dataclass(frozen=True)
class RiskCoverage:
    """The points of a risk-coverage curve that a threshold can reach, by rising coverage.

    Attributes:
        thresholds: (B,), the different uncertainties, ascending.
        answered: int64 (B,), images with at most that uncertainty; the last is N.
        wrong: int64 (B,), errors among them.
    """

    thresholds: np.ndarray
    answered: np.ndarray
    wrong: np.ndarray

    @property
    def coverage(self) -> np.ndarray:
        """float64 (B,), in (0, 1]."""
        return self.answered / self.answered[-1]

    @property
    def risk(self) -> np.ndarray:
        """Selective risk, float64 (B,), 0..1."""
        return self.wrong / self.answered

    def expected(self, points: int = 100) -> dict[str, list[float]]:
        """The curve at `points` equal steps of coverage, ties in expectation, each risk with Wilson's 95 % interval, as
        of images that were chosen beforehand: what is drawn, JSON-ready.
        """
        n = self.answered[-1]
        count = np.unique(np.ceil(np.arange(1, points + 1) * n / points))
        wrong = np.interp(count, np.append(0, self.answered), np.append(0, self.wrong))
        intervals = [list(wilson_interval(w, c)) for w, c in zip(wrong, count, strict=True)]
        return {"coverage": (count / n).tolist(), "risk": (wrong / count).tolist(), "interval": intervals}


def _checked(scores, errors) -> Selector:
    """Raise UserError unless there is one uncertainty, not NaN, and one bool for each of one or more images."""
    scores, errors = np.asarray(scores, np.float64), np.asarray(errors)
    if scores.ndim != 1 or not len(scores) or errors.shape != scores.shape or errors.dtype != np.bool_:
        raise UserError(
            "A selector needs one uncertainty and one bool (wrong or not) per image, "
            f"not {scores.shape} and {errors.dtype} {errors.shape}."
        )
    if np.isnan(scores).any():
        raise UserError(f"The uncertainty of image {int(np.isnan(scores).argmax())} is NaN: look at its probabilities.")
    return scores, errors


def risk_coverage(scores, errors) -> RiskCoverage:
    """The curve of a selector (El-Yaniv & Wiener 2010): uncertainty (N,), errors bool (N,)."""
    scores, errors = _checked(scores, errors)
    thresholds, block = np.unique(scores, return_inverse=True)
    wrong = np.bincount(block[errors], minlength=len(thresholds))
    return RiskCoverage(thresholds, np.bincount(block).cumsum(), wrong.cumsum())


def _measures(answered: np.ndarray, wrong: np.ndarray, risk: float) -> tuple[float, float, float]:
    """AURC, AUGRC and coverage at `risk` from what is answered and wrong (B,) after each block of tied images.

    Inside a block that begins with n answered, e of them wrong, and holds a share r of errors, the expected number of
    errors among the first k is e + (k - n) r: a straight line, over which both areas have a closed form.
    """
    n, e = np.append(0, answered), np.append(0, wrong)
    size, errors, total = np.diff(n), np.diff(e), n[-1]
    rate = errors / np.maximum(size, 1)
    harmonic = np.diff(digamma(n + 1))  # sum of 1/k over the block's k
    aurc = (errors + (e[:-1] - n[:-1] * rate) * harmonic).sum() / total
    augrc = ((e[:-1] + e[1:]) / 2 * size).sum() / total**2
    held = answered[wrong / np.maximum(answered, 1) <= risk]
    return aurc, augrc, (held[-1] / total if len(held) else 0.0)


def aurc(scores, errors) -> float:
    """Mean selective risk at the coverages 1/N, 2/N, ..., 1 (Geifman et al. 2019); 0..1, lower is better."""
    curve = risk_coverage(scores, errors)
    return float(_measures(curve.answered, curve.wrong, 0)[0])


def augrc(scores, errors) -> float:
    """Area under the generalised risk over the coverage (Traub et al. 2024); 0..1/2, lower is better.

    It is (1 - AUROC) a (1 - a) + (1 - a)^2 / 2 at accuracy a, where the AUROC is that of errors against right answers.
    """
    curve = risk_coverage(scores, errors)
    return float(_measures(curve.answered, curve.wrong, 0)[1])


def coverage_at_risk(scores, errors, risk: float = 0.01) -> float:
    """The largest coverage that a threshold reaches with a selective risk of at most `risk`; 0 if there is none.

    The threshold is chosen on the images that it is judged by: a measure of the ranking, not a promise.
    """
    curve = risk_coverage(scores, errors)
    return float(_measures(curve.answered, curve.wrong, risk)[2])


def resampled_counts(rng: np.random.Generator, images: int) -> np.ndarray:
    """How often each image is drawn in one bootstrap sample: int64 (N,), sum N."""
    return np.bincount(rng.integers(0, images, images), minlength=images)


def percentiles(replicates: np.ndarray) -> list[float]:
    """The 95 % percentile interval of bootstrap replicates (R,)."""
    return np.quantile(replicates, TAILS).tolist()


def _segments(scores: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of the images by uncertainty, and where its segments start: tied images, or neighbours without any error.

    Neighbours without an error have none in any bootstrap sample, and all measures are the same when they are one
    segment: of the 10,000 points of a curve a few hundred are left.
    """
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    starts = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
    has_error = np.logical_or.reduceat(errors[order], starts)
    return order, starts[np.append(True, has_error[1:] | has_error[:-1])]


def _resampled(selectors: list[Selector], replicates: int, seed: int, risk: float) -> np.ndarray:
    """The measures over images drawn with replacement, the same for all selectors: float64 (R, selectors, MEASURES)."""
    rng, images = generator("bootstrap", seed), len(selectors[0][0])
    prepared = [(*_segments(scores, errors), errors) for scores, errors in selectors]
    found = np.empty((replicates, len(selectors), len(MEASURES)))
    for replicate in found:
        counts = resampled_counts(rng, images)
        for row, (order, starts, errors) in zip(replicate, prepared, strict=True):
            totals = (np.add.reduceat(drawn[order], starts).cumsum() for drawn in (counts, counts * errors))
            row[:] = _measures(*totals, risk)
    return found


def selection_measures(
    selectors: Mapping[str, Selector], *, replicates: int, seed: int, risk: float = 0.01, also: Sequence[str] = ()
) -> dict[str, dict]:
    """AURC, AUGRC and coverage at `risk` of selectors of the same images, and how they differ from the first selector.

    Intervals are 95 % percentile intervals of one paired bootstrap over images; None where a selector's answers are all
    right or all wrong, and a bootstrap is blind.

    Args:
        selectors: name -> (uncertainty (N,), errors bool (N,)); errors differ where the networks do.
        replicates: number of bootstrap samples.
        seed: of the draws.
        risk: of the coverage.
        also: names of others that all are compared with.

    Returns:
        name -> measure -> {"value", "interval"}, and the same under "minus_first" for all but the first, and under
        "minus_<name>" for each of `also`.
    """
    checked = [_checked(*selector) for selector in selectors.values()]
    if len({len(scores) for scores, _ in checked}) != 1:
        raise UserError("Selectors are compared on the same images: give each as many uncertainties.")
    curves = [risk_coverage(*selector) for selector in checked]
    values = np.array([_measures(curve.answered, curve.wrong, risk) for curve in curves])
    drawn = _resampled(checked, replicates, seed, risk)
    sighted = [0 < errors.mean() < 1 for _, errors in checked]

    def rows(value: np.ndarray, replicate: np.ndarray, is_sighted: bool) -> dict[str, dict]:
        return {
            measure: {"value": float(value[m]), "interval": percentiles(replicate[:, m]) if is_sighted else None}
            for m, measure in enumerate(MEASURES)
        }

    found = {name: rows(values[i], drawn[:, i], sighted[i]) for i, name in enumerate(selectors)}
    names = list(selectors)
    for base, key in ((0, "minus_first"), *((names.index(name), f"minus_{name}") for name in also)):
        for i, name in enumerate(names):
            if i != base:
                both = sighted[base] and sighted[i]
                found[name][key] = rows(values[i] - values[base], drawn[:, i] - drawn[:, base], both)
    return found


def refusal_threshold(scores_val, errors_val, risk: float) -> float | None:
    """The largest threshold whose selective risk on validation images is at most `risk`; None: nothing is answered.

    On new images the risk is above it about every second time: `certified_threshold` promises.

    Args:
        scores_val: uncertainty (N,) of images that neither trained the network nor test it.
        errors_val: bool (N,).
        risk: 0..1, wanted share of errors among the answered.
    """
    curve = risk_coverage(scores_val, errors_val)
    held = curve.thresholds[curve.risk <= risk]
    return float(held[-1]) if len(held) else None


def certified_threshold(scores_val, errors_val, risk: float, certainty: float = 0.95) -> float | None:
    """A threshold whose selective risk on new images is at most `risk`, for all but 1 - certainty of validation sets.

    Learn then test, with a fixed sequence (Angelopoulos et al. 2021): coverages in steps of 5 %, from the first that
    has images enough, are tested until one fails; the hypothesis is a larger risk, the test exact binomial. None where
    the first one fails or none has images enough: 1 % takes 299 validation images without an error, 0.1 % 2,995.
    """
    curve, level = risk_coverage(scores_val, errors_val), 1 - certainty
    ranks = np.ceil(np.arange(1, STEPS + 1) * curve.answered[-1] / STEPS)
    blocks = np.searchsorted(curve.answered, ranks[(1 - risk) ** ranks <= level])  # with all that are tied
    passed = binom.cdf(curve.wrong[blocks], curve.answered[blocks], risk) <= level
    count = len(passed) if passed.all() else int(passed.argmin())
    return float(curve.thresholds[blocks[count - 1]]) if count else None


def answered(scores, threshold: float | None) -> np.ndarray:
    """Which images are answered: uncertainty (N,) at most the threshold -> bool (N,); none where it is None."""
    return np.zeros(len(scores), bool) if threshold is None else np.asarray(scores) <= threshold


def share(flags) -> dict:
    """The share of True among bool (N,) with its Wilson interval; None where there are no flags."""
    flags = np.asarray(flags, bool)
    if not len(flags):
        return {"value": None, "interval": None}
    return {"value": float(flags.mean()), "interval": list(wilson_interval(int(flags.sum()), len(flags)))}


def answer_row(is_answered: np.ndarray, errors: np.ndarray) -> dict[str, dict]:
    """`coverage` and `accuracy` among the answered, each with its Wilson interval: bool (N,), bool (N,)."""
    return {"coverage": share(is_answered), "accuracy": share(~errors[is_answered])}
