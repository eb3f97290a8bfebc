"""LIME's coefficients by a Gaussian process over masks: what `lime_fast` adds to LIME.

LIME's regression treats all that is not linear in the mask as noise. Here the log-odds of the explained class (or its
logit, where that is explained) are a Gaussian process over masks, and LIME's line is drawn through what the process
expects of many more masks than the network was shown. Masks are alike where the same superpixels show and, above all,
the same neighbours both or neither: what a convolutional network makes of a place hangs on what shows next to it. The
more a superpixel moves the network by itself, the more it counts. In log-odds effects add up that the probability cuts
off at 0 and 1. (Kernel quadrature: O'Hagan 1991, Bayes-Hermite quadrature; learnt is nothing from other images.)

What the process gets wrong is LIME's own affair: a line through its leave-one-out errors (Rasmussen and Williams 2006,
eq. 5.12) is added, so that the process is a control variate, and a game unlike it gets what LIME would find.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iic.explainers.lime import draw_masks, lime_coefficients
from iic.explainers.segmentation import common_borders

SCALE = 0.5  # how fast masks become unlike, in squared distance
NOISE = 0.02  # variance that is left to what has no form, in the process's own
LINEAR = 10.0  # variance of superpixels' own effects, beyond the kernel's: as good as free
FREE = 4096  # pairs of masks that the process is asked about; all there are, up to 13 superpixels
SOFT = 1e-4  # probabilities are told apart down to this
CAUTION = 1.2  # errors are enlarged so much: no network is quite such a process (held by 90-94 % of intervals without)


def process_coefficients(
    masks: np.ndarray,
    values: np.ndarray,
    segments: np.ndarray,
    rng: np.random.Generator,
    *,
    odds: bool = True,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """LIME's coefficients of one image, with less error from as many masks.

    Args:
        masks: bool (B, M) from `draw_masks`.
        values: float (B,), what the network said of each.
        segments: int64 (H, W), labels 0..M-1: which superpixels are neighbours.
        rng: draws the masks that the process is asked about.
        odds: whether the values are probabilities.
        kernel_width: sigma of LIME's proximity kernel.
        ridge: LIME's penalty, which hardly pulls where the process is asked about thousands of masks.

    Returns:
        coefficients and standard errors, float64 (M,) each: what drawing the masks leaves open of the process's
        leave-one-out errors, and what drawing those that it is asked about does. Every mask used: `lime_coefficients`,
        which are exact then, and zeros.

    Raises:
        UserError: the masks do not determine the coefficients (with a ridge of 0).
    """
    lime = {"kernel_width": kernel_width, "ridge": ridge}
    m = masks.shape[1]
    if len(masks) >= 2.0**m - 1:
        (exact,), (zeros,) = lime_coefficients([masks], [values], **lime)
        return exact, zeros
    link, back = (log_odds, probability) if odds else (np.asarray, np.asarray)
    linked = link(values)
    (pilot,), (doubt,) = lime_coefficients([masks], [linked], **lime)
    process = Process(masks[1::2], linked[1::2], linked[2::2], kernel_features(np.abs(pilot) + doubt, segments))
    free, balance = draw_masks(segments, 2 * FREE + 1, rng)
    expected = back(np.stack(process.expect(free[1::2]), 1).ravel())
    (whole,), (luck,) = lime_coefficients([free], [np.append(values[0], expected)], [balance], **lime)
    missed = np.zeros(len(values))
    kept, others = process.left_out()
    missed[1::2], missed[2::2] = values[1::2] - back(kept), values[2::2] - back(others)
    (more,), (errors,) = lime_coefficients([masks], [missed], **lime)
    return whole + more, CAUTION * np.hypot(errors, luck)


def log_odds(p: np.ndarray) -> np.ndarray:
    """log p / (1 - p), finite at 0 and 1."""
    return np.log(p + SOFT) - np.log(1 - p + SOFT)


def probability(odds: np.ndarray) -> np.ndarray:
    """The inverse of `log_odds`."""
    return (1 + 2 * SOFT) / (1 + np.exp(-odds)) - SOFT


@dataclass(frozen=True)
class Features:
    """What masks are compared by: their signs, each with a weight, and the products of neighbours' signs.

    Attributes:
        single: float64 (M,), sums to 1.
        pairs: int64 (2, E), neighbours.
        both: float64 (E,), sums to 1; nothing where there are no neighbours.
    """

    single: np.ndarray
    pairs: np.ndarray
    both: np.ndarray

    def __call__(self, masks: np.ndarray, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Of masks bool (B, M): what changes its sign with the mask (B, M), and what does not (B, E)."""
        signs = torch.from_numpy(masks).to(dtype).mul_(2).sub_(1)
        single, both = (torch.from_numpy(weight).to(dtype).sqrt() for weight in (self.single, self.both))
        first, second = torch.from_numpy(self.pairs)
        return signs * single, signs[:, first] * signs[:, second] * both


