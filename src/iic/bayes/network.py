"""A fully connected ReLU network as a pure function of its weights: one sample of any posterior is one set of them.

Names and shapes are `weight_shapes`'. Everything here is plain torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

PIXEL_UNIT = 255.0  # uint8 pixels are divided by it


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


def unflatten(vector: Tensor, sizes: Sequence[int]) -> dict[str, Tensor]:
    """All weights and biases from one tensor (n, ...), in layer order: name -> view of the shape (*shape, ...)."""
    shapes = weight_shapes(sizes)
    parts = vector.split([math.prod(shape) for shape in shapes.values()])
    return {name: part.view(*shapes[name], *vector.shape[1:]) for name, part in zip(shapes, parts, strict=True)}


def normalise(raw: Tensor, pixel_mean: float, unit: float = PIXEL_UNIT) -> Tensor:
    """What the first layer sees: raw / unit - pixel_mean.

    Args:
        raw: uint8 images (N, C, H, W), or float features (N, F).
        pixel_mean: subtracted from every value, in units of `unit`: of pixels 0..1.
        unit: what a raw value is divided by.

    Returns:
        float32 (N, C * H * W) or (N, F).
    """
    return raw.flatten(1).float().div(unit).sub_(pixel_mean)


def hidden_layers(weights: Mapping[str, Tensor], inputs: Tensor, layers: Iterable[int], dropout: float = 0.0) -> Tensor:
    """What hidden layers of these numbers, one after the other, make of what the first of them sees: (N, units)."""
    hidden = inputs
    for layer in layers:
        weight = weights[f"layer{layer}.weight"]
        hidden = F.linear(hidden.to(weight.dtype), weight, weights[f"layer{layer}.bias"]).relu_()
        if dropout:
            hidden = F.dropout(hidden, dropout)
    return hidden


def last_hidden(weights: Mapping[str, Tensor], inputs: Tensor, dropout: float = 0.0, first: int = 0) -> Tensor:
    """What the last layer sees, float (N, units); arguments as `logits`."""
    return hidden_layers(weights, inputs, range(first, len(weights) // 2 - 1), dropout)


def logits(weights: Mapping[str, Tensor], inputs: Tensor, dropout: float = 0.0, first: int = 0) -> Tensor:
    """The network for one set of weights; every layer computes in the type of its weights.

    Args:
        weights: named and shaped as `weight_shapes` says.
        inputs: float32 (N, sizes[0]), from `normalise`; what layer `first` sees, if that is not the first one.
        dropout: share of the hidden units that are 0, drawn for each image from torch's RNG (training of MC dropout).
        first: the layer to begin with.

    Returns:
        (N, classes), float32 unless the last weights are of another type.
    """
    last = len(weights) // 2 - 1
    weight = weights[f"layer{last}.weight"]
    hidden = last_hidden(weights, inputs, dropout, first)
    return F.linear(hidden.to(weight.dtype), weight, weights[f"layer{last}.bias"])


def lowered(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights with every layer but the last in `dtype`."""
    last = f"layer{len(weights) // 2 - 1}."
    return {name: value if name.startswith(last) else value.to(dtype) for name, value in weights.items()}


def local_logits(loc: Mapping[str, Tensor], variance: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """One draw of the network's output under independent Normal weights, each image with weights of its own.

    Kingma et al. 2015 (arXiv 1506.02557), eq. 6: given the layer's input x, its pre-activations are independent Normals
    of mean x @ loc.T and variance x² @ variance.T (biases alike), so they are drawn, from torch's RNG, in place of the
    weights. The expected log-likelihood is the same; its gradient is less noisy, as images do not share their draws.

    Args:
        loc: mean of every weight and bias, as `weight_shapes` says.
        variance: same names and shapes, above 0.
        inputs: float32 (N, sizes[0]).

    Returns:
        float32 (N, classes).
    """
    hidden, last = inputs, len(loc) // 2 - 1
    for layer in range(last + 1):
        weight, bias = f"layer{layer}.weight", f"layer{layer}.bias"
        mean = F.linear(hidden, loc[weight], loc[bias])
        spread = F.linear(hidden.square(), variance[weight], variance[bias]).sqrt()
        hidden = torch.addcmul(mean, spread, torch.randn_like(mean))
        if layer < last:
            hidden = hidden.relu()
    return hidden
