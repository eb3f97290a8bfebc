"""One set of weights, the most probable a posteriori: what Laplace's approximation and deep ensembles start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from iic.bayes import network
from iic.bayes.settings import Settings
from iic.bayes.training import Data, learn
from iic.errors import UserError


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
        UserError: a temperature that is not 1, or the loss is no longer finite.
    """
    if settings.temperature != 1:
        raise UserError(
            f"Only mean-field and low-rank posteriors have a temperature: set it to 1, not {settings.temperature}."
        )

    def family(sizes: tuple[int, ...], settings: Settings) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        return _point(sizes, settings, dropout)

    options = {} if likelihood is None else {"likelihood": likelihood}
    return learn(data, settings, family, seed=seed, progress=progress, **options)


def require_normal_prior(settings: Settings, what: str) -> None:
    """Raise a UserError that names `what` if the prior is a scale mixture."""
    if settings.narrow_scale is not None:
        raise UserError(f"{what} needs a prior of one Normal: set narrow_scale ({settings.narrow_scale}) to None.")


def _point(sizes: tuple[int, ...], settings: Settings, dropout: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    import pyro

    means, prior = network.initial_means(sizes), settings.prior

    def forward(inputs: Tensor) -> tuple[Tensor, Tensor]:
        weights = {name: pyro.param(name, mean) for name, mean in means.items()}
        penalty = torch.zeros(())
        for name, weight in weights.items():
            # a weight that a mask zeroes has a variance: the prior is asked about the masked ones
            masked = name.endswith("weight") and name != "layer0.weight"
            variance = weight.square() * (dropout / (1 - dropout)) if masked and dropout else 0.0
            penalty = penalty + prior.cross_entropy(weight, variance, weight)
        return network.logits(weights, inputs, dropout), penalty

    return forward
