"""One set of weights, the most probable a posteriori: what Laplace's approximation and deep ensembles start from.

With a temperature it is a plain network, of the same architecture as the posteriors that stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from iic.bayes import network
from iic.bayes.inference import sample_logits
from iic.bayes.possible import check_possible
from iic.bayes.record import UNRECORDED, Learnt, Record
from iic.bayes.settings import Settings
from iic.bayes.sizes import Size
from iic.bayes.training import Data, learn, prepare
from iic.classifiers.calibration import fit_temperature


@dataclass(frozen=True)
class Point(Learnt):
    """A single set of weights, and what its logits are divided by.

    Attributes:
        loc: name -> float32, names and shapes as in `network.weight_shapes`.
        temperature: above 0, of the probabilities; it has nothing to do with the KL weight of the record.
        pixel_mean, curve, record: as in `record.Learnt`.
    """

    kind: ClassVar[str] = "point"
    loc: dict[str, Tensor]
    temperature: float
    pixel_mean: float
    curve: Tensor
    record: Record = UNRECORDED

    @property
    def fixed_layers(self) -> int:
        """All hidden ones."""
        return len(self.loc) // 2 - 1

    def draw(self, n_samples: int, *, seed: int = 0) -> Iterator[dict[str, Tensor]]:
        """The weights, again and again; the seed changes nothing."""
        yield from (dict(self.loc) for _ in range(n_samples))

    def distinct(self, n_samples: int) -> int:
        """One."""
        return min(n_samples, 1)

    def calibrated(self, images, labels) -> Self:
        """The same at the temperature that held-out images uint8 (N, C, H, W) and labels int64 (N,) ask for."""
        logits = sample_logits(self, images, 1, seed=0)[0]
        return replace(self, temperature=fit_temperature(logits, torch.as_tensor(labels)))


def fit(
    train_images, train_labels, settings: Settings, *, seed: int, progress: Callable[[Iterable], Iterable] = iter
) -> Point:
    """Train to the most probable weights, at a temperature of 1; arguments and errors as `fit_point`."""
    weights, fields = fit_point(prepare(train_images, train_labels, settings), settings, seed=seed, progress=progress)
    return Point(weights, 1.0, **fields)


def fit_point(
    data: Data,
    settings: Settings,
    *,
    seed: int,
    dropout: float = 0.0,
    progress: Callable[[Iterable], Iterable] = iter,
    likelihood: Callable | None = None,
) -> tuple[dict[str, Tensor], dict]:
    """The weights that maximise likelihood times prior: the prior is their weight decay.

    Args:
        data: from `training.prepare`.
        settings: prior and training; its `dropout` is not looked at.
        seed: of `training.learn`.
        dropout: share of the hidden units that are left out, other ones for each image and step.
        progress: wraps the steps, such as tqdm.
        likelihood: of `training.learn`.

    Returns:
        Weights of `network.logits`, and the fields pixel_mean, curve and record of `record.Learnt`.

    Raises:
        UserError: a temperature that is not 1, a prior of own scales, or the loss is no longer finite.
    """
    check_possible("ensemble", settings, data.sizes)

    def family(sizes: Sequence[Size], settings: Settings) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        return _point(sizes, settings, dropout)

    options = {} if likelihood is None else {"likelihood": likelihood}
    return learn(data, settings, family, seed=seed, progress=progress, **options)


def _point(sizes: Sequence[Size], settings: Settings, dropout: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    import pyro

    means, prior = network.initial_means(sizes), settings.prior

    def forward(inputs: Tensor) -> tuple[Tensor, Tensor]:
        weights = {name: pyro.param(name, mean) for name, mean in means.items()}
        penalty = torch.zeros(())
        for name, weight in weights.items():
            # a weight that a mask zeroes has a variance: the prior is asked about the masked ones
            masked = dropout and network.is_masked(name, weight)
            variance = weight.square() * (dropout / (1 - dropout)) if masked else 0.0
            penalty = penalty + prior.cross_entropy(weight, variance, weight)
        return network.logits(weights, inputs, dropout), penalty

    return forward
