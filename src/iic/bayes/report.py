"""The report on one Bayesian network: forced, free to refuse, on noise, and on what each explanation keeps."""

from __future__ import annotations

import numpy as np

from iic.bayes.inference import Posterior, sample_probabilities
from iic.bayes.uncertainty import RULES, summary, uniform_noise
from iic.data.images import ImageSet
from iic.evaluation.degradation import top_pixels
from iic.evaluation.fills import Fills
from iic.evaluation.statistics import wilson_interval
from iic.explainers.attributions import Attributions
from iic.params import BayesianParams, EvaluationParams

CONFIDENCE_THRESHOLD = 0.9  # of the second rule; the first rule's is a parameter


def bayesian_report(
    posterior: Posterior,
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
        posterior: from `fit`.
        test: the test set.
        maps: method -> the convolutional network's attributions of some test images.
        fill: float (C,), the dataset's mean colour.
        params: samples, threshold, number of noise images, seed.
        evaluation: share kept and noise seeds of the degraded images; the first noise seed is used.
        dataset: its name.
        progress: wraps the posterior samples of each question, such as tqdm.
    """
    thresholds = {"median": params.threshold, "confidence": CONFIDENCE_THRESHOLD}

    def ask(images: np.ndarray) -> np.ndarray:  # uint8 (N, C, H, W) -> (S, N, K)
        return sample_probabilities(posterior, images, params.samples, seed=params.seed, progress=progress).numpy()

    answers = ask(test.images)
    rows = {rule: summary(answers, test.labels, thresholds[rule], rule) for rule in RULES}
    forced = rows["median"]["forced_accuracy"]
    noise = ask(uniform_noise(params.noise_images, test.images.shape[1:], params.seed))
    result = {
        "dataset": dataset,
        "n_images": len(test),
        "samples": params.samples,
        "forced_accuracy": forced,
        "forced_interval": list(wilson_interval(round(forced * len(test)), len(test))),
        "clean_confidence": rows["median"]["confidence"],
        "test": {rule: _rule_row(row, len(test), thresholds[rule]) for rule, row in rows.items()},
        "uniform_noise": {},
        "degraded": {},
        "parameters": {"bayesian": params.model_dump(mode="json"), "evaluation": evaluation.model_dump(mode="json")},
        "rules": {
            "median": "largest median class probability > threshold (Malekzadeh 2021)",
            "confidence": "largest mean class probability > threshold",
        },
    }
    for rule in RULES:
        refused = 1 - summary(noise, None, thresholds[rule], rule)["coverage"]
        interval = wilson_interval(round(refused * len(noise[0])), len(noise[0]))
        result["uniform_noise"][rule] = {"refused": refused, "interval": list(interval), "n_images": len(noise[0])}
    fills = Fills(fill, test.images[:0])
    for method, found in maps.items():
        result["degraded"][method] = {}
        images, labels = test.images[found.indices], test.labels[found.indices]
        keep = top_pixels(np.asarray(found.values), evaluation.keep, found.indices, evaluation.seed)
        for name in ("salt_and_pepper", "mean_colour"):
            pixels = fills(name, images, keep, found.indices, evaluation.noise_seeds[0])
            answers = ask(np.rint(pixels).astype(np.uint8))
            row = summary(answers, labels, thresholds["median"], "median")
            free = summary(answers, labels, thresholds["confidence"], "confidence")
            result["degraded"][method][name] = {
                "n_images": len(labels),
                "forced_accuracy": row["forced_accuracy"],
                "interval": list(wilson_interval(round(row["forced_accuracy"] * len(labels)), len(labels))),
                "confidence": row["confidence"],
                "coverage": {"median": row["coverage"], "confidence": free["coverage"]},
            }
    return result


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
