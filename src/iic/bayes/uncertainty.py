"""When a Bayesian network should rather not answer: pure functions of posterior samples, probabilities (S, N, K).

S posterior samples, N images, K classes. Two rules of refusal: the original study's median of the class probabilities
(Malekzadeh 2021), and the confidence, the posterior mean's largest class probability.
"""

from __future__ import annotations

import numpy as np


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


def uniform_noise(n: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """`n` images uint8 (n, C, H, W) of shape (C, H, W), every value uniform in 0..255: nothing to recognise."""
    return np.random.default_rng(seed).integers(0, 256, size=(n, *shape), dtype=np.uint8)
