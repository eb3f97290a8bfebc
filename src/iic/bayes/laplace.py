"""Laplace's approximation of the last layer: a Normal around the most probable weights, its precision their curvature.

Daxberger 2021 (arXiv 2106.14806). The precision of the last weights is the exact Gauss-Newton matrix, which for one
linear layer is the Hessian of the loss, summed over all training inputs, plus the prior's precision 1 / prior_scale².
The other layers stay at their most probable values; a network of one layer has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iic.bayes import network
from iic.bayes.point import Point, fit_point
from iic.bayes.possible import check_possible
from iic.bayes.record import UNRECORDED, Learnt, Record, draw_generator
from iic.bayes.settings import Settings
from iic.bayes.sizes import units
from iic.bayes.training import Data, prepare

_BATCH = 2000  # inputs whose curvature is summed at once


@dataclass(frozen=True)
class Laplace(Learnt):
    """Most probable weights, and a Normal around those of the last layer.

    Attributes:
        loc: name -> float32, names and shapes as in `network.weight_shapes`.
        root: float32 (n, n), root @ root.T is the covariance of the last layer's n = classes * (units + 1) numbers,
            class by class: its weights, then its bias.
        pixel_mean, curve, record: as in `record.Learnt`.
    """

    kind: ClassVar[str] = "laplace"
    loc: dict[str, Tensor]
    root: Tensor
    pixel_mean: float
    curve: Tensor
    record: Record = UNRECORDED

    @property
    def fixed_layers(self) -> int:
        """All but the last."""
        return len(self.loc) // 2 - 1

    def point(self) -> Point:
        """The most probable weights, which it was made around, as a plain network."""
        return Point(self.loc, 1.0, self.pixel_mean, self.curve, self.record)

    def draw(self, n_samples: int, *, seed: int) -> Iterator[dict[str, Tensor]]:
        """Sets of weights that differ in the last layer; the first k are the same for every n_samples >= k."""
        generator = draw_generator(seed)
        weight, bias = list(self.loc)[-2:]
        for _ in range(n_samples):
            moved = (self.root @ torch.randn(len(self.root), generator=generator)).view(len(self.loc[bias]), -1)
            yield {**self.loc, weight: self.loc[weight] + moved[:, :-1], bias: self.loc[bias] + moved[:, -1]}


def fit(
    train_images, train_labels, settings: Settings, *, seed: int, progress: Callable[[Iterable], Iterable] = iter
) -> Laplace:
    """Train to the most probable weights, then measure the curvature; arguments and errors as `inference.fit`.

    Raises:
        UserError: also if the prior is not a Normal, or the last layer too large for its curvature.
    """
    data = prepare(train_images, train_labels, settings)
    check_possible("laplace", settings, data.sizes)
    weights, fields = fit_point(data, settings, seed=seed, progress=progress)
    precision = last_layer_precision(weights, data, settings.prior_scale)
    return Laplace(weights, covariance_root(precision).float(), **fields)


def softmax_curvature(outputs: Tensor) -> Tensor:
    """Hessian of -log softmax in the logits (B, K), whatever the label: diag(p) - p pᵀ, (B, K, K)."""
    probabilities = outputs.softmax(1)
    return torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]


@torch.no_grad()
def last_layer_precision(
    weights: dict[str, Tensor],
    data: Data,
    prior_scale: float,
    curvature: Callable[[Tensor], Tensor] = softmax_curvature,
) -> Tensor:
    """Precision of the last layer's weights given the others, float64 (n, n), in the order of `Laplace.root`.

    Args:
        weights: of `network.logits`.
        data: all training inputs.
        prior_scale: standard deviation of the prior.
        curvature: outputs (B, K) -> Hessian of each input's loss in its outputs, (B, K, K).
    """
    width, classes = units(data.sizes[-2]) + 1, data.sizes[-1]  # the bias is one
    precision = torch.zeros(classes, width, classes, width, dtype=torch.float64)
    exact = {name: weight.double() for name, weight in weights.items()}
    for start in range(0, len(data.raw), _BATCH):
        hidden = network.last_hidden(exact, data.inputs(slice(start, start + _BATCH)).double())
        features = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], 1)  # (B, units + 1), the bias last
        hessian = curvature(hidden @ exact[f"layer{len(exact) // 2 - 1}.weight"].T + list(exact.values())[-1])
        for row in range(classes):
            for column in range(row + 1):
                block = features.T @ (features * hessian[:, row, column, None])  # symmetric
                precision[row, :, column] += block
                if row != column:
                    precision[column, :, row] += block
    precision = precision.view(classes * width, -1)
    precision.diagonal().add_(prior_scale**-2)
    return precision


def covariance_root(precision: Tensor) -> Tensor:
    """R (n, n) with R @ R.T the inverse of the precision: the inverse transpose of its Cholesky factor."""
    lower = torch.linalg.cholesky(precision)
    return torch.linalg.solve_triangular(lower.mT, torch.eye(len(lower), dtype=lower.dtype), upper=True)
