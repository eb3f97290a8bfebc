"""A ReLU network as a pure function of its weights: one sample of any posterior is one set of them.

Names and shapes are `weight_shapes`'. Layers are dense, the first ones maybe convolutions: filters of KERNEL x KERNEL
pixels, moved by STRIDE, without padding. What a layer sees and gives is flat, (N, channels * rows * columns) of square
maps. Everything here is plain torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from iic.bayes.sizes import KERNEL, STRIDE, Size, side_after, units

PIXEL_UNIT = 255.0  # uint8 pixels are divided by it


def weight_shapes(sizes: Sequence[Size]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight and bias, in layer order, of a network of these `layer_sizes`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        convolution = isinstance(outputs, tuple)
        below = (inputs[0], KERNEL, KERNEL) if convolution else (units(inputs),)
        count = outputs[0] if convolution else outputs
        shapes[f"layer{layer}.weight"] = (count, *below)
        shapes[f"layer{layer}.bias"] = (count,)
    return shapes


def initial_means(sizes: Sequence[Size]) -> dict[str, Tensor]:
    """Weights and biases as `torch.nn.Linear` starts them, uniform within 1 / sqrt(inputs), drawn from torch's RNG."""
    shapes, means = weight_shapes(sizes), {}
    for layer in range(len(sizes) - 1):
        bound = 1 / math.sqrt(math.prod(shapes[f"layer{layer}.weight"][1:]))
        for name in (f"layer{layer}.weight", f"layer{layer}.bias"):
            means[name] = torch.empty(shapes[name]).uniform_(-bound, bound)
    return means


def wanted_inputs(shapes: Mapping[str, Sequence[int]], length: int) -> str | None:
    """What inputs a network of these `weight_shapes` needs, in words; None if inputs (N, length) are such.

    Where there are convolutions, images of a pixel more or less to a side may be such too.
    """
    weights = [shape for name, shape in shapes.items() if name.endswith("weight")]
    first = weights[0]
    if len(first) == 2:
        return None if first[1] == length else f"{first[1]} values"
    for shape in weights:
        if len(shape) == 2:
            return None if shape[1] == length else f"{first[1]} channels, as large as the training images,"
        side = math.isqrt(length // shape[1])
        length = shape[0] * side_after(side) ** 2 if shape[1] * side**2 == length and side >= KERNEL else 0
    raise AssertionError("the last layer is dense")


def unflatten(vector: Tensor, sizes: Sequence[Size]) -> dict[str, Tensor]:
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


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One layer without its ReLU: (N, inputs) -> (N, outputs); weight (outputs, inputs), or filters (O, C, k, k)."""
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    return F.conv2d(_maps(x, weight.shape[1]), weight, bias, STRIDE).flatten(1)


def transposed(flow: Tensor, weight: Tensor, length: int) -> Tensor:
    """`affine`'s gradient with respect to what the layer saw: flow (N, outputs) -> (N, length)."""
    if weight.ndim == 2:
        return flow @ weight
    maps, side = _maps(flow, weight.shape[0]), math.isqrt(length // weight.shape[1])
    unseen = side - KERNEL - STRIDE * (maps.shape[-1] - 1)  # rows behind the last place of the filters
    return F.conv_transpose2d(maps, weight, stride=STRIDE, output_padding=unseen).flatten(1)


def is_masked(name: str, weight: Tensor) -> bool:
    """Whether dropout masks what these numbers are multiplied by: a dense layer's weights, behind another layer."""
    return name.endswith("weight") and name != "layer0.weight" and weight.ndim == 2


def hidden_layers(weights: Mapping[str, Tensor], inputs: Tensor, layers: Iterable[int], dropout: float = 0.0) -> Tensor:
    """What hidden layers of these numbers, one after the other, make of what the first of them sees: (N, units).

    Dropout is of what dense layers see.
    """
    hidden = inputs
    for layer in layers:
        weight = weights[f"layer{layer}.weight"]
        hidden = affine(hidden.to(weight.dtype), weight, weights[f"layer{layer}.bias"]).relu_()
        if dropout and weights[f"layer{layer + 1}.weight"].ndim == 2:
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

    Dense layers by Kingma et al. 2015 (arXiv 1506.02557), eq. 6: given the layer's input x, its pre-activations are
    independent Normals of mean x @ loc.T and variance x² @ variance.T (biases alike), so they are drawn, from torch's
    RNG, in place of the weights. A filter's pre-activations share its weights, so they are not independent:
    convolutions go by Flipout. The expected log-likelihood is the same; its gradient is less noisy, as images do not
    share their draws.

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
        mean = affine(hidden, loc[weight], loc[bias])
        if loc[weight].ndim == 4:
            hidden = mean + flipout(hidden, variance[weight], variance[bias])
        else:
            spread = F.linear(hidden.square(), variance[weight], variance[bias]).sqrt()
            hidden = torch.addcmul(mean, spread, torch.randn_like(mean))
        if layer < last:
            hidden = hidden.relu()
    return hidden


def flipout(x: Tensor, variance: Tensor, bias_variance: Tensor) -> Tensor:
    """What the filters' deviations from their means add to a convolution, each image with deviations of its own.

    Wen et al. 2018 (arXiv 1803.04386), eq. 4: one draw for the batch, whose sign for each image, channel and filter is
    that of two coins of the image's own. Each image's deviations are the posterior's; those of two images are
    uncorrelated. Biases are drawn image by image.

    Args:
        x: float32 (N, C * rows * columns), what the layer sees.
        variance: (O, C, k, k), of the filters.
        bias_variance: (O,).

    Returns:
        float32 (N, O * rows' * columns').
    """
    filters, channels = variance.shape[:2]
    drawn = variance.sqrt() * torch.randn_like(variance)
    seen = x.unflatten(1, (channels, -1)) * _coins(len(x), channels)
    moved = affine(seen.flatten(1), drawn).unflatten(1, (filters, -1)) * _coins(len(x), filters)
    return (moved + (bias_variance.sqrt() * torch.randn(len(x), filters))[..., None]).flatten(1)


def _coins(images: int, channels: int) -> Tensor:
    """-1 or 1 with equal chances, float32 (N, C, 1)."""
    return torch.randint(0, 2, (images, channels, 1), dtype=torch.float32).mul_(2).sub_(1)


def _maps(x: Tensor, channels: int) -> Tensor:
    """(N, channels * side²) -> (N, channels, side, side)."""
    side = math.isqrt(x.shape[-1] // channels)
    return x.unflatten(-1, (channels, side, side))
