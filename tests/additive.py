"""A network whose Shapley values are known exactly, to check explainers from end to end.

Each superpixel is seen by hidden units of its own, whose ReLUs are zero where it shows the fill; a logit is a sum over
the superpixels, and of products of two of them. The Shapley value of a superpixel is then what it adds by itself plus
half of every product that it is part of: of a product of two both are needed, so they share it equally.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from iic.classifiers.networks import Normalize
from iic.draws import generator

HIDDEN = 2  # ReLUs that see one superpixel
SPREAD = 64.0  # pixel units that count as 1, about an image's standard deviation


class AdditiveModel(nn.Module):
    """Logits (B, classes) from pixels 0..255 (B, C, H, W), for these superpixels and this fill.

    Args:
        segments: int64 (H, W), superpixels 0..M-1, the same in every image.
        fill: float (C,), pixel units.
        classes: number of logits.
        seed: of the weights.
        interaction: standard deviation of the products' weights; 0 leaves a sum over superpixels, which is `additive`.

    Attributes:
        additive: the logits without products, as an nn.Sequential without biases that every method here can explain.
            Rules that share a logit out in proportion (epsilon-LRP, input x gradient, integrated gradients) are exact
            on it, once their values are summed over each superpixel.
    """

    def __init__(
        self, segments: np.ndarray, fill: np.ndarray, classes: int, *, seed: int, interaction: float = 0.0
    ) -> None:
        super().__init__()
        rng = generator("additive", seed)
        self.count, channels = int(segments.max()) + 1, len(fill)
        units, labels = self.count * HIDDEN, np.tile(segments.ravel(), channels)
        seen = np.repeat(np.arange(self.count), HIDDEN)[:, None] == labels  # (M * HIDDEN, C * H * W)
        first = nn.Linear(labels.size, units, bias=False)
        last = nn.Linear(units, classes, bias=False)
        _set(first.weight, seen * rng.standard_normal(seen.shape) / np.sqrt(seen.sum(1, keepdims=True)))
        _set(last.weight, rng.standard_normal((classes, units)))
        normalize = Normalize(np.asarray(fill).tolist(), [SPREAD] * channels)
        self.additive = nn.Sequential(normalize, nn.Flatten(), first, nn.ReLU(), last)
        pairs = np.triu(interaction * rng.standard_normal((classes, self.count, self.count)), k=1)
        self.register_buffer("pairs", torch.from_numpy(pairs).float())
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.additive[:-1](x)
        seen = self._seen(hidden)
        return self.additive[-1](hidden) + torch.einsum("kij,bi,bj->bk", self.pairs, seen, seen)

    def shapley_values(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """What each superpixel contributes to the logit of each image's target class, in closed form.

        Args:
            images: uint8 (N, C, H, W).
            targets: int64 (N,).

        Returns:
            float64 (N, M); sums to the logit, since the logits of the fill are 0.
        """
        chosen = torch.from_numpy(targets)
        hidden = self.additive[:-1](torch.from_numpy(images).float()).double()
        seen = self._seen(hidden)  # (N, M)
        alone = (hidden * self.additive[-1].weight[chosen]).unflatten(1, (self.count, HIDDEN)).sum(2)
        products = self.pairs[chosen] * seen[:, :, None] * seen[:, None, :]  # (N, M, M), each once
        return (alone + (products.sum(1) + products.sum(2)) / 2).numpy()

    def _seen(self, hidden: Tensor) -> Tensor:
        """One number for each superpixel, 0 where it shows the fill: (B, M * HIDDEN) -> (B, M)."""
        return hidden.unflatten(1, (self.count, HIDDEN)).sum(2)


def _set(weight: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        weight.copy_(torch.from_numpy(values))
