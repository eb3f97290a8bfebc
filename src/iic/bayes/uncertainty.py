"""When a Bayesian network should rather not answer: pure functions of posterior samples, probabilities (S, N, K).

S posterior samples, N images, K classes. Two rules of refusal: the original study's median of the class probabilities
(Malekzadeh 2021), and the confidence, the posterior mean's largest class probability.
"""

from __future__ import annotations

import numpy as np

from iic.errors import UserError


def forced_prediction(probabilities) -> tuple[np.ndarray, np.ndarray]:
    """Predicted class int64 (N,), the argmax of the posterior mean, and its mean probability float64 (N,)."""
    mean = np.asarray(probabilities).mean(axis=0, dtype=np.float64)  # (N, K)
    return mean.argmax(axis=1), mean.max(axis=1)


def median_rule(probabilities, threshold: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Malekzadeh 2021: the class whose median probability over the samples is largest; refuse unless that > threshold.

    Args:
        probabilities: (S, N, K), rows sum to 1.
        threshold: a largest median of exactly this is refused.

    Returns:
        Predicted class int64 (N,), answered bool (N,).
    """
    median = np.median(np.asarray(probabilities), axis=0)  # (N, K)
    return median.argmax(axis=1), median.max(axis=1) > threshold


def confidence_rule(probabilities, threshold: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """The forced prediction; refuse unless its mean probability > threshold. Shapes as `median_rule`."""
    predicted, confidence = forced_prediction(probabilities)
    return predicted, confidence > threshold


RULES = {"median": median_rule, "confidence": confidence_rule}


def summary(probabilities, labels, threshold: float, rule: str = "median") -> dict[str, float | None]:
    """How often the network is right when forced, how often it answers, and how often it is right then.

    Args:
        probabilities: (S, N, K), from `sample_probabilities`.
        labels: int (N,), or None for images that have no right answer, such as noise.
        threshold: of the rule; the original study's median rule has 0.2.
        rule: a key of `RULES`.

    Returns:
        forced_accuracy: share right when every image is answered with the posterior mean's class (None without labels).
        coverage: share answered; 1 - coverage is refused.
        answered_accuracy: share right among the answered (None when nothing is answered, or without labels).
        confidence: mean over all images of the forced prediction's mean probability.

    Raises:
        UserError: no images, labels of another number, or an unknown rule.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 3 or 0 in probabilities.shape:
        raise UserError(f"Probabilities must be (samples, images, classes), none of them 0, not {probabilities.shape}.")
    if rule not in RULES:
        raise UserError(f"There is no rule of refusal '{rule}': choose one of {', '.join(RULES)}.")
    predicted, answered = RULES[rule](probabilities, threshold)
    forced, confidence = forced_prediction(probabilities)
    row: dict[str, float | None] = {
        "forced_accuracy": None,
        "coverage": float(answered.mean()),
        "answered_accuracy": None,
        "confidence": float(confidence.mean()),
    }
    if labels is None:
        return row
    labels = np.asarray(labels)
    if labels.shape != forced.shape:
        raise UserError(f"There must be one label per image ({len(forced)}), not {labels.shape}.")
    row["forced_accuracy"] = float((forced == labels).mean())
    if answered.any():
        row["answered_accuracy"] = float((predicted == labels)[answered].mean())
    return row


def uniform_noise(n: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """`n` images uint8 (n, C, H, W) of shape (C, H, W), every value uniform in 0..255: nothing to recognise."""
    return np.random.default_rng(seed).integers(0, 256, size=(n, *shape), dtype=np.uint8)
