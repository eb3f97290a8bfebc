"""The rules of Layer-wise Relevance Propagation: how one layer hands its relevance down to its inputs.

Every rule divides a layer's relevance r among terms x w and a bias b, in proportion to what each adds to some sum z,
stabilised by a small epsilon of z's own sign. Each returns what arrives at the inputs and, per image, what the bias
and the stabiliser keep: the three together are the relevance that came in (Montavon et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Shares(NamedTuple):
    """Relevance at the inputs (N, ...), and what bias and stabiliser kept, (N,) each."""

    inputs: Tensor
    bias: Tensor
    stabiliser: Tensor


@dataclass(frozen=True)
class Seen:
    """What a rule is told of its layer: input x, output z, whether x >= 0 everywhere, and the smallest and largest
    possible input, (1, C, 1, 1), where they are known (the layer on the normalised pixels)."""

    x: Tensor
    z: Tensor
    nonnegative: bool
    box: tuple[Tensor, Tensor] | None = None


Rule = Callable[[nn.Module, Seen, Tensor], Shares]


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """z plus epsilon with its sign; + for zero."""
    return z + torch.where(z >= 0, epsilon, -epsilon).to(z.dtype)


def forward(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer with other weights."""
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.linear(x, weight, bias)


def transposed(layer: nn.Module, flow: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
    """The transposed map, from outputs to inputs of this shape."""
    if isinstance(layer, nn.Conv2d):
        options = layer.stride, layer.padding, layer.dilation, layer.groups
        return torch.nn.grad.conv2d_input(shape, weight, flow, *options)
    return flow @ weight


def _per_image(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1, dtype=torch.float64)  # (N,)


def _biased(s: Tensor, bias: Tensor | None) -> Tensor:
    """What the bias keeps: sum of b s, (N,)."""
    if bias is None:
        return s.new_zeros(len(s), dtype=torch.float64)
    per_output = s.double() if s.ndim == 2 else s.flatten(2).sum(2, dtype=torch.float64)  # (N, outputs)
    return per_output @ bias.double()


Term = tuple[Tensor, Tensor, Tensor | None]  # input, weight, bias


def _divide(layer: nn.Module, terms: list[Term], relevance: Tensor, epsilon: float, z: Tensor | None = None) -> Shares:
    """Relevance in proportion to each term of z = sum of x w + b; z is computed unless given."""
    if z is None:
        z = sum(forward(layer, x, weight, bias) for x, weight, bias in terms)
    s = relevance / stabilised(z, epsilon)
    inputs = sum(x * transposed(layer, s, weight, x.shape) for x, weight, _ in terms)
    bias = sum(_biased(s, bias) for _, _, bias in terms)
    return Shares(inputs, bias, _per_image(relevance - z * s))


def _signed_terms(layer: nn.Module, seen: Seen, up: Callable, down: Callable) -> list[Term]:
    """Positive inputs with `up` of weights and bias; negative ones, if there are any, with `down` of the weights."""
    bias = None if layer.bias is None else up(layer.bias)
    if seen.nonnegative:
        return [(seen.x, up(layer.weight), bias)]
    return [(seen.x.clamp(min=0), up(layer.weight), bias), (seen.x.clamp(max=0), down(layer.weight), None)]


def _positive(w: Tensor) -> Tensor:
    return w.clamp(min=0)


def _negative(w: Tensor) -> Tensor:
    return w.clamp(max=0)


def _plus(first: Shares, second: Shares) -> Shares:
    return Shares(*(a + b for a, b in zip(first, second, strict=True)))


def epsilon_rule(epsilon: float = 1e-6) -> Rule:
    """LRP-epsilon (Bach et al. 2015): in proportion to x w; a larger epsilon keeps more of weak, contradictory sums."""

    def rule(layer: nn.Module, seen: Seen, relevance: Tensor) -> Shares:
        return _divide(layer, [(seen.x, layer.weight, layer.bias)], relevance, epsilon, seen.z)

    return rule


def plus_rule(epsilon: float = 1e-6) -> Rule:
    """z-plus (Montavon et al. 2017): in proportion to the positive x w; robust in lower layers."""

    def rule(layer: nn.Module, seen: Seen, relevance: Tensor) -> Shares:
        return _divide(layer, _signed_terms(layer, seen, _positive, _negative), relevance, epsilon)

    return rule


def alpha_beta_rule(alpha: float = 2.0, beta: float = 1.0, epsilon: float = 1e-6) -> Rule:
    """alpha times the positive shares less beta times the negative ones, alpha - beta = 1 (Bach et al. 2015)."""
    if alpha < 0 or beta < 0 or alpha - beta != 1:
        raise ValueError(f"alpha - beta must be 1 and neither negative, not alpha {alpha}, beta {beta}")

    def rule(layer: nn.Module, seen: Seen, relevance: Tensor) -> Shares:
        for_it = _divide(layer, _signed_terms(layer, seen, _positive, _negative), alpha * relevance, epsilon)
        against = _divide(layer, _signed_terms(layer, seen, _negative, _positive), -beta * relevance, epsilon)
        return _plus(for_it, against)

    return rule


def gamma_rule(gamma: float = 0.25, epsilon: float = 1e-6) -> Rule:
    """Positive x w count 1 + gamma times (Montavon et al. 2019); for outputs below zero the negative ones do
    (generalised to any sign, Andeol et al. 2021). An output of exactly zero hands nothing down."""

    def up(w: Tensor) -> Tensor:
        return w + gamma * w.clamp(min=0)

    def down(w: Tensor) -> Tensor:
        return w + gamma * w.clamp(max=0)

    def rule(layer: nn.Module, seen: Seen, relevance: Tensor) -> Shares:
        above = relevance * (seen.z > 0)
        shares = _divide(layer, _signed_terms(layer, seen, up, down), above, epsilon)
        below = relevance * (seen.z < 0)
        if below.any():  # behind a ReLU there is none, and two passes are saved
            shares = _plus(shares, _divide(layer, _signed_terms(layer, seen, down, up), below, epsilon))
        dropped = _per_image(relevance * (seen.z == 0))
        return Shares(shares.inputs, shares.bias, shares.stabiliser + dropped)

    return rule


def flat_rule(epsilon: float = 1e-6) -> Rule:
    """Equal shares over the receptive field (Lapuschkin et al. 2019), for the layer on the pixels."""

    def rule(layer: nn.Module, seen: Seen, relevance: Tensor) -> Shares:
        none = relevance.new_zeros(len(relevance), dtype=torch.float64)
        if not isinstance(layer, nn.Conv2d):
            size = seen.x.shape[-1]
            s = relevance / (size + epsilon)
            inputs = s.sum(-1, keepdim=True).expand(seen.x.shape)
            return Shares(inputs, none, _per_image(relevance - size * s))
        # All channels of a group are alike: one stands for them.
        channels = seen.x.shape[1] // layer.groups
        ones = relevance.new_ones(1, 1, *layer.kernel_size)
        options = layer.stride, layer.padding, layer.dilation
        z = channels * F.conv2d(relevance.new_ones(1, 1, *seen.x.shape[2:]), ones, None, *options)
        s = relevance / (z + epsilon)
        grouped = s.unflatten(1, (layer.groups, -1)).sum(2)  # (N, groups, h, w)
        shape = torch.Size((len(s) * layer.groups, 1, *seen.x.shape[2:]))
        spread = torch.nn.grad.conv2d_input(shape, ones, grouped.flatten(0, 1).unsqueeze(1), *options)
        inputs = spread.view(len(s), layer.groups, *seen.x.shape[2:]).repeat_interleave(channels, 1)
        return Shares(inputs, none, _per_image(relevance - z * s))

    return rule


def box_rule(epsilon: float = 1e-6) -> Rule:
    """z-box (Montavon et al. 2017): the distance to the darkest and brightest possible pixel; on the pixels only."""

    def rule(layer: nn.Module, seen: Seen, relevance: Tensor) -> Shares:
        low, high = (bound.to(seen.x.dtype).expand(seen.x.shape) for bound in seen.box)
        positive, negative = _positive(layer.weight), _negative(layer.weight)
        bias = [None] * 2 if layer.bias is None else [_positive(layer.bias), _negative(layer.bias)]
        z = seen.z - forward(layer, low[:1], positive, bias[0]) - forward(layer, high[:1], negative, bias[1])
        s = relevance / stabilised(z, epsilon)
        inputs = (
            seen.x * transposed(layer, s, layer.weight, seen.x.shape)
            - low * transposed(layer, s, positive, seen.x.shape)
            - high * transposed(layer, s, negative, seen.x.shape)
        )
        none = relevance.new_zeros(len(relevance), dtype=torch.float64)  # b less its two parts is zero
        return Shares(inputs, none, _per_image(relevance - z * s))

    return rule
