"""The report on one Bayesian network: forced, free to refuse, on noise, and on what each explanation keeps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from iic.bayes.asked import Ask
from iic.bayes.bootstrap import mean_interval
from iic.bayes.scores import check_labels, check_probabilities
from iic.bayes.selection import share
from iic.bayes.uncertainty import RULES, forced_prediction, uniform_noise
from iic.data.images import ImageSet
from iic.evaluation.degradation import top_pixels
from iic.evaluation.fills import Fills
from iic.evaluation.outcomes import HEADLINE_FILLS
from iic.explainers.attributions import Attributions
from iic.params import BayesianParams, EvaluationParams

CONFIDENCE_THRESHOLD = 0.9  # of the second rule; the first rule's is a parameter
WORDS = {
    "median": "largest median class probability > threshold (Malekzadeh 2021)",
    "confidence": "largest mean class probability > threshold",
}


def bayesian_report(
    plain: Ask,
    posterior: Ask,
    test: ImageSet,
    maps: dict[str, Attributions],
    fill: np.ndarray,
    params: BayesianParams,
    evaluation: EvaluationParams,
    *,
    dataset: str,
) -> dict:
    """JSON-ready figures of one Bayesian network, and under "plain" those of the explained one at its temperature.

    Args:
        plain: how the explained network is asked.
        posterior: how the Bayesian one is.
        test: the test set.
        maps: method -> the explained network's attributions of some test images.
        fill: float (C,), the dataset's mean colour.
        params: samples, threshold, number of noise images, seed.
        evaluation: share kept and noise seeds of the degraded images, of which the first is used; the bootstrap.
        dataset: its name.
    """
    draws = {"replicates": evaluation.bootstrap, "seed": evaluation.seed}
    thresholds = {"median": params.threshold, "confidence": CONFIDENCE_THRESHOLD}
    noise = uniform_noise(params.noise_images, test.images.shape[1:], params.seed)
    networks, degraded = {"posterior": posterior, "plain": plain}, {"posterior": {}, "plain": {}}
    for method, found in maps.items():
        for name, pixels in _degraded(test, found, Fills(fill, test.images[:0]), evaluation):
            for network, ask in networks.items():
                cell = figures(ask(pixels), test.labels[found.indices], thresholds, draws)
                degraded[network].setdefault(method, {})[name] = cell
    said = {
        network: {
            "precision": ask.precision,
            **clean_figures(ask(test.images), test.labels, thresholds, draws),
            "uniform_noise": refused_figures(ask(noise), thresholds),
            "degraded": degraded[network],
        }
        for network, ask in networks.items()
    }
    return {
        "dataset": dataset,
        "n_images": len(test),
        "samples": params.samples,
        **said["posterior"],
        "plain": said["plain"],
        "parameters": {"bayesian": params.model_dump(mode="json"), "evaluation": evaluation.model_dump(mode="json")},
        "rules": WORDS,
    }


def clean_figures(answers: np.ndarray, labels: np.ndarray, thresholds: dict[str, float], draws: dict) -> dict:
    """The test images, (S, N, K), forced and by each rule."""
    row = figures(answers, labels, thresholds, draws)
    rules = {}
    for rule, threshold in thresholds.items():
        predicted, is_answered = RULES[rule](answers, threshold)
        right = share((predicted == labels)[is_answered])
        rules[rule] = {
            "threshold": threshold,
            "coverage": row["coverage"][rule],
            "coverage_interval": row["coverage_interval"][rule],
            "answered_accuracy": right["value"],
            "answered_interval": right["interval"],
        }
    return {
        "forced_accuracy": row["forced_accuracy"],
        "forced_interval": row["interval"],
        "clean_confidence": row["confidence"],
        "clean_confidence_interval": row["confidence_interval"],
        "test": rules,
    }


def refused_figures(answers: np.ndarray, thresholds: dict[str, float]) -> dict:
    """How many of the noise images, (S, N, K), each rule refuses."""
    found, answers = {}, check_probabilities(answers, "noise image")
    for rule, threshold in thresholds.items():
        refused = share(~RULES[rule](answers, threshold)[1])
        found[rule] = {"refused": refused["value"], "interval": refused["interval"], "n_images": len(answers[0])}
    return found


def _degraded(
    test: ImageSet, found: Attributions, fills: Fills, evaluation: EvaluationParams
) -> Iterator[tuple[str, np.ndarray]]:
    """The images of which one method's most important pixels are left, uint8 (N, C, H, W), fill by fill."""
    images = test.images[found.indices]
    keep = top_pixels(np.asarray(found.values), evaluation.keep, found.indices, evaluation.seed)
    noise = evaluation.noise_seeds[0]
    for name in HEADLINE_FILLS:
        yield name, np.rint(fills(name, images, keep, found.indices, noise)).astype(np.uint8)


def figures(answers: np.ndarray, labels: np.ndarray, thresholds: dict[str, float], draws: dict) -> dict:
    """What is said of images, (S, N, K): right when forced, how sure, and what each rule answers; 95 % intervals.

    Raises:
        UserError: labels that do not fit, or an image with NaN, negative or non-normalised probabilities.
    """
    answers = check_probabilities(answers)
    labels = check_labels(labels, *answers.shape[1:])
    forced, confidence = forced_prediction(answers)
    right = share(forced == labels)
    answered = {rule: share(RULES[rule](answers, threshold)[1]) for rule, threshold in thresholds.items()}
    return {
        "n_images": len(labels),
        "forced_accuracy": right["value"],
        "interval": right["interval"],
        "confidence": float(confidence.mean()),
        "confidence_interval": mean_interval(confidence, **draws),
        "coverage": {rule: found["value"] for rule, found in answered.items()},
        "coverage_interval": {rule: found["interval"] for rule, found in answered.items()},
    }
