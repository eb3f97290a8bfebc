"""A fully connected ReLU network whose weights and biases are Normal random variables, as a Pyro model and guide.

Prior: every weight and bias ~ Normal(0, prior_scale). Guide: mean-field Normal with learned mean and scale (Blundell
2015, arXiv 1505.05424). The guide is AutoNormal written out: AutoNormal wraps each sample in a Delta, for which
TraceMeanField_ELBO estimates the KL divergence from that one sample; plain Normal sites give it in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def weight_shapes(sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight and bias, in layer order, of a network such as sizes = (784, 512, 10)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        shapes[f"layer{layer}.weight"] = (outputs, inputs)
        shapes[f"layer{layer}.bias"] = (outputs,)
    return shapes


def initial_means(sizes: Sequence[int]) -> dict[str, Tensor]:
    """Weights and biases as `torch.nn.Linear` starts them, uniform within 1 / sqrt(inputs), drawn from torch's RNG."""
    shapes, means = weight_shapes(sizes), {}
    for layer, inputs in enumerate(sizes[:-1]):
        bound = 1 / math.sqrt(inputs)
        for name in (f"layer{layer}.weight", f"layer{layer}.bias"):
            means[name] = torch.empty(shapes[name]).uniform_(-bound, bound)
    return means


def normalise(images: Tensor, pixel_mean: float) -> Tensor:
    """uint8 (N, C, H, W) -> float32 (N, C * H * W): x / 255 - pixel_mean, the mean in the same units 0..1."""
    return images.flatten(1).float().div_(255).sub_(pixel_mean)


def logits(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """The network for one set of weights.

    Args:
        weights: named and shaped as `weight_shapes` says.
        inputs: float32 (N, sizes[0]), from `normalise`.

    Returns:
        float32 (N, classes).
    """
    hidden, last = inputs, len(weights) // 2 - 1
    for layer in range(last + 1):
        hidden = F.linear(hidden, weights[f"layer{layer}.weight"], weights[f"layer{layer}.bias"])
        if layer < last:
            hidden = hidden.relu()
    return hidden


def model(
    sizes: Sequence[int], prior_scale: float, train_size: int, inputs: Tensor, labels: Tensor, chosen: Tensor
) -> None:
    """Pyro model: prior, network, and a Categorical label per image.

    Args:
        sizes: units per layer, inputs first, classes last.
        prior_scale: standard deviation of every weight and bias a priori.
        train_size: number of training images; the batch's likelihood counts train_size / B times.
        inputs: float32 (B, sizes[0]), a batch, from `normalise`.
        labels: int64 (B,).
        chosen: int64 (B,), which of the training images the batch holds.
    """
    import pyro
    import pyro.distributions as dist

    prior = dist.Normal(0.0, prior_scale)
    weights = {
        name: pyro.sample(name, prior.expand(shape).to_event(len(shape)))
        for name, shape in weight_shapes(sizes).items()
    }
    outputs = logits(weights, inputs)  # (B, classes)
    with pyro.plate("images", train_size, subsample=chosen):
        pyro.sample("labels", dist.Categorical(logits=outputs), obs=labels)


def guide(means: Mapping[str, Tensor], init_scale: float) -> None:
    """Pyro guide: an independent Normal for every weight and bias, parameters `<name>.loc` and `<name>.scale`.

    Args:
        means: where the learned means start, from `initial_means`.
        init_scale: where the learned scales start.
    """
    import pyro
    import pyro.distributions as dist

    for name, mean in means.items():
        loc = pyro.param(f"{name}.loc", mean)
        start = torch.full_like(mean, init_scale)
        scale = pyro.param(f"{name}.scale", start, constraint=dist.constraints.softplus_positive)
        pyro.sample(name, dist.Normal(loc, scale).to_event(mean.ndim))
