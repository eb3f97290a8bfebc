"""Everything that is measured of one network's uncertainty, as one table; a plain network is a posterior of one sample.

Selectors, each an uncertainty of the forced prediction, higher = refused earlier: `confidence` (the mean probability of
all other classes), `entropy` (of the posterior mean) and `mutual_information`, which a single sample does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from iic.bayes import scores as proper
from iic.bayes.bootstrap import mean_interval
from iic.bayes.entropies import Entropies, entropies
from iic.bayes.selection import (
    Selector,
    answer_row,
    answered,
    certified_threshold,
    refusal_threshold,
    risk_coverage,
    selection_measures,
    share,
)
from iic.bayes.shifts import detection
from iic.bayes.uncertainty import forced_prediction, median_rule
from iic.evaluation.statistics import bootstrap_interval

SELECTORS = ("confidence", "entropy", "mutual_information")
MEDIAN_THRESHOLD = 0.2  # the original study's (Malekzadeh 2021)
TARGETS = {  # wanted risk -> how the threshold for it is chosen on validation images
    "1%": (refusal_threshold, 0.01),
    "0.1%": (refusal_threshold, 0.001),
    "1%_certified": (certified_threshold, 0.01),
    "0.1%_certified": (certified_threshold, 0.001),
}
_BINNINGS = {"ece": proper.equal_width, "adaptive_ece": proper.equal_mass}

Thresholds = dict[str, dict[str, float | None] | None]  # selector -> target -> threshold; None: refuse all, no selector


@dataclass(frozen=True)
class Answers:
    """What a posterior says of N images.

    Attributes:
        mean: float64 (N, K), mean probabilities.
        predicted: int64 (N,), their argmax.
        entropies: of the samples, each (N,).
        selectors: name -> uncertainty float64 (N,).
        median: class int64 (N,) and answered bool (N,) by the original study's rule.
    """

    mean: np.ndarray
    predicted: np.ndarray
    entropies: Entropies
    selectors: dict[str, np.ndarray]
    median: tuple[np.ndarray, np.ndarray]


def read(samples, what: str = "image") -> Answers:
    """The answers of posterior samples (S, N, K); `what` the images are, for the message.

    Raises:
        UserError: another number of axes, or an image with NaN, negative or non-normalised probabilities.
    """
    found = entropies(samples, what)  # checks them
    samples = np.asarray(samples)
    mean = samples.mean(0, dtype=np.float64)  # (N, K)
    # summed, not 1 - largest: that is 0 for whatever is below the rounding of a probability near 1, a tie of thousands
    selectors = {"confidence": np.sort(mean, axis=1)[:, :-1].sum(1), "entropy": found.total}
    if len(samples) > 1:
        selectors["mutual_information"] = found.epistemic
    return Answers(mean, forced_prediction(samples)[0], found, selectors, median_rule(samples, MEDIAN_THRESHOLD))


def choose_thresholds(validation_samples, validation_labels) -> Thresholds:
    """For every selector and target the threshold that validation images ask for.

    Args:
        validation_samples: (S, N, K), of images that neither trained the network nor test it.
        validation_labels: int (N,).
    """
    answers = read(validation_samples, "validation image")
    wrong = answers.predicted != proper.check_labels(validation_labels, *answers.mean.shape)
    return {
        name: {target: choose(answers.selectors[name], wrong, risk) for target, (choose, risk) in TARGETS.items()}
        if name in answers.selectors
        else None
        for name in SELECTORS
    }


def uncertainty_table(
    samples,
    labels,
    validation_samples,
    validation_labels,
    outside: Mapping[str, np.ndarray],
    *,
    seed: int,
    replicates: int,
    typical: Mapping[str, np.ndarray] | None = None,
) -> dict:
    """All figures of one network's uncertainty on one test set, JSON-ready, each {"value", "interval"} at 95 %.

    Args:
        samples: (S, N, K), probabilities of the test images; S = 1 for a plain network at its temperature.
        labels: int (N,).
        validation_samples: (S, V, K), of held-out training images: thresholds are chosen on these alone.
        validation_labels: int (V,).
        outside: name -> (S, M, K), of out-of-distribution images.
        seed: of all bootstraps.
        replicates: number of bootstrap samples.
        typical: "test" and the names of `outside` -> bool (N,), which images look like training images; None: all do.

    Returns:
        `scores`, `reliability`, `entropies`; `selectors` and `thresholds` by name, None for those that one sample does
        not have; `median_rule`; `outside` by set; `if_typical`, what is answered of what looks typical.

    Raises:
        UserError: labels that do not fit, or an image with NaN, negative or non-normalised probabilities.
    """
    test, draws = read(samples), {"seed": seed, "replicates": replicates}
    labels = proper.check_labels(labels, *test.mean.shape)
    wrong = test.predicted != labels
    thresholds = choose_thresholds(validation_samples, validation_labels)
    foreign = {name: read(found, f"{name} image") for name, found in outside.items()}
    if typical is None:
        typical = {name: np.ones(len(found.mean), bool) for name, found in {"test": test, **foreign}.items()}
    predicted, is_answered = test.median
    return {
        "n_images": len(labels),
        "n_validation": len(validation_labels),
        "samples": len(samples),
        "scores": _scores(test, wrong, labels, **draws),
        "reliability": {
            name: proper.reliability_bins(test.mean, labels, binning) for name, binning in _BINNINGS.items()
        },
        "entropies": {name: _mean(values, **draws) for name, values in vars(test.entropies).items()},
        "selectors": _selectors(test, wrong, thresholds, **draws),
        "thresholds": thresholds,
        "median_rule": {"threshold": MEDIAN_THRESHOLD, **answer_row(is_answered, predicted != labels)},
        "outside": {name: _outside(test, found, thresholds, **draws) for name, found in foreign.items()},
        "if_typical": both_rules(test, labels, foreign, thresholds, typical),
    }


def _mean(per_image: np.ndarray, *, seed: int, replicates: int) -> dict:
    """Mean over images (N,) of what is no proportion."""
    interval = bootstrap_interval(per_image, replicates=replicates, seed=seed, proportion=False)
    return {"value": float(per_image.mean()), "interval": list(interval)}


def _scores(test: Answers, wrong: np.ndarray, labels, *, seed: int, replicates: int) -> dict[str, dict]:
    """Accuracy, NLL, Brier score and both calibration errors."""
    draws = {"seed": seed, "replicates": replicates}
    accuracy = bootstrap_interval((~wrong).astype(np.float64), **draws)
    found = {
        "accuracy": {"value": float(1 - wrong.mean()), "interval": list(accuracy)},
        "nll": _mean(proper.negative_log_likelihood(test.mean, labels), **draws),
        "brier": _mean(proper.brier_score(test.mean, labels), **draws),
    }
    for name, binning in _BINNINGS.items():
        gaps = proper.calibration_gaps(test.mean, labels, binning)
        found[name] = {
            "value": proper.calibration_error(gaps),
            "interval": proper.calibration_interval(test.mean, labels, binning, **draws),
        }
    return found


def _selectors(
    test: Answers, wrong: np.ndarray, thresholds: Thresholds, *, seed: int, replicates: int
) -> dict[str, dict | None]:
    """How each selector ranks the errors, and what the thresholds from validation images do on the test images."""
    selectors: dict[str, Selector] = {name: (scores, wrong) for name, scores in test.selectors.items()}
    found: dict[str, dict | None] = dict.fromkeys(SELECTORS)
    for name, row in selection_measures(selectors, seed=seed, replicates=replicates).items():
        scores = test.selectors[name]
        row["curve"] = risk_coverage(scores, wrong).expected()
        row["at_threshold"] = {
            target: answer_row(answered(scores, threshold), wrong)
            for target, threshold in (thresholds[name] or {}).items()
        }
        found[name] = row
    return found


def _outside(test: Answers, found: Answers, thresholds: Thresholds, *, seed: int, replicates: int) -> dict:
    """Detection of one set of out-of-distribution images by each selector, and how many each rule refuses."""
    rows: dict[str, dict | None] = dict.fromkeys(SELECTORS)
    for name, inside in test.selectors.items():
        scores = found.selectors[name]
        refused = {t: share(~answered(scores, threshold)) for t, threshold in (thresholds[name] or {}).items()}
        rows[name] = {**detection(inside, scores, seed=seed, replicates=replicates), "refused": refused}
    return {"n_images": len(found.mean), "selectors": rows, "median_rule": {"refused": share(~found.median[1])}}


def both_rules(
    test: Answers, labels: np.ndarray, outside: Mapping[str, Answers], thresholds: Thresholds, typical: Mapping
) -> dict[str, dict]:
    """What a network answers of what looks typical: by selector and target, JSON-ready.

    Args:
        test: answers about the test images.
        labels: int (N,).
        outside: name -> answers about foreign images.
        thresholds: of the network.
        typical: "test" and the names of `outside` -> bool (N,) or (M,).

    Returns:
        selector -> target -> `coverage` and `accuracy` on the test images, `refused` by foreign set.
    """
    wrong = test.predicted != proper.check_labels(labels, *test.mean.shape)
    rows: dict[str, dict] = {}
    for name, scores in test.selectors.items():
        rows[name] = {}
        for target, threshold in (thresholds[name] or {}).items():
            refused = {
                key: share(~(answered(found.selectors[name], threshold) & typical[key]))
                for key, found in outside.items()
            }
            kept = answered(scores, threshold) & typical["test"]
            rows[name][target] = {**answer_row(kept, wrong), "refused": refused}
    return rows


def degradation_row(answers: Answers, labels, thresholds: Thresholds, *, seed: int, replicates: int) -> dict:
    """How a network takes degraded images, JSON-ready, each figure {"value", "interval"} at 95 %.

    Args:
        answers: from `read`, of the degraded images.
        labels: int (N,), of the images they were.
        thresholds: from `choose_thresholds`, on clean validation images.
        seed: of the bootstrap over images.
        replicates: number of bootstrap samples.

    Returns:
        `forced_accuracy`, mean `confidence`, mean `mutual_information` (None for one sample); and of all images the
        share `refused` and the share `confidently_wrong`, answered and wrong, by selector and target, and by the
        `median_rule`.
    """
    labels = proper.check_labels(labels, *answers.mean.shape)
    wrong = answers.predicted != labels

    def mean(per_image: np.ndarray) -> dict:
        interval = mean_interval(per_image, seed=seed, replicates=replicates)
        return {"value": float(per_image.mean()), "interval": interval}

    def rule(is_answered: np.ndarray, errors: np.ndarray) -> dict[str, dict]:
        return {"refused": share(~is_answered), "confidently_wrong": share(is_answered & errors)}

    predicted, is_answered = answers.median
    rows: dict[str, dict | None] = dict.fromkeys(SELECTORS)
    for name, scores in answers.selectors.items():
        rows[name] = {t: rule(answered(scores, value), wrong) for t, value in (thresholds[name] or {}).items()}
    return {
        "n_images": len(wrong),
        "forced_accuracy": share(~wrong),
        "confidence": mean(answers.mean.max(1)),
        "mutual_information": mean(answers.entropies.epistemic) if "mutual_information" in answers.selectors else None,
        "selectors": rows,
        "median_rule": rule(is_answered, predicted != labels),
    }
