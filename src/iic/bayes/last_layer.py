"""A Bayesian last layer: what a frozen convolutional network sees, classified by a linear layer with a posterior.

The posterior is one of `posteriors` without hidden layers, on features in place of images: its samples, predictions
and saved tensors are those of every other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from iic.bayes import posteriors
from iic.bayes.record import Learnt
from iic.bayes.settings import Settings
from iic.classifiers.inference import freeze, predict_logits
from iic.classifiers.networks import is_chain
from iic.errors import UserError


def features(
    model: nn.Sequential,
    images: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 250,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Tensor:
    """What the network's last layer sees of each image.

    Args:
        model: ends with a linear layer; it is left as it is.
        images: uint8 (N, C, H, W).
        dtype: what the middle layers compute in.
        batch_size: images a forward.
        progress: wraps the batches, such as tqdm.

    Returns:
        float32 (N, F).

    Raises:
        UserError: the network does not end with a linear layer.
    """
    check_last_layer(model)
    return predict_logits(freeze(model, dtype)[:-1], torch.as_tensor(images), batch_size, progress).float()


def check_last_layer(model: nn.Module) -> None:
    """Raise UserError unless the network ends with a linear layer."""
    if not is_chain(model) or not isinstance(model[-1], nn.Linear):
        raise UserError(
            "A Bayesian last layer takes the place of a linear one, and this network is no nn.Sequential that ends "
            "with nn.Linear: run `kedro run --pipelines evaluation`, which needs none."
        )


def fit(
    kind: str,
    seen: Tensor,
    labels,
    settings: Settings,
    *,
    seed: int,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Learnt:
    """The posterior of a linear classifier of features.

    Args:
        kind: a key of `posteriors.KINDS` but dropout.
        seen: float32 (N, F), from `features`, of the training images.
        labels: int64 (N,), class numbers from 0.
        settings: prior and training; its hidden layers are not built.
        seed: keys the start, the order of the inputs and all draws.
        progress: wraps the steps, such as tqdm.

    Raises:
        UserError: as `inference.fit`.
    """
    return posteriors.fit(kind, seen, labels, replace(settings, hidden=(), filters=()), seed=seed, progress=progress)
