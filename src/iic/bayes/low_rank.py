"""A Normal over all weights together whose covariance is a diagonal plus a matrix of low rank.

It is the family of Pyro's AutoLowRankMultivariateNormal with its start; the KL divergence is in closed form (the
entropy by the matrix determinant lemma), where the autoguide estimates it from the draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iic.bayes import network
from iic.bayes.record import UNRECORDED, Learnt, Record, draw_generator
from iic.bayes.settings import Settings
from iic.bayes.sizes import Size
from iic.bayes.training import learn, prepare


@dataclass(frozen=True)
class LowRank(Learnt):
    """Weights loc + scale * e + factor @ z, e and z standard Normal, z the same for all weights.

    Attributes:
        loc: name -> mean, float32; names and shapes as in `network.weight_shapes`.
        scale: name -> standard deviation of what is independent, float32, same shapes.
        factor: name -> float32 (*shape, rank).
        pixel_mean, curve, record: as in `record.Learnt`.
    """

    kind: ClassVar[str] = "low_rank"
    loc: dict[str, Tensor]
    scale: dict[str, Tensor]
    factor: dict[str, Tensor]
    pixel_mean: float
    curve: Tensor
    record: Record = UNRECORDED

    def draw(self, n_samples: int, *, seed: int) -> Iterator[dict[str, Tensor]]:
        """Sets of weights; the first k are the same for every n_samples >= k."""
        generator = draw_generator(seed)
        rank = next(iter(self.factor.values())).shape[-1]
        for _ in range(n_samples):
            common = torch.randn(rank, generator=generator)
            yield {
                name: torch.addcmul(loc, self.scale[name], torch.randn(loc.shape, generator=generator))
                + self.factor[name] @ common
                for name, loc in self.loc.items()
            }


def fit(
    train_images, train_labels, settings: Settings, *, seed: int, progress: Callable[[Iterable], Iterable] = iter
) -> LowRank:
    """Maximise the ELBO with `settings.rank` common directions; arguments and errors as `inference.fit`."""
    data = prepare(train_images, train_labels, settings)
    parameters, fields = learn(data, settings, low_rank, seed=seed, progress=progress)
    parts = (network.unflatten(parameters[name], data.sizes) for name in ("loc", "scale", "factor"))
    return LowRank(*({name: part.clone() for name, part in named.items()} for named in parts), **fields)


def low_rank(sizes: Sequence[Size], settings: Settings) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The family of `training.learn`: parameters loc (n,), scale (n,) and factor (n, rank) over all n weights.

    At the start the diagonal and the common part have half of the variance init_scale² each, and the means are a plain
    network's.
    """
    import pyro
    import pyro.distributions as dist

    means = torch.cat([mean.flatten() for mean in network.initial_means(sizes).values()])  # (n,)
    scales = torch.full_like(means, settings.init_scale * math.sqrt(0.5))
    factors = torch.randn(len(means), settings.rank) * (settings.init_scale * math.sqrt(0.5 / settings.rank))
    prior = settings.prior

    def forward(inputs: Tensor) -> tuple[Tensor, Tensor]:
        loc = pyro.param("loc", means)
        scale = pyro.param("scale", scales, constraint=dist.constraints.softplus_positive)
        factor = pyro.param("factor", factors)
        weights = dist.LowRankMultivariateNormal(loc, factor, scale.square())
        sample = weights.rsample()
        divergence = prior.cross_entropy(loc, weights.variance, sample) - weights.entropy()
        return network.logits(network.unflatten(sample, sizes), inputs), divergence

    return forward
