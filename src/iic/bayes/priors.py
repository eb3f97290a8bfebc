"""What is believed of every weight and bias before training: a Normal, a scale mixture of two, or scales to be learnt.

All answer one question, the cross entropy -E log p(w) under what training has made of w. The KL divergence is that
minus the entropy of w; the penalty of a single set of weights is that itself.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


class Prior(Protocol):
    """Independent weights and biases of mean 0."""

    needs_sample: bool  # whether `cross_entropy` estimates from a sample

    def cross_entropy(self, loc: Tensor, variance: Tensor | float, sample: Tensor | None) -> Tensor:
        """-E log p(w), in nats, summed over the entries of `loc`; or an unbiased estimate of it.

        Args:
            loc: the weights' mean, any shape.
            variance: their variance, same shape; 0.0 for weights that are certain, which `OwnScales` has no answer for.
            sample: one draw of the weights, same shape; only looked at if `needs_sample`.
        """

    @property
    def numbers(self) -> tuple[float, ...]:
        """What tells it from others: one number for a Normal, three for a mixture, 0 for scales of their own."""


@dataclass(frozen=True)
class Normal:
    """Normal of mean 0; the cross entropy is exact, whatever the shape of the weights' distribution.

    Attributes:
        scale: standard deviation.
    """

    scale: float
    needs_sample = False

    def cross_entropy(self, loc: Tensor, variance: Tensor | float, sample: Tensor | None = None) -> Tensor:
        """As `Prior.cross_entropy`: it needs two moments only."""
        second_moment = loc.square().sum() + torch.as_tensor(variance).sum()
        return second_moment / (2 * self.scale**2) + loc.numel() * (math.log(self.scale) + LOG_ROOT_2PI)

    @property
    def numbers(self) -> tuple[float, ...]:
        """(scale,)."""
        return astuple(self)


@dataclass(frozen=True)
class ScaleMixture:
    """share * Normal(0, wide) + (1 - share) * Normal(0, narrow): Blundell 2015 (arXiv 1505.05424), eq. 7.

    A weight that is not needed falls into the narrow part, where it costs little and disturbs nothing. There is no
    closed form: the cross entropy is -log p of one sample (their eq. 2).

    Attributes:
        share: of the wide part, in (0, 1).
        wide: its standard deviation.
        narrow: the other's, smaller.
    """

    share: float
    wide: float
    narrow: float
    needs_sample = True

    def log_density(self, values: Tensor) -> Tensor:
        """log p of each value, same shape."""
        square = values.square()
        wide = math.log(self.share / self.wide) - LOG_ROOT_2PI - square / (2 * self.wide**2)
        # log(a + b) = log a + softplus(log b - log a), with one exponential
        offset = math.log((1 - self.share) * self.wide / (self.share * self.narrow))
        return wide + F.softplus(offset - square * (self.narrow**-2 - self.wide**-2) / 2)

    def cross_entropy(self, loc: Tensor, variance: Tensor | float, sample: Tensor) -> Tensor:
        """As `Prior.cross_entropy`, estimated from the sample."""
        return -self.log_density(sample).sum()

    @property
    def numbers(self) -> tuple[float, ...]:
        """(share, wide, narrow)."""
        return astuple(self)


@dataclass(frozen=True)
class OwnScales:
    """Normal of mean 0, each weight with a scale of its own, at the ELBO's maximum: automatic relevance determination.

    Given q, the best variance of a weight's prior is E w² under q, so its divergence is log(1 + mean² / variance) / 2
    (Titsias and Lázaro-Gredilla 2014, "Doubly stochastic variational Bayes"): a weight that is not needed
    costs nothing at mean 0, one that is costs the bits of its mean, however far from 0 that is. The scales are
    estimated, not integrated over: empirical Bayes.
    """

    needs_sample = False

    def cross_entropy(self, loc: Tensor, variance: Tensor, sample: Tensor | None = None) -> Tensor:
        """As `Prior.cross_entropy`, at the best scales; the variance is above 0.

        The best scales' own slope is zero, so gradients through them are those at fixed scales.
        """
        return (loc.square() + variance).log().sum() / 2 + loc.numel() * (LOG_ROOT_2PI + 0.5)

    @property
    def numbers(self) -> tuple[float, ...]:
        """(0.0,)."""
        return (0.0,)
