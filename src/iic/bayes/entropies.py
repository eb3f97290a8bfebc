"""What a posterior does not know, split in two: noise in the images themselves, and too little training data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from iic.bayes.scores import check_probabilities
from iic.errors import UserError


@dataclass(frozen=True)
class Entropies:
    """Of N images, in nats, 0..log K (Depeweg et al. 2018).

    Attributes:
        total: float64 (N,), entropy of the posterior mean.
        aleatoric: float64 (N,), mean entropy of the samples: what remains however much was known of the weights.
        epistemic: float64 (N,), total - aleatoric, the mutual information of class and weights (Houlsby et al. 2011).
    """

    total: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray


def entropies(samples, what: str = "image") -> Entropies:
    """The entropies of posterior samples (S, N, K), rows that sum to 1; one sample has nothing epistemic.

    Rows are normalised in float64 first: the rounding of a float32 softmax is larger than the mutual information of
    images that every sample is sure of.

    Args:
        samples: (S, N, K).
        what: the images are, for the message.

    Raises:
        UserError: another number of axes, or an image with NaN, negative or non-normalised probabilities.
    """
    samples = check_probabilities(samples, what)
    if samples.ndim != 3:
        raise UserError(f"Entropies need posterior samples (samples, images, classes), not {samples.shape}.")
    mean, aleatoric = np.zeros(samples.shape[1:]), np.zeros(samples.shape[1])
    for sample in samples:  # one at a time, for memory
        rows = sample.astype(np.float64)
        rows /= rows.sum(1, keepdims=True)
        mean += rows
        aleatoric += entr(rows).sum(1)  # -p log p, exactly 0 at p = 0
    total, aleatoric = entr(mean / len(samples)).sum(1), aleatoric / len(samples)
    return Entropies(total, aleatoric, np.maximum(total - aleatoric, 0))  # below 0 by rounding only (Jensen)
