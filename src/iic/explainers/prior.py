"""`kernel_shap_fast`: Kernel SHAP drawn towards what training images taught, the more the less its own masks say.

The belief about an image's Shapley values is Gaussian. Its mean shares the total out by what is known of a superpixel
before any mask is tried: its size, its contrast with the fill, its relevance by LRP. Its covariance is the residuals'
on training images, larger between neighbours. The estimate and its sampling covariance V are then put together with it:

    mean + T (T + V)^-1 (estimate - mean)

so that with every mask, V = 0, nothing is drawn anywhere. What was learnt comes from training images and is frozen: a
result depends on no other image of the run (compare stochastic amortisation, Covert et al. 2024, arXiv 2401.15866).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

FEATURES = ("even", "size", "contrast", "relevance")


@dataclass(frozen=True)
class Prior:
    """What training images taught about Shapley values, all in units of v(1) - v(0).

    Attributes:
        shares: weight of each of FEATURES in the mean; they sum to 1.
        spread: standard deviation of what the mean leaves over, times the number of superpixels.
        neighbours: correlation of what is left over between superpixels that touch.
    """

    shares: tuple[float, ...]
    spread: float
    neighbours: float

    def to_json(self) -> dict:
        """Plain numbers, for the catalog."""
        return asdict(self) | {"features": list(FEATURES), "shares": list(self.shares)}

    @classmethod
    def from_json(cls, data: dict) -> Prior:
        """The inverse of `to_json`."""
        return cls(tuple(data["shares"]), data["spread"], data["neighbours"])


def features(image: np.ndarray, fill: np.ndarray, relevance: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """What is known of each superpixel without a mask: float64 (M, features), each column a share that sums to 1.

    Args:
        image: uint8 (C, H, W). fill: float (C, H, W). relevance: float (H, W), LRP's map. segments: int64 (H, W).
    """
    labels = segments.ravel()
    size = np.bincount(labels).astype(np.float64)
    contrast = np.bincount(labels, np.abs(image - fill).sum(0).ravel())
    relevant = np.bincount(labels, relevance.ravel())
    even = np.ones_like(size)
    return np.stack([_share(column) for column in (even, size, contrast, relevant)], 1)


def _share(column: np.ndarray) -> np.ndarray:
    """Divided by its sum; even where there is nothing to divide."""
    total = column.sum()
    return column / total if abs(total) > 1e-9 * np.abs(column).sum() > 0 else np.full(len(column), 1 / len(column))


def touching(segments: np.ndarray) -> np.ndarray:
    """Which superpixels share a border, pixel beside pixel: bool (M, M)."""
    m = int(segments.max()) + 1
    found = np.zeros((m, m), bool)
    for a, b in ((segments[1:], segments[:-1]), (segments[:, 1:], segments[:, :-1])):
        found[a.ravel(), b.ravel()] = True
    found |= found.T
    np.fill_diagonal(found, False)
    return found


def learn_prior(
    values: Sequence[np.ndarray],
    errors: Sequence[np.ndarray],
    known: Sequence[np.ndarray],
    segments: Sequence[np.ndarray],
) -> Prior:
    """The prior that fits training images best.

    Args:
        values: Kernel SHAP's values of each image, float64 (M,).
        errors: their standard errors, (M,), whose variance is taken off the spread.
        known: `features` of each image, (M, features).
        segments: superpixels of each image.
    """
    totals = [v.sum() for v in values]
    # Shares sum to 1: the first feature takes what the others leave.
    rows = np.concatenate([(f[:, 1:] - f[:, :1]) * len(f) for f in known])
    left = np.concatenate([(v / t - f[:, 0]) * len(f) for v, t, f in zip(values, totals, known, strict=True)])
    others = np.linalg.lstsq(rows, left, rcond=None)[0]
    shares = np.append(1 - others.sum(), others)
    squares, noise, together, pairs = 0.0, 0.0, 0.0, 0
    for v, e, t, f, s in zip(values, errors, totals, known, segments, strict=True):
        residual = (v / t - f @ shares) * len(f)
        near = touching(s)
        squares += float(residual @ residual)
        noise += float(np.square(e / t * len(f)).sum())
        together += float(residual @ near @ residual)
        pairs += int(near.sum())
    count = sum(len(v) for v in values)
    variance = max(squares - noise, 1e-3 * squares) / count
    correlation = float(np.clip(together / max(pairs, 1) / variance, -0.1, 0.9))
    return Prior(tuple(map(float, shares)), float(np.sqrt(variance)), correlation)


def shrink(
    prior: Prior, values: np.ndarray, covariance: np.ndarray, known: np.ndarray, segments: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate and prior put together.

    Args:
        prior: what was learnt.
        values: Kernel SHAP's values, float64 (M,).
        covariance: of their sampling, float64 (M, M).
        known: `features` of the image.
        segments: its superpixels.

    Returns:
        values, float64 (M,), with the same sum, and the standard deviations of what is left unknown.
    """
    m, total = len(values), values.sum()
    mean = total * (known @ np.asarray(prior.shares))
    near = touching(segments)
    largest = np.linalg.eigvalsh(near.astype(np.float64))[-1]
    correlation = np.eye(m) + min(prior.neighbours, 0.9 / max(largest, 1.0)) * near  # positive definite
    centre = np.eye(m) - 1 / m  # the sum is known
    belief = (prior.spread * total / m) ** 2 * centre @ correlation @ centre
    both = belief + covariance + np.abs(np.diag(belief)).mean() / m  # the last term fills the direction that is known
    gain = np.linalg.solve(both, belief).T
    found = mean + gain @ (values - mean)
    unknown = belief - gain @ belief
    return found, np.sqrt(np.clip(np.diag(unknown), 0, None))
