"""LIME for images (Ribeiro et al. 2016), with the kernel and ridge regression of the `lime` package.

Masks are its coin flips, drawn in pairs (z, 1 - z) that share out evenly which superpixels show together
(`balanced_masks`): each mask by itself is distributed as `lime_image`'s, and what the network says of the others
cancels most of what each would add by chance. When every mask can be afforded, all are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iic.explainers.balanced_masks import Balance, balanced_pairs
from iic.explainers.coalitions import in_pairs
from iic.explainers.regression import cholesky, padded_signs, padded_vectors, weighted


def draw_masks(segments: np.ndarray, budget: int, rng: np.random.Generator) -> tuple[np.ndarray, Balance | None]:
    """The mask that keeps all, then pairs of complements, each superpixel a coin flip; and how they are balanced.

    When 2^M - 1 or more can be afforded: every mask but the empty one, once each. The pair of the first mask, the
    empty one, is left out as `lime_image` leaves it to chance.

    Args:
        segments: int64 (H, W), labels 0..M-1: which superpixels are neighbours.
        budget: the number of masks.
        rng: the draws.

    Returns:
        bool (B, M), B <= budget; and the pairs' balance, None where all masks are used or pairs are coin flips.
    """
    m = int(segments.max()) + 1
    if m < 60 and 2**m - 1 <= budget:
        numbers = np.arange(2 ** (m - 1), 2**m - 1)[:, None]  # those with the last superpixel, but for the whole
        half, balance = (numbers >> np.arange(m)) & 1 == 1, None
    else:
        half, balance = balanced_pairs(segments, (budget - 1) // 2, rng)
    return np.concatenate([np.ones((1, m), bool), in_pairs(half)]), balance


def proximity(share: Tensor, kernel_width: float) -> Tensor:
    """sqrt(exp(-d^2 / width^2)) of the share |z| / M that a mask keeps, d = 1 - sqrt(|z| / M) the cosine distance to
    the mask that keeps all; same shape."""
    return (-((1 - share.sqrt()) / kernel_width).square()).exp().sqrt()


def lime_coefficients(
    masks: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    balances: Sequence[Balance | None] | None = None,
    *,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weighted ridge regression of values on masks, intercept unpenalised, of many images at once.

    Args:
        masks: for each image bool (B, M); pairs are looked for in the order of `draw_masks`.
        values: for each image float (B,), the network's output for each mask.
        balances: of each image's pairs, as `draw_masks` gives them; none: pairs are taken for coin flips.
        kernel_width: sigma of the proximity kernel.
        ridge: the penalty alpha on the coefficients' squares.

    Returns:
        coefficients and their standard errors, for each image float64 (M,). The error is the drawing of the pairs', or
        of single masks (sandwich, HC3), the first mask apart, which is not drawn, less what their balance keeps out;
        zero when every mask was used. It does not say how far the ridge pulls towards zero.

    Raises:
        UserError: the masks do not determine the coefficients (with a ridge of 0).
    """
    m = [z.shape[1] for z in masks]
    real = torch.arange(max(m)) < torch.tensor(m)[:, None]  # (I, M)
    signs, kept, others = _pairs(masks, values, kernel_width)
    fit = _fit(signs, kept, others, ridge, real)
    errors = _errors(signs, kept, others, fit, balances or [None] * len(masks))
    whole = [len(z) >= 2.0**k - 1 for z, k in zip(masks, m, strict=True)]
    return (
        [s[:k].numpy() for s, k in zip(fit.solution, m, strict=True)],
        [e[:k].numpy() * (not all_) for e, k, all_ in zip(errors, m, whole, strict=True)],
    )


@dataclass(frozen=True)
class _Half:
    """One mask of each pair: its weight in the regression and the network's output, float64 (I, P)."""

    weight: Tensor
    value: Tensor

    def pull(self, fitted: Tensor, leverage: Tensor) -> Tensor:
        """By how much each mask moves the normal equations: its residual, enlarged by its leverage, both (I, P)."""
        return self.weight * (self.value - fitted) / (1 - self.weight * leverage).clamp(min=1e-6)


@dataclass(frozen=True)
class _Fit:
    """The weighted ridge regression of each image, float64.

    Attributes:
        mass: (I, 1), sum of the weights.
        mean: (I, 1), weighted mean of the values.
        shift: (I, M); a mask less the masks' mean is (sign + shift) / 2, its complement (shift - sign) / 2.
        inverse: (I, M, M), of the centred Gram matrix with the ridge.
        solution: (I, M).
    """

    mass: Tensor
    mean: Tensor
    shift: Tensor
    inverse: Tensor
    solution: Tensor


