"""How good predicted probabilities are: likelihood, Brier score and calibration, from posterior means (N, K).

N images, K classes. Where a number is a mean over images, the function returns the summands (N,), so that intervals can
be drawn over images. The confidence is the largest mean probability, and an image is right if that class is the label.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from iic.bayes.uncertainty import forced_prediction
from iic.classifiers.calibration import BINS
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation.comparison import TAILS, resampled_means
from iic.evaluation.statistics import wilson_interval

TOLERANCE = 1e-4  # of a row's sum: a float32 softmax is off by 1e-6, one that was rounded to bfloat16 by 1e-3
SMALLEST = float(np.finfo(np.float32).tiny)  # below it a float32 softmax can no longer tell a probability from 0

Binning = Callable[[np.ndarray], np.ndarray]  # confidence (N,) -> bin int (N,), in 0..BINS - 1


def check_probabilities(probabilities, what: str = "image") -> np.ndarray:
    """The probabilities (..., N, K) as an array of their own type, once they are known to be some.

    Args:
        probabilities: (..., N, K).
        what: the images are, for the message.

    Raises:
        UserError: fewer than two axes, nothing in them, or an image with NaN, a negative number or a sum that is not 1.
    """
    values = np.asarray(probabilities)
    if values.ndim < 2 or 0 in values.shape:
        raise UserError(f"Probabilities must be (..., images, classes), none of them 0, not {values.shape}.")
    with np.errstate(invalid="ignore"):  # infinities of both signs
        good = (values >= 0).all(-1) & (np.abs(values.sum(-1, dtype=np.float64) - 1) <= TOLERANCE)  # (..., N)
    good = good.reshape(-1, values.shape[-2]).all(0)  # (N,)
    if not good.all():
        raise UserError(
            f"The probabilities of {what} {int(good.argmin())} are NaN, negative or do not sum to 1: "
            "pass a softmax's output, and look for NaN in the network's weights."
        )
    return values


def check_labels(labels, images: int, classes: int) -> np.ndarray:
    """The labels int (N,), once there is one per image and each is a class.

    Raises:
        UserError: labels of another type, number or range.
    """
    labels = np.asarray(labels)
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"There must be one integer label per image ({images}), not {labels.dtype} {labels.shape}.")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        first = int(outside.argmax())
        raise UserError(f"Image {first} has label {labels[first]}, but the probabilities have {classes} classes.")
    return labels


def _checked(probabilities, labels) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float64 (N, K) and labels int (N,)."""
    values = check_probabilities(probabilities)
    if values.ndim != 2:
        raise UserError(f"Scores need mean probabilities (images, classes), not {values.shape}: average the samples.")
    return values.astype(np.float64), check_labels(labels, *values.shape)


def negative_log_likelihood(probabilities, labels) -> np.ndarray:
    """-log p(true class) of each image, nats, 0..87.4: (N, K), (N,) -> float64 (N,).

    A probability that has underflowed to 0 counts as the smallest normal float32, so that one image costs 87 nats, not
    the whole mean.
    """
    probabilities, labels = _checked(probabilities, labels)
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], SMALLEST, 1))


def brier_score(probabilities, labels) -> np.ndarray:
    """Sum over classes of (p - truth)^2 of each image, 0..2 (Brier 1950): (N, K), (N,) -> float64 (N,)."""
    probabilities, labels = _checked(probabilities, labels)
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)


def equal_width(confidence: np.ndarray) -> np.ndarray:
    """Bins (0, 1/15], (1/15, 2/15], ... of the confidence (Guo et al. 2017): (N,) -> int (N,)."""
    return np.clip(np.ceil(confidence * BINS), 1, BINS).astype(np.int64) - 1


def equal_mass(confidence: np.ndarray) -> np.ndarray:
    """Bins of nearly N/15 images each, by rising confidence (Nguyen & O'Connor 2015): (N,) -> int (N,).

    Equal confidences share a bin, so that the order of the images does not matter; bins may then be empty.
    """
    last = np.ceil(np.arange(1, BINS) * len(confidence) / BINS).astype(np.int64) - 1  # rank of each bin's last image
    return np.searchsorted(np.sort(confidence)[last], confidence, side="left")


