"""The report on one Bayesian network: forced, free to refuse, on noise, and on what each explanation keeps."""

from __future__ import annotations

import numpy as np

from iic.bayes.asked import Ask, ask_posterior
from iic.bayes.record import Learnt
from iic.bayes.uncertainty import RULES, summary, uniform_noise
from iic.data.images import ImageSet
from iic.evaluation.degradation import top_pixels
from iic.evaluation.fills import Fills
from iic.evaluation.outcomes import HEADLINE_FILLS
from iic.evaluation.statistics import wilson_interval
from iic.explainers.attributions import Attributions
from iic.params import BayesianParams, EvaluationParams

CONFIDENCE_THRESHOLD = 0.9  # of the second rule; the first rule's is a parameter
WORDS = {
    "median": "largest median class probability > threshold (Malekzadeh 2021)",
    "confidence": "largest mean class probability > threshold",
}


def bayesian_report(
    posterior: Learnt,
    test: ImageSet,
    maps: dict[str, Attributions],
    fill: np.ndarray,
    params: BayesianParams,
    evaluation: EvaluationParams,
    *,
    dataset: str,
    progress=iter,
) -> dict:
    """JSON-ready figures of one Bayesian network.

    Args:
        posterior: of any kind.
        test: the test set.
        maps: method -> the convolutional network's attributions of some test images.
        fill: float (C,), the dataset's mean colour.
        params: samples, threshold, number of noise images, seed.
        evaluation: share kept and noise seeds of the degraded images; the first noise seed is used.
        dataset: its name.
        progress: wraps the posterior samples of each question, such as tqdm.
    """
    thresholds = {"median": params.threshold, "confidence": CONFIDENCE_THRESHOLD}
    ask = ask_posterior(posterior, params.samples, seed=params.seed, progress=progress)
    fills = Fills(fill, test.images[:0])
    return {
        "dataset": dataset,
        "n_images": len(test),
        "samples": params.samples,
        "precision": ask.precision,
        **_clean(ask(test.images), test.labels, thresholds),
        "uniform_noise": _noise(
            ask(uniform_noise(params.noise_images, test.images.shape[1:], params.seed)), thresholds
        ),
        "degraded": {m: _degraded(ask, test, found, fills, evaluation, thresholds) for m, found in maps.items()},
        "parameters": {"bayesian": params.model_dump(mode="json"), "evaluation": evaluation.model_dump(mode="json")},
        "rules": WORDS,
    }


def _clean(answers: np.ndarray, labels: np.ndarray, thresholds: dict[str, float]) -> dict:
    """The test images, (S, N, K), forced and by each rule."""
    rows = {rule: summary(answers, labels, thresholds[rule], rule) for rule in RULES}
    forced, count = rows["median"]["forced_accuracy"], len(labels)
    return {
        "forced_accuracy": forced,
        "forced_interval": list(wilson_interval(round(forced * count), count)),
        "clean_confidence": rows["median"]["confidence"],
        "test": {rule: _rule_row(row, count, thresholds[rule]) for rule, row in rows.items()},
    }


def _noise(answers: np.ndarray, thresholds: dict[str, float]) -> dict:
    """How many of the noise images, (S, N, K), each rule refuses."""
    found, count = {}, len(answers[0])
    for rule in RULES:
        refused = 1 - summary(answers, None, thresholds[rule], rule)["coverage"]
        interval = wilson_interval(round(refused * count), count)
        found[rule] = {"refused": refused, "interval": list(interval), "n_images": count}
    return found


def _degraded(
    ask: Ask,
    test: ImageSet,
    found: Attributions,
    fills: Fills,
    evaluation: EvaluationParams,
    thresholds: dict[str, float],
) -> dict:
    """What is said of images of which one method's most important pixels are left, by fill."""
    images, labels = test.images[found.indices], test.labels[found.indices]
    keep = top_pixels(np.asarray(found.values), evaluation.keep, found.indices, evaluation.seed)
    rows = {}
    for name in HEADLINE_FILLS:
        pixels = fills(name, images, keep, found.indices, evaluation.noise_seeds[0])
        answers = ask(np.rint(pixels).astype(np.uint8))
        row, free = (summary(answers, labels, thresholds[rule], rule) for rule in ("median", "confidence"))
        rows[name] = {
            "n_images": len(labels),
            "forced_accuracy": row["forced_accuracy"],
            "interval": list(wilson_interval(round(row["forced_accuracy"] * len(labels)), len(labels))),
            "confidence": row["confidence"],
            "coverage": {"median": row["coverage"], "confidence": free["coverage"]},
        }
    return rows


def _rule_row(row: dict, count: int, threshold: float) -> dict:
    """What a rule answers, with the interval of its accuracy."""
    answered = round(row["coverage"] * count)
    right = None if row["answered_accuracy"] is None else round(row["answered_accuracy"] * answered)
    return {
        "threshold": threshold,
        "coverage": row["coverage"],
        "answered_accuracy": row["answered_accuracy"],
        "answered_interval": None if right is None else list(wilson_interval(right, answered)),
    }