def _fit(signs: Tensor, kept: _Half, others: _Half, ridge: float, real: Tensor) -> _Fit:
    both = kept.weight + others.weight
    mass = both.sum(1, keepdim=True)
    mean = (kept.weight * kept.value + others.weight * others.value).sum(1, keepdim=True) / mass
    answers = kept.weight * (kept.value - mean) - others.weight * (others.value - mean)
    shift, right = _times(signs.mT, kept.weight - others.weight, answers)  # (I, M)
    shift = -shift / mass
    gram = (weighted(signs, both, signs) - mass[..., None] * _outer(shift, shift)) / 4
    gram += ridge * torch.diag_embed(real.double())
    inverse = torch.cholesky_inverse(cholesky(gram, real, "LIME's coefficients"))
    (solution,) = _times(inverse, right / 2)
    return _Fit(mass, mean, shift, inverse, solution)


def _errors(signs: Tensor, kept: _Half, others: _Half, fit: _Fit, balances: Sequence[Balance | None]) -> Tensor:
    """Standard errors (I, M): the sandwich with a pair's pull, of both its masks, as one observation, by balance."""
    (toward,) = _times(fit.inverse, fit.shift)
    along, mixed = _times(signs, fit.solution / 2, toward / 2)  # (I, P)
    across = fit.mean + (fit.shift * fit.solution).sum(1, keepdim=True) / 2
    own = (signs @ fit.inverse).mul_(signs).sum(-1) / 4
    own += (fit.shift * toward).sum(1, keepdim=True) / 4 + 1 / fit.mass
    pull = kept.pull(across + along, own + mixed)
    opposite = others.pull(across - along, own - mixed)
    pull[:, 0] = opposite[:, 0] = 0  # the mask that keeps all is not drawn
    odd, even = pull - opposite, pull + opposite  # a pair moves the right side by (odd sign + even shift) / 2
    (turned,) = _times(signs.mT, odd * even)
    spread = weighted(signs, odd.square(), signs) + _outer(turned, fit.shift) + _outer(fit.shift, turned)
    spread += even.square().sum(1)[:, None, None] * _outer(fit.shift, fit.shift)
    variance = (fit.inverse @ spread @ fit.inverse).diagonal(dim1=1, dim2=2).clamp(min=0) / 4
    for own, balance in zip(variance, balances, strict=True):
        if balance is not None:
            own[: len(balance.numbers)] *= torch.from_numpy(balance.left_to_chance())
    return variance.sqrt()


def _pairs(
    masks: Sequence[np.ndarray], values: Sequence[np.ndarray], kernel_width: float
) -> tuple[Tensor, _Half, _Half]:
    """Signs (I, P, M) of one mask of each pair, that mask, and its partner."""
    kept, first, second, there = zip(*map(_split, masks, values), strict=True)
    signs = padded_signs(kept)
    more = signs.sum(-1) / torch.tensor([[z.shape[1]] for z in masks])  # share that is kept less the share that is not
    counted = padded_vectors([np.ones(len(z)) for z in kept])  # rows that are not padding
    return (
        signs,
        _Half(proximity((1 + more) / 2, kernel_width) * counted, padded_vectors(first)),
        _Half(proximity((1 - more) / 2, kernel_width) * padded_vectors(there), padded_vectors(second)),
    )


def _split(masks: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One mask of each pair (P, M), its value (P,), its partner's, and whether it has one: 0 or 1.

    The first mask has none; where masks are not the first and then pairs none has one.
    """
    if len(masks) % 2 and (masks[1::2] != masks[2::2]).all():
        rest = np.ones(len(masks) // 2)
        kept = np.concatenate([masks[:1], masks[1::2]])
        return kept, np.append(values[:1], values[1::2]), np.append(0.0, values[2::2]), np.append(0.0, rest)
    return masks, values, np.zeros(len(masks)), np.zeros(len(masks))


def _times(matrices: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    """(I, A, B) times each of some (I, B): so many (I, A)."""
    return (matrices @ torch.stack(vectors, -1)).unbind(-1)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """(I, A, B)."""
    return left[..., None] * right[:, None]