def calibration_gaps(probabilities, labels, binning: Binning = equal_width) -> np.ndarray:
    """Right (0 or 1) minus confidence of each image in the row of its bin, 0 in the other rows: float64 (BINS, N).

    The row means are n_b/N (accuracy_b - confidence_b), of which a calibration error is the sum of absolute values.
    """
    probabilities, labels = _checked(probabilities, labels)
    predicted, confidence = forced_prediction(probabilities[None])
    gaps = np.zeros((BINS, len(labels)))
    gaps[binning(confidence), np.arange(len(labels))] = (predicted == labels) - confidence
    return gaps


def calibration_error(gaps: np.ndarray) -> float:
    """The calibration error that `calibration_gaps` (BINS, N) add up to."""
    return float(np.abs(gaps.mean(1)).sum())


def expected_calibration_error(probabilities, labels) -> float:
    """Mean distance of confidence and accuracy over 15 equal-width bins, 0..1 (Guo et al. 2017, eq. 3)."""
    return calibration_error(calibration_gaps(probabilities, labels))


def adaptive_calibration_error(probabilities, labels) -> float:
    """The same over 15 bins of equal mass, which a network that is mostly sure does not leave empty; 0..1."""
    return calibration_error(calibration_gaps(probabilities, labels, equal_mass))


def calibration_interval(
    probabilities, labels, binning: Binning = equal_width, *, replicates: int, seed: int
) -> list[float]:
    """95 % interval of a calibration error; the bins stay as they are.

    A calibration error is a sum of absolute values: noise adds to it, in the sample and once more in each bootstrap
    replicate, so percentiles of the replicates lie too high (of a calibrated network they never hold the 0). Their
    upper end is kept, as it errs to the safe side. The lower end is the pivotal one (Davison & Hinkley 1997, section
    5.2), which takes one bias off; it is 0 where a calibrated network would often do no better: where the error is no
    larger than 95 % of those with labels drawn anew from the confidences (Bröcker & Smith 2007).

    Args:
        probabilities: (N, K).
        labels: int (N,).
        binning: of the confidence.
        replicates: number of bootstrap samples, and of sets of labels.
        seed: of the draws.
    """
    gaps = calibration_gaps(probabilities, labels, binning)
    point = calibration_error(gaps)
    high = float(np.quantile(np.abs(resampled_means(gaps, replicates, seed)).sum(1), TAILS[1]))
    confidence = forced_prediction(np.asarray(probabilities)[None])[1]
    which, rng = binning(confidence), generator("bootstrap", seed, 1)
    calibrated = [
        np.abs(np.bincount(which, (rng.random(len(which)) < confidence) - confidence)).sum() / len(which)
        for _ in range(replicates)
    ]
    return [0.0 if point <= np.quantile(calibrated, 0.95) else max(0.0, 2 * point - high), high]


def reliability_bins(probabilities, labels, binning: Binning = equal_width) -> list[dict[str, float | None]]:
    """What a reliability plot shows, by rising confidence, JSON-ready.

    Returns:
        Per bin: `count` of images, their mean `confidence` and their `accuracy` with Wilson's `interval`, None in an
        empty bin.
    """
    probabilities, labels = _checked(probabilities, labels)
    predicted, confidence = forced_prediction(probabilities[None])
    which = binning(confidence)
    count = np.bincount(which, minlength=BINS)
    sums = np.bincount(which, confidence, BINS), np.bincount(which, predicted == labels, BINS)
    return [
        {
            "count": int(n),
            "confidence": float(sure / n) if n else None,
            "accuracy": float(right / n) if n else None,
            "interval": list(wilson_interval(int(right), int(n))) if n else None,
        }
        for n, sure, right in zip(count, *sums, strict=True)
    ]