def kernel_features(importance: np.ndarray, segments: np.ndarray) -> Features:
    """Superpixels count by the root of their importance (M,), neighbours also by the length of their border."""
    weight = np.sqrt(importance + np.finfo(float).tiny)
    weight /= weight.sum()
    borders = common_borders(segments)
    pairs = np.stack(np.nonzero(np.triu(borders)))
    both = borders[tuple(pairs)] * np.sqrt(weight[pairs[0]] * weight[pairs[1]])
    return Features(weight, pairs, both / max(both.sum(), np.finfo(float).tiny))


class Process:
    """The process given what it is at pairs of masks: z bool (P, M), values (P,) at z and at 1 - z.

    The part that is the same at z and 1 - z and the part that changes its sign are independent, so that two systems of
    P equations stand in for one of 2 P.
    """

    def __init__(self, masks: np.ndarray, kept: np.ndarray, others: np.ndarray, features: Features) -> None:
        self.features, self.masks, self.values = features, masks, (kept, others)
        even, odd = self._kernels(masks, torch.float64)
        noise = NOISE * torch.eye(len(masks), dtype=torch.float64)
        self.mean = float(np.mean([kept, others]))
        halves = (torch.from_numpy((kept + others) / 2 - self.mean), torch.from_numpy((kept - others) / 2))
        factors = [torch.linalg.cholesky(kernel + noise) for kernel in (even, odd)]
        self.weights = [torch.cholesky_solve(h[:, None], f)[:, 0] for h, f in zip(halves, factors, strict=True)]
        self.precisions = [torch.cholesky_inverse(f).diagonal() for f in factors]

    def _kernels(self, masks: np.ndarray, dtype: torch.dtype) -> list[Tensor]:
        """k(z, z') + k(z, 1 - z') and k(z, z') - k(z, 1 - z') between these masks (B, M) and its own: (B, P) each."""
        (turning, staying), (own_turning, own_staying) = self.features(masks, dtype), self.features(self.masks, dtype)
        effects = turning @ own_turning.T
        alike = (SCALE * effects).exp_()
        level = (SCALE * (staying @ own_staying.T - 2)).exp_()
        return [level * (alike + 1 / alike), level * (alike - 1 / alike) + 2 * LINEAR * effects]

    def expect(self, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The process's mean at masks bool (B, M) and at their complements: float64 (B,) each."""
        even, odd = (
            (k @ w.to(k.dtype)).double().numpy()
            for k, w in zip(self._kernels(masks, torch.float32), self.weights, strict=True)
        )
        return self.mean + even + odd, self.mean + even - odd

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """What it would expect of each of its pairs if it had not been told of that one: (P,) at z and at 1 - z."""
        even, odd = ((w / p).numpy() for w, p in zip(self.weights, self.precisions, strict=True))
        return self.values[0] - even - odd, self.values[1] - even + odd
