"""How far a network's probabilities can be believed, and the one temperature that mends most of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean of -log p(true class), nats: logits (N, classes), labels int64 (N,)."""
    return F.cross_entropy(logits.double(), labels).item()


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over equal-width bins (Guo et al. 2017, eq. 3).

    Args:
        logits: (N, classes).
        labels: int64 (N,).
        bins: number of bins of the confidence, (0, 1/bins], ...

    Returns:
        0..1.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    hit = (predicted == labels).double()
    which = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, which, hit - confidence)  # n_b (acc_b - conf_b)
    return gaps.abs().sum().item() / len(labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 that minimises the likelihood loss of logits / T on held-out images (Guo et al. 2017, section 4.2).

    Of N images the true class is given the probability (N + 1) / (N + 2), the others share the rest (Platt 1999):
    images that are all right would otherwise ask for T = 0. The loss is convex in 1/T, so a bounded scalar search finds
    the minimum; T is sought in 0.05..20.
    """
    from scipy.optimize import minimize_scalar

    classes = logits.shape[1]
    smoothing = classes / (classes - 1) / (len(labels) + 2)

    def loss(inverse: float) -> float:
        return F.cross_entropy(logits.double() * inverse, labels, label_smoothing=smoothing).item()

    return 1 / float(minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x)


def calibration(logits: Tensor, labels: Tensor, temperature: float) -> dict[str, float]:
    """NLL and ECE as the network stands and at its temperature, JSON-ready."""
    scaled = logits / temperature
    return {
        "nll": negative_log_likelihood(logits, labels),
        "ece": expected_calibration_error(logits, labels),
        "nll_at_temperature": negative_log_likelihood(scaled, labels),
        "ece_at_temperature": expected_calibration_error(scaled, labels),
    }
